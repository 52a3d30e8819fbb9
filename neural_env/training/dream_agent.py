"""`neural-env train dream-agent`: PPO in a dream, without a step of the real game.

::

    OUT/run.json            what is trained; another run in the same folder is refused
    OUT/state/              checkpoints: killed and run again, the training goes on from the last
    OUT/metrics.jsonl       a line an update, the same in TensorBoard
    OUT/policy/             the agent as it is now
    OUT/versions/N/         the agent after N updates, and score.json: what it got in real games of validation seeds

The real games measure, they teach nothing: a training with `validation_games=0` makes the same agent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from neural_env import checkpoint as checkpoints
from neural_env.agents.dreams import Beginnings, Dreams, DreamsConfig, begin_dreams, beginnings, step_fn
from neural_env.agents.eyes import Eyes
from neural_env.agents.foreseer import that_knows
from neural_env.agents.host_dreams import HostRollout
from neural_env.agents.planning import Planner
from neural_env.agents.player import Agent, AgentPolicy, new_policy, read_agent, read_agent_provenance, save_agent
from neural_env.agents.policy import ActorCritic, ForeseerConfig, Memory, begin
from neural_env.agents.ppo import (
    AgentState,
    Preset,
    initial_state,
    make_update,
    preset_named,
    require_rlax,
    rollout_in_dream,
)
from neural_env.agents.shaping import Shaping
from neural_env.checkpoint import Checkpoint
from neural_env.data.mixture import EVENLY, Mixture
from neural_env.data.play import play
from neural_env.data.shards import write_whole
from neural_env.envs import core
from neural_env.envs.core import DreamState
from neural_env.envs.dream import Dream
from neural_env.envs.real_doom import RealDoom
from neural_env.evaluation.world import seeds_of
from neural_env.runtime import usable_cores
from neural_env.training.contexts import contexts
from neural_env.training.danger import load_danger
from neural_env.training.imitation import imitate, lesson_of, planned
from neural_env.training.loop import Metrics, NonFiniteLoss
from neural_env.training.state import StateStore
from neural_env.version import __version__
from neural_env.world.danger import Danger
from neural_env.world.parameters import all_arrays, fingerprint, replaced

Runtime: TypeAlias = Literal["xla", "openvino"]
_PARENT = "parent.json"  # in a run's folder: the provenance that the agent it began with had then


@dataclass(frozen=True, kw_only=True)
class DreamAgentRun:
    """Train an agent by PPO in a dream only; interrupted and run again, it goes on. Raises `ValueError`."""

    out: Path  # folder of the run
    checkpoint: str = "take_cover"  # bundled world, a checkpoint folder, or hf://owner/name
    data: tuple[Path, ...] = ()  # datasets in whose training episodes dreams begin anywhere; none: the world's starts
    starts: int = 1024  # how many moments of it
    mixture: Mixture = EVENLY  # which moments, how often
    dreams: DreamsConfig = field(default_factory=DreamsConfig)
    danger_from: Path | None = None  # run in which `neural-env train danger` learned what is dangerous
    runtime: Runtime = "xla"  # by what dreams are stepped; by OpenVINO on a CPU they run faster
    total_steps: int = 100_000  # of all dreams together; the learning rate falls over them; not read with `plan`
    plan: int = 0  # imitate planning that dreams every action for so many steps from every start; 0: PPO
    temper: float = 2.0  # of what is imitated: the outlook, in reward, that makes an action e times as likely
    epochs: int = 8  # of imitation over the starts
    preset: str | None = None  # the network and how it learns; None: latent, foresight to imitate, dream for frames
    gamma: float | None = None  # discount a step; None: the preset's
    seed: int = 0  # of the network, its actions and the dreams
    init_from: Path | None = None  # an agent to begin with, instead of one that knows nothing
    max_minutes: float | None = None  # of PPO: stop after so long, leaving a usable agent; run again to go on
    checkpoint_minutes: float = 3.0  # save this often
    snapshots: int = 10  # agents kept on the way, and scored in the real game
    validation_games: int = 20  # real games for each, of validation seeds; 0: none
    max_episode_steps: int = 525  # a real game is cut off after so many steps

    def __post_init__(self) -> None:
        self.named_preset()
        if self.runtime not in get_args(Runtime):
            raise ValueError(f"runtime must be one of {get_args(Runtime)}, got {self.runtime!r}")
        if not self.data and self.mixture != EVENLY:
            cure = "give --data, or leave the mixture uniform"
            raise ValueError(f"a mixture says at which moments of a dataset dreams begin, and there is none: {cure}")
        if bool(self.dreams.danger) != bool(self.danger_from):
            given = f"danger is {self.dreams.danger:g}, danger_from {self.danger_from}"
            raise ValueError(f"a price on danger needs a run that learned what it is, and only that: {given}")
        if self.plan and not (self.danger_from and self.dreams.observe == "latent"):
            given = f"danger_from is {self.danger_from}, observe {self.dreams.observe!r}"
            raise ValueError(f"planning needs danger_from, for what comes after it, and an agent of latents: {given}")
        if self.plan and self.starts < 2:
            raise ValueError(
                f"imitation learns at some moments and is tested at others: starts is {self.starts}, give 2"
            )
        if isinstance(self.named_preset().policy, ForeseerConfig) and not self.plan:
            raise ValueError("the preset foresight is for imitation of planning: give --plan, or choose another preset")
        if self.temper <= 0:
            raise ValueError(f"temper is in units of reward above 0, got {self.temper:g}")
        if self.runtime == "openvino" and self.dreams.disagreement:
            raise ValueError("a price on disagreement is XLA's work: choose the runtime xla, or leave it 0")
        if self.gamma is not None and not 0 <= self.gamma < 1:
            raise ValueError(f"gamma is a discount in [0, 1), got {self.gamma}: 0.9 looks ten steps ahead")
        for name, least in (
            ("total_steps", 1),
            ("starts", 1),
            ("snapshots", 1),
            ("validation_games", 0),
            ("plan", 0),
            ("epochs", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def named_preset(self) -> Preset:
        """The preset, or the one that fits what is seen; with the run's own discount."""
        fits = "dream" if self.dreams.observe == "rgb" else "foresight" if self.plan else "latent"
        preset = preset_named(self.preset or fits)
        return preset if self.gamma is None else replace(preset, ppo=replace(preset.ppo, gamma=self.gamma))


class RunState(NamedTuple):
    """What a killed run goes on from."""

    step: Any  # updates made
    agent: AgentState
    dreams: Dreams
    memory: Memory  # the agent's, of the dreams
    seconds: Any  # that training has taken, real games not counted


def train_dream_agent(run: DreamAgentRun) -> None:
    """Trains, by PPO or in imitation of planning, and leaves the agent in `run.out / "policy"`.

    Raises:
        ImportError: rlax isn't installed, or OpenVINO, which the run asks for.
        Untranslatable: OpenVINO is asked for and can't run this world.
        CheckpointError: an unusable world, or agent to begin with.
        ShardError: the dataset can't be read.
        ValueError: the folder holds another run, or world, data and agent are of different games.
        NonFiniteLoss: training diverged.
    """
    require_rlax()
    run.out.mkdir(parents=True, exist_ok=True)
    world = checkpoints.load(run.checkpoint)
    run.dreams.check(world.game)
    run = replace(run, dreams=run.dreams.suited(world.world))
    danger = None if run.danger_from is None else load_danger(run.danger_from, world)
    _claim(run, world, danger)
    if danger is not None and run.plan:
        return _imitate(run, world, danger)
    with closing(StateStore(run.out / "state")) as store:
        _Training(run, world, danger, store).go_on()


def _imitate(run: DreamAgentRun, world: Checkpoint, danger: Danger) -> None:
    """Plan at every start and learn from it; what is planned already isn't dreamed again."""
    if (run.out / "policy" / "config.json").is_file():
        Console().print(f"dream agent: finished, see {run.out}", soft_wrap=True)
        return
    places, agent = _places(run, world), agent_of(run, world)
    begun = that_knows(agent.policy, danger) if run.init_from is None else _learned(run.init_from, agent)
    agent = replace(agent, policy=begun)
    shaping = Shaping(danger, run.dreams.danger, run.named_preset().ppo.gamma)
    dream = Dream(run.checkpoint, decodes=False, runtime=run.runtime, streams=usable_cores())
    planner = Planner(dream, run.dreams, run.dreams.dials(world.world), shaping, run.plan)
    outlooks, seconds = planned(planner, places, run.seed, run.out / "outlooks")
    lesson = lesson_of(agent.policy, places, outlooks)
    steps = lesson.outlooks.size * run.plan
    with Metrics(run.out) as metrics:
        _keep(run, replace(agent, provenance=_provenance(run, world, 0, 0, 0.0)), metrics)
        began = time.monotonic()

        def tell(epoch: int, scalars: dict[str, float]) -> None:
            metrics.write(epoch, "train", scalars)

        policy = imitate(agent.policy, lesson, run.temper, run.epochs, run.seed, tell)
        minutes = (seconds + time.monotonic() - began) / 60
        agent = replace(agent, policy=policy, provenance=_provenance(run, world, run.epochs, steps, minutes))
        _keep(run, agent, metrics)
    save_agent(agent, run.out / "policy")
    Console().print(f"dream agent: {steps} steps dreamed, {minutes:.1f} minutes, see {run.out}", soft_wrap=True)


def _claim(run: DreamAgentRun, world: Checkpoint, danger: Danger | None) -> None:
    """Write down what is trained here, or refuse to go on with something else."""
    free = ("out", "max_minutes", "checkpoint_minutes", "checkpoint")
    settings = {name: value for name, value in asdict(run).items() if name not in free}
    settings["data"] = [str(folder) for folder in run.data]
    settings["init_from"] = None if run.init_from is None else str(run.init_from)
    settings["world"] = fingerprint(all_arrays(world.world))  # wherever it lies
    settings["danger_from"] = None if danger is None else fingerprint(all_arrays(danger))
    claim(run.out, json.loads(json.dumps(settings)))
    if run.init_from is not None and not (run.out / _PARENT).exists():
        parent = read_agent_provenance(run.init_from)
        write_whole(run.out / _PARENT, (json.dumps(parent, indent=2) + "\n").encode())


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Writes `settings`, as JSON has them, to the folder's run.json; raises `ValueError` if others are there."""
    path = folder / "run.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(settings, indent=2) + "\n").encode())
        return
    found = json.loads(path.read_text())
    for name, asked in settings.items():
        if found.get(name) != asked:
            cure = "choose another folder, or the same settings to go on with it"
            raise ValueError(f"{folder} holds a run with {name} {found.get(name)!r}, not {asked!r}; {cure}")


def agent_of(run: DreamAgentRun, world: Checkpoint) -> Agent:
    """The agent before its first step: its network fits what it looks at."""
    preset, provenance = run.named_preset(), {"scenario": world.game.scenario}
    if run.dreams.observe == "rgb":
        return Agent(new_policy(preset.policy, world.game, run.seed), world.game, provenance)
    sizes, config = world.model.autoencoder, preset.policy
    if isinstance(config, ForeseerConfig):
        config = replace(config, picture_channels=sizes.channels, stack=world.world.context)
    else:
        config = replace(config, picture_channels=sizes.channels, shrink=1)
    policy = new_policy(config, world.game, run.seed, eyes=sizes)
    return Agent(policy, world.game, provenance, Eyes(world.world.autoencoder, sizes))


class _Training:
    """One run of the program, from where the last one stopped."""

    def __init__(self, run: DreamAgentRun, world: Checkpoint, danger: Danger | None, store: StateStore) -> None:
        self.run = run
        self.ppo = run.named_preset().ppo
        self.updates = -(-run.total_steps // self.ppo.transitions)
        self._agent = agent_of(run, world)
        self._store = store
        self._world = world
        self._shaping = None if danger is None else Shaping(danger, run.dreams.danger, self.ppo.gamma)
        self._update = make_update(self._agent.policy, self.ppo, self.updates)
        self._kept = {round(i * self.updates / run.snapshots) for i in range(run.snapshots + 1)}

    def go_on(self) -> None:
        """Dream and learn until the steps or the minutes are used up."""
        arrays = jax.tree.map(jnp.asarray, self._world.world)
        run, places = self.run, _places(self.run, self._world)
        fresh = self._fresh(places)
        state = self._store.restore(fresh) or fresh
        roll = self._on_host() if run.runtime == "openvino" else core.bind(self._roll, arrays)
        saved = began = time.monotonic()
        with Metrics(self.run.out) as metrics, _progress(self.run, self.updates * self.ppo.transitions) as report:
            self._keep(state, metrics)
            while int(state.step) < self.updates:
                state, scalars = self._one(state, roll, places)
                steps = int(state.step) * self.ppo.transitions
                metrics.write(steps, "train", scalars)
                report(steps, scalars)
                self._keep(state, metrics)
                if time.monotonic() - saved > 60 * self.run.checkpoint_minutes:
                    self._save(state)
                    saved = time.monotonic()
                if self.run.max_minutes is not None and time.monotonic() - began > 60 * self.run.max_minutes:
                    break
            self._save(state)
        self._leave(state)

    def _fresh(self, places: Any) -> RunState:
        policy, run = self._agent.policy, self.run
        dreams, seen = begin_dreams(places, jax.random.key(run.seed), self.ppo.games, run.dreams.horizon)
        if run.init_from is not None:
            policy = _learned(run.init_from, self._agent)
        zero = np.zeros((), np.int32)
        return RunState(zero, initial_state(policy, self.ppo), dreams, begin(policy, seen), np.zeros((), np.float32))

    def _roll(self, world: Any, places: Any, params: Any, dreams: Dreams, memory: Memory, key: Any) -> Any:
        step = step_fn(world, places, self._world.game, self.run.dreams, self._shaping)
        player = replaced(self._agent.policy, params)
        return rollout_in_dream(step, player, dreams, memory, key, self.ppo.n_steps)

    def _on_host(self) -> HostRollout:
        run, decodes = self.run, self.run.dreams.observe == "rgb"
        dream = Dream(run.checkpoint, decodes, runtime=run.runtime, streams=min(self.ppo.games, usable_cores()))
        dials = run.dreams.dials(self._world.world)
        return HostRollout(dream, run.dreams, dials, self._agent.policy, self.ppo.n_steps, self._shaping)

    def _one(self, state: RunState, roll: Any, places: Any) -> tuple[RunState, dict[str, float]]:
        """One roll-out and one update."""
        step, began = int(state.step), time.monotonic()
        key_play, key_learn = jax.random.split(jax.random.fold_in(jax.random.key(self.run.seed), step))
        rolled = roll(places, state.agent.params, state.dreams, state.memory, key_play)
        dreams, memory, rollout = jax.block_until_ready(rolled)  # type: ignore[no-untyped-call]
        dreamed = time.monotonic()
        scores = _scores(rollout)
        agent, logs = self._update(state.agent, rollout, key_learn)
        scalars = {name: float(value) for name, value in logs.items()}
        self._check_finite(scalars, step)
        learnt = time.monotonic()
        seconds = np.asarray(state.seconds + (learnt - began), np.float32)
        scalars |= {"dream_seconds": dreamed - began, "learn_seconds": learnt - dreamed, "minutes": float(seconds) / 60}
        scalars |= {"steps_per_second": self.ppo.transitions / (learnt - began), **scores}
        return RunState(np.asarray(step + 1, np.int32), agent, dreams, memory, seconds), scalars

    def _check_finite(self, scalars: dict[str, float], step: int) -> None:
        for name in ("value_loss", "policy_loss", "gradient_norm"):
            if not np.isfinite(scalars[name]):
                raise NonFiniteLoss(
                    f"{name} is {scalars[name]} at update {step + 1}; the last good state is in {self._store.folder}: "
                    "choose a shorter horizon, or a preset with a lower learning rate"
                )

    def _save(self, state: RunState) -> None:
        self._store.save(state)
        save_agent(self._now(state), self.run.out / "policy")

    def _keep(self, state: RunState, metrics: Metrics) -> None:
        """The agent of this update, if it is one that is kept, and its score in the real game."""
        if int(state.step) in self._kept:
            _keep(self.run, self._now(state), metrics)

    def _now(self, state: RunState) -> Agent:
        step = int(state.step)
        done, minutes = step * self.ppo.transitions, float(state.seconds) / 60
        provenance = {**_provenance(self.run, self._world, step, done, minutes), "ppo": asdict(self.ppo)}
        return replace(self._agent, policy=replaced(self._agent.policy, state.agent.params), provenance=provenance)

    def _leave(self, state: RunState) -> None:
        done = int(state.step) * self.ppo.transitions
        whole = "finished" if int(state.step) >= self.updates else "stopped early; run again to go on"
        Console().print(
            f"dream agent: {whole} at step {done} of {self.updates * self.ppo.transitions}, "
            f"{float(state.seconds) / 60:.1f} minutes of training, see {self.run.out}",
            soft_wrap=True,
        )


def _places(run: DreamAgentRun, world: Checkpoint) -> Beginnings:
    """Where the run's dreams begin."""
    starts = contexts(world, run.data, run.starts, run.mixture, run.seed, run.out / "starts.safetensors")
    states = DreamState(jnp.asarray(starts.latents), jnp.asarray(starts.actions))
    arrays = jax.tree.map(jnp.asarray, world.world)
    places: Beginnings = core.bind(lambda world, states: beginnings(world, states, run.dreams), arrays)(states)
    return places


def _provenance(run: DreamAgentRun, world: Checkpoint, updates: int, steps: int, minutes: float) -> dict[str, Any]:
    parent = run.out / _PARENT
    return {
        **json.loads((run.out / "run.json").read_text()),
        "scenario": world.game.scenario,
        "updates": updates,
        "steps": steps,
        "minutes": minutes,
        "skill": None,  # a return in the dream says nothing of the game
        "began_as": json.loads(parent.read_text()) if parent.exists() else None,
        "code_version": __version__,
    }


def _keep(run: DreamAgentRun, agent: Agent, metrics: Metrics) -> None:
    """The agent as it is, and its score in the real game; what is kept already isn't measured again."""
    cost = {name: agent.provenance[name] for name in ("updates", "steps", "minutes")}
    folder = run.out / "versions" / str(cost["updates"])
    if (folder / "score.json").exists():
        return
    save_agent(agent, folder)
    score: dict[str, Any] = dict(cost)
    if run.validation_games:
        score["returns"] = real_returns(agent, run.validation_games, run.max_episode_steps)
        metrics.write(cost["steps"], "real", {"return": float(np.mean(score["returns"]))})
    write_whole(folder / "score.json", (json.dumps(score) + "\n").encode())


def _learned(folder: Path, like: Agent) -> ActorCritic:
    """The network of the agent in `folder`, if it is one like that."""
    found = read_agent(folder)
    if found.policy.config != like.policy.config or found.game != like.game:
        cure = "begin with one of the same settings, or give the --preset that it was trained with"
        raise ValueError(f"{folder} holds an agent of another network or game: {cure}")
    return found.policy


def real_returns(agent: Agent, games: int, max_steps: int) -> list[float]:
    """What the agent gets in so many real games of validation seeds."""
    policy = AgentPolicy(agent)
    with closing(RealDoom(agent.game.scenario, agent.game.resolution, agent.game.frame_skip)) as env:
        episodes = (play(env, policy, seed=seed, max_steps=max_steps) for seed in seeds_of("validation", games))
        return [float(episode.rewards.sum()) for episode in episodes]


def _scores(rollout: Any) -> dict[str, float]:
    ends = int(np.asarray(rollout.terminated).sum())
    over = ends + int(np.asarray(rollout.truncated).sum())
    return {
        "reward": float(np.asarray(rollout.rewards).mean()),
        "deaths": float(ends),
        "deaths_share": ends / over if over else 0.0,  # of the dreams that ended: the others reached the horizon
    }


@contextmanager
def _progress(run: DreamAgentRun, total: int) -> Iterator[Any]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(f"dream agent, seed {run.seed}", total=total, note="compiling")

        def report(steps: int, scalars: dict[str, float]) -> None:
            note = f"reward {scalars['reward']:.2f}, {scalars['deaths']:.0f} ends"
            bar.update(task, completed=steps, note=f"{note}, {scalars['steps_per_second']:.0f} steps/s")

        yield report
