"""`neural-env train agent`: PPO in the real game, every episode of it recorded.

::

    OUT/run.json        what is trained; another run in the same folder is refused
    OUT/state/          checkpoints: killed and run again, the training goes on from the last
    OUT/metrics.jsonl   a line an update, the same in TensorBoard
    OUT/policy/         the agent as it is now
    OUT/versions/N/     the agent after N updates, for N = 0 and the powers of two: clumsy, better, good
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from neural_env.agents.games import Games, GamesConfig, Reward
from neural_env.agents.host import Ended, HostPlayer
from neural_env.agents.player import Agent, new_policy, save_agent
from neural_env.agents.policy import ActorCritic, ForeseerConfig
from neural_env.agents.ppo import AgentState, Preset, initial_state, make_update, preset_named, require_rlax
from neural_env.data.recorder import Recorder
from neural_env.data.shards import write_whole
from neural_env.data.vizdoom import SIGNALS, checked_resolution
from neural_env.training.loop import Metrics, NonFiniteLoss
from neural_env.training.state import StateStore
from neural_env.version import __version__
from neural_env.world.parameters import replaced

_RECENT = 100  # episodes whose mean return is the agent's skill


@dataclass(frozen=True, kw_only=True)
class AgentRun:
    """Train an agent in the real game by PPO; interrupted and run again, it goes on."""

    out: Path  # folder of the run
    scenario: str = "take_cover"  # what to play: a scenario's name or a map, as in `neural-env collect`
    iwad: str | None = None  # path of a game to play it in, instead of Freedoom
    total_steps: int = 10_000_000  # of all games together; the learning rate falls over them
    preset: str = "gamengen"  # the network and how it learns: gamengen (the paper's), fast (two CPU cores), tiny
    reward: Reward = "gamengen"  # what it learns from: the paper's shaped reward, or the scenario's own
    repeat: float = 0.25  # probability that the game repeats the last action instead of the one chosen
    resolution: tuple[int, int] = (120, 160)  # of the game: height and width, pixels
    record: Path | None = None  # dataset folder for every episode of the training
    workers: int = 2  # processes that play
    groups: int | None = None  # of workers, one looked at while others play; by default 2 if a core is free, else 1
    max_episode_steps: int = 525  # an episode is cut off after so many steps
    seed: int = 0  # of the network and its actions; the games' seeds are those of training
    max_minutes: float | None = None  # stop after so long, leaving a usable agent; run again to go on
    checkpoint_minutes: float = 3.0  # save this often; a killed run loses the episodes since

    def __post_init__(self) -> None:
        if isinstance(preset_named(self.preset).policy, ForeseerConfig):
            raise ValueError(
                f"the preset {self.preset} looks at a dream's latents: choose another one for the real game"
            )
        if self.groups is not None and self.groups < 1:
            raise ValueError(f"groups must be at least 1, got {self.groups}")
        if self.total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, got {self.total_steps}")
        self.games()

    def games(self, first_episode: int = 0) -> GamesConfig:
        """The games it plays, the first one with that episode."""
        return GamesConfig(
            scenario=self.scenario,
            iwad=self.iwad,
            automap=preset_named(self.preset).policy.automap,
            games=preset_named(self.preset).ppo.games,
            workers=min(self.workers, preset_named(self.preset).ppo.games),
            reward=self.reward,
            repeat=self.repeat,
            resolution=checked_resolution(self.resolution),
            max_episode_steps=self.max_episode_steps,
            first_episode=first_episode,
        )


Array: TypeAlias = "jax.Array | np.ndarray"


class RunState(NamedTuple):
    """What a killed run goes on from."""

    step: Array  # updates made
    agent: AgentState
    next_episode: Array  # number of the next episode that no game has begun
    recorded: Array  # episodes in the recording
    recent: Array  # float32 [_RECENT]: returns of the last episodes, newest last; NaN for none

    @property
    def skill(self) -> float | None:
        """Mean return of the last episodes, in the reward that the agent learns from: a map has none of its own."""
        returns = np.asarray(self.recent)
        return None if np.isnan(returns).all() else float(np.nanmean(returns))


def train_agent(run: AgentRun) -> None:
    """Trains, records and leaves the agent in `run.out / "policy"`.

    Raises:
        ImportError: rlax isn't installed.
        ValueError: the folder holds another run, or the recording's another dataset.
        EngineCrashed, WorkersHung: the game failed; run again to go on.
        NonFiniteLoss: training diverged.
    """
    require_rlax()
    preset = preset_named(run.preset)
    run.out.mkdir(parents=True, exist_ok=True)
    policy = new_policy(preset.policy, run.games().game, run.seed)
    with _recorder(run) as recorder, closing(StateStore(run.out / "state")) as store:
        _claim(run, recorder)
        fresh = initial_run_state(policy, preset)
        state = store.restore(fresh) or fresh
        if recorder is not None:
            recorder.truncate_to(int(state.recorded))
        _Training(run, policy, store, recorder).go_on(state)


def initial_run_state(policy: ActorCritic, preset: Preset) -> RunState:
    """Before the first step."""
    zero = np.zeros((), np.int32)
    recent = np.full(_RECENT, np.nan, np.float32)
    return RunState(zero, initial_state(policy, preset.ppo), zero, zero, recent)


def _claim(run: AgentRun, recorder: Recorder | None) -> None:
    """Write down what is trained here, or refuse to go on with something else.

    Going on drops the episodes recorded after the checkpoint, so the recording must be this run's from the first.
    """
    path = run.out / "run.json"
    free = ("out", "workers", "groups", "max_minutes", "checkpoint_minutes")
    settings = {name: value for name, value in asdict(run).items() if name not in free}
    settings |= {"record": None if run.record is None else str(run.record), "resolution": list(run.resolution)}
    if not path.exists():
        if recorder is not None and recorder.count:
            cure = "choose a new folder for this training"
            raise ValueError(f"{run.record} holds {recorder.count} episodes of another run; {cure}")
        write_whole(path, (json.dumps(settings, indent=2) + "\n").encode())
        return
    found = {"resolution": [120, 160], **json.loads(path.read_text())}  # not named before it could be chosen
    for name, asked in settings.items():
        if found.get(name) != asked:
            cure = "choose another folder, or the same settings to go on with it"
            raise ValueError(f"{run.out} holds a training with {name} {found.get(name)!r}, not {asked!r}; {cure}")


@contextmanager
def _recorder(run: AgentRun) -> Iterator[Recorder | None]:
    if run.record is None:
        yield None
        return
    name = f"ppo({run.preset}, {run.reward}, repeat={run.repeat}, seed={run.seed})"
    limit = run.max_episode_steps
    yield Recorder(run.record, run.games().game, policy=name, signal_names=SIGNALS, max_episode_steps=limit)


class _Training:
    """One run of the program, from where the last one stopped."""

    def __init__(self, run: AgentRun, policy: ActorCritic, store: StateStore, recorder: Recorder | None) -> None:
        self.run = run
        self.preset = preset_named(run.preset)
        self.updates = -(-run.total_steps // self.preset.ppo.transitions)
        self._policy = policy
        self._store = store
        self._recorder = recorder
        self._update = make_update(policy, self.preset.ppo, self.updates)

    def go_on(self, state: RunState) -> None:
        """Play and learn until the steps or the minutes are used up."""
        first, began = int(state.step), time.monotonic()
        saved = began
        with (
            Games(self.run.games(int(state.next_episode))) as games,
            Metrics(self.run.out) as metrics,
            _progress(self.run, self.updates * self.preset.ppo.transitions) as report,
        ):
            record, groups = self._recorder is not None, self.run.groups
            player = HostPlayer(games, self._policy, self.preset.ppo, record=record, groups=groups)
            self._keep_version(state)
            while int(state.step) < self.updates:
                state, scalars = self._one(state, player)
                steps = int(state.step) * self.preset.ppo.transitions
                made = (int(state.step) - first) * self.preset.ppo.transitions
                scalars["steps_per_second"] = made / (time.monotonic() - began)
                metrics.write(steps, "train", scalars)
                report(steps, state.skill, scalars["steps_per_second"])
                self._keep_version(state)
                if time.monotonic() - saved > 60 * self.run.checkpoint_minutes:
                    state, saved = self._save(state), time.monotonic()
                if self._over(began):
                    break
            self._save(state)
        self._leave(state)

    def _over(self, began: float) -> bool:
        limit = self.run.max_minutes
        return limit is not None and time.monotonic() - began > 60 * limit

    def _one(self, state: RunState, player: HostPlayer) -> tuple[RunState, dict[str, float]]:
        """One roll-out and one update."""
        step = int(state.step)
        key = jax.random.fold_in(jax.random.key(self.run.seed), step)
        key_play, key_learn = jax.random.split(key)
        began = time.monotonic()
        rollout, ended = player.rollout(state.agent.params, key_play, step, state.skill)
        played = time.monotonic()
        agent, logs = self._update(state.agent, rollout, key_learn)
        scalars = {name: float(value) for name, value in logs.items()}
        _check_finite(scalars, step, self._store)
        learnt = time.monotonic()
        self._record(ended)
        scalars |= {"play_seconds": played - began, "learn_seconds": learnt - played, **_scores(ended)}
        scalars["record_seconds"] = time.monotonic() - learnt
        recent = np.concatenate([state.recent, np.asarray([e.shaped_return for e in ended], np.float32)])[-_RECENT:]
        made = np.asarray(step + 1, np.int32)  # not the agent's own array, which the next update overwrites
        following = RunState(made, agent, np.asarray(player.next_episode, np.int32), state.recorded, recent)
        return following, scalars

    def _record(self, ended: list[Ended]) -> None:
        if self._recorder is not None:
            for one in ended:
                assert one.episode is not None
                self._recorder.add(one.episode)

    def _save(self, state: RunState) -> RunState:
        """The recording first: the checkpoint counts on what it says is there."""
        if self._recorder is not None:
            self._recorder.flush()
            state = state._replace(recorded=np.asarray(self._recorder.count, np.int32))
        self._store.save(state)
        self._leave_agent(state, self.run.out / "policy")
        return state

    def _keep_version(self, state: RunState) -> None:
        step = int(state.step)
        folder = self.run.out / "versions" / str(step)
        if step & (step - 1) == 0 and not folder.exists():  # 0, 1, 2, 4, 8, ...
            self._leave_agent(state, folder)

    def _leave_agent(self, state: RunState, folder: Path) -> None:
        provenance = {
            **json.loads((self.run.out / "run.json").read_text()),
            "ppo": asdict(self.preset.ppo),
            "updates": int(state.step),
            "steps": int(state.step) * self.preset.ppo.transitions,
            "skill": state.skill,
            "code_version": __version__,
        }
        save_agent(Agent(replaced(self._policy, state.agent.params), self.run.games().game, provenance), folder)

    def _leave(self, state: RunState) -> None:
        done = int(state.step) * self.preset.ppo.transitions
        whole = "finished" if int(state.step) >= self.updates else "stopped early; run again to go on"
        skill = "none yet" if state.skill is None else f"{state.skill:.1f}"
        Console().print(
            f"agent: {whole} at step {done} of {self.updates * self.preset.ppo.transitions}, "
            f"mean return of the last {_RECENT} episodes {skill}, see {self.run.out}",
            soft_wrap=True,
        )


def _scores(ended: list[Ended]) -> dict[str, float]:
    """Of the episodes that ended in this roll-out."""
    if not ended:
        return {}
    return {
        "episodes": float(len(ended)),
        "return": float(np.mean([e.scenario_return for e in ended])),
        "shaped_return": float(np.mean([e.shaped_return for e in ended])),
        "length": float(np.mean([e.steps for e in ended])),
    }


def _check_finite(scalars: dict[str, float], step: int, store: StateStore) -> None:
    for name in ("value_loss", "policy_loss", "gradient_norm"):
        if not np.isfinite(scalars[name]):
            raise NonFiniteLoss(
                f"{name} is {scalars[name]} at update {step + 1}; the last good state is in {store.folder}: "
                "choose a lower learning rate"
            )


@contextmanager
def _progress(run: AgentRun, total: int) -> Iterator[Any]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(f"{run.scenario} agent", total=total, note="compiling")

        def report(steps: int, skill: float | None, rate: float) -> None:
            shown = "none yet" if skill is None else f"{skill:.1f}"
            bar.update(task, completed=steps, note=f"return {shown}, {rate:.0f} steps/s")

        yield report
