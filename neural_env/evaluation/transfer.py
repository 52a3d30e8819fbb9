"""`neural-env transfer`: agents trained in a dream only, in the real game.

::

    for each seed:   dream --PPO--> agent --> score in the dream, score in the real game on held-out seeds
    beside it:       random players; PPO trained in the real game on as many frames as the world was, and on ten times
                     as many

    OUT/agents/seed-N/    the trainings (`training.dream_agent`); killed and run again, they go on
    OUT/real/             baselines that were trained here
    OUT/scores/           what was measured already
    OUT/report.json  report.md  curves.png  film.mp4
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from neural_env import checkpoint as checkpoints
from neural_env.agents.dreams import DreamsConfig
from neural_env.agents.player import Agent, AgentPolicy, read_agent
from neural_env.checkpoint import Checkpoint
from neural_env.command import command_line
from neural_env.data.corpus import material_of
from neural_env.data.episode import Split
from neural_env.data.mixture import EVENLY, Mixture
from neural_env.data.policies import Policy, StickyRandom
from neural_env.data.shards import write_whole
from neural_env.envs.real_doom import RealDoom
from neural_env.evaluation.agent import played
from neural_env.evaluation.dream import play_dreams
from neural_env.evaluation.transfer_report import film, markdown, plot_curves, real_curve
from neural_env.evaluation.world import seeds_of
from neural_env.game import GameConfig, first_difference
from neural_env.training.agent import AgentRun, train_agent
from neural_env.training.dream_agent import DreamAgentRun, Runtime, train_dream_agent
from neural_env.world.parameters import all_arrays, fingerprint

Scores = dict[str, Any]
Baselines = Literal["none", "equal", "tenfold"]
_RESAMPLES = 10_000  # of the bootstrap


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """Train agents in a dream only and score them in the real game. Raises `ValueError`."""

    out: Path  # folder of everything; run again, what is there is gone on with
    checkpoint: str = "take_cover"  # bundled world, a checkpoint folder, or hf://owner/name
    scenario: str | None = None  # what the real game is; the world's by default, others are refused
    data: tuple[Path, ...] = ()  # datasets in whose training episodes dreams begin anywhere; none: the world's starts
    starts: int = 1024  # how many moments of it
    mixture: Mixture = EVENLY  # which moments, how often
    dreams: DreamsConfig = field(default_factory=DreamsConfig)
    danger_from: Path | None = None  # run in which `neural-env train danger` learned what is dangerous
    runtime: Runtime = "xla"  # by what the agents' dreams are stepped; by OpenVINO on a CPU they run faster
    total_steps: int = 100_000  # dreamed by each agent; not read with `plan`
    plan: int = 0  # imitate planning that dreams every action for so many steps from every start; 0: PPO
    temper: float = 2.0  # of what is imitated: the outlook, in reward, that makes an action e times as likely
    epochs: int = 8  # of imitation over the starts
    preset: str | None = None  # of the dreaming agents; None: what fits what they see
    gamma: float | None = None  # discount a step of theirs; None: the preset's
    seeds: int = 3  # agents, trained alike with seeds 0, 1, ...
    init_from: Path | None = None  # what all begin as; or a folder of seed-0, seed-1, ...: each as its own
    max_minutes: float | None = None  # of training, all agents together; run again to go on
    snapshots: int = 10  # points of each learning curve
    validation_games: int = 20  # real games of validation seeds for each point
    episodes: int = 100  # real games for each final score
    split: Split | None = None  # whose seeds; None: test, and validation for a sweep, for nothing is tuned on test
    dream_episodes: int = 32  # whole dreams for each score in the dream
    max_episode_steps: int = 525  # a game or a dream is cut off after so many steps
    real_runs: tuple[Path, ...] = ()  # finished trainings in the real game (`neural-env train agent`) to compare with
    train_real: Baselines = "none"  # train such agents here: on as many frames as the world saw, or ten times that too
    real_preset: str = "fast"  # of agents trained here in the real game
    real_frames: int | None = None  # that the world was trained on; None: what its checkpoint says
    film: bool = True  # show the best agent in both worlds

    def __post_init__(self) -> None:
        for name in ("seeds", "episodes", "dream_episodes", "max_episode_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        self.training(0)

    @property
    def judged_by(self) -> Split:
        """The split whose seeds the final scores are of."""
        return self.split or "test"

    def training(self, seed: int, minutes: float | None = None) -> DreamAgentRun:
        """The training of one agent."""
        return DreamAgentRun(
            out=self.out / "agents" / f"seed-{seed}",
            checkpoint=self.checkpoint,
            data=self.data,
            starts=self.starts,
            mixture=self.mixture,
            dreams=self.dreams,
            danger_from=self.danger_from,
            runtime=self.runtime,
            total_steps=self.total_steps,
            plan=self.plan,
            temper=self.temper,
            epochs=self.epochs,
            preset=self.preset,
            gamma=self.gamma,
            seed=seed,
            init_from=self._beginning(seed),
            max_minutes=minutes,
            snapshots=self.snapshots,
            validation_games=self.validation_games,
            max_episode_steps=self.max_episode_steps,
        )

    def _beginning(self, seed: int) -> Path | None:
        if self.init_from is None:
            return None
        own = self.init_from / f"seed-{seed}"
        return own if own.is_dir() else self.init_from


def transfer(config: TransferConfig) -> Scores:
    """Trains, measures, writes the report and prints its table.

    Raises:
        CheckpointError, ShardError: an unusable world, agent or dataset.
        ValueError: the world is of another scenario, an agent to compare with of another game, nothing says how many
            frames agents are to learn from in the real game, or `out` holds agents of other settings.
        ImportError: rlax isn't installed.
        NonFiniteLoss: a training diverged.
    """
    world = checkpoints.load(config.checkpoint)
    if config.scenario not in (None, world.game.scenario):
        raise ValueError(f"{config.checkpoint} dreams {world.game.scenario!r}, not {config.scenario!r}: give its own")
    config = replace(config, dreams=config.dreams.suited(world.world))
    frames = config.real_frames or real_frames(world)
    _check_baselines(config, world.game, frames)
    agents = _trained(config)
    with closing(_Judge(config, world)) as judge:
        rows = judge.random_players() | {"dream": judge.dreaming(agents)} | judge.real(_baselines(config, frames))
    report = {
        "scenario": world.game.scenario,
        "checkpoint": config.checkpoint,
        "world": fingerprint(all_arrays(world.world)),
        "world_real_frames": frames,
        "world_players": material_of(world.provenance).policies,
        "settings": _plain(config),
        "command": command_of(config),
        "rows": rows,
        "curves": {
            "dream": [_snapshots(config.training(seed).out) for seed in range(config.seeds)],
            "real": {str(run): real_curve(run) for run in _real_runs(config) if (run / "metrics.jsonl").is_file()},
        },
    }
    write_whole(config.out / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    write_whole(config.out / "report.md", markdown(report).encode())
    plot_curves(report, config.out / "curves.png")
    if config.film:
        best = int(np.argmax([row["mean_return"] for row in rows["dream"]["seeds"]]))
        seed, limit = seeds_of(config.judged_by, 1)[0], config.max_episode_steps
        film(agents[best], config.checkpoint, config.dreams, seed, limit, config.out / "film.mp4")
    Console().print(markdown(report), soft_wrap=True, highlight=False, markup=False)
    return report


def real_frames(world: Checkpoint) -> int | None:
    """Training frames of the real game that a world's checkpoint says it has seen; None if it doesn't."""
    return material_of(world.provenance).frames.get("train") or None


def _trained(config: TransferConfig) -> list[Agent]:
    """The agents; what is left of the minutes is shared among those that are left."""
    began = time.monotonic()
    for seed in range(config.seeds):
        minutes = None
        if config.max_minutes is not None:
            left = config.max_minutes - (time.monotonic() - began) / 60
            minutes = max(left, 0.0) / (config.seeds - seed)
        train_dream_agent(config.training(seed, minutes))
    return [read_agent(config.training(seed).out) for seed in range(config.seeds)]


def _check_baselines(config: TransferConfig, game: GameConfig, frames: int | None) -> None:
    """Raise `ValueError` if an agent to compare with plays another game than the world's, or its steps aren't known.

    To be called before anything is trained: the agents of the dream take hours.
    """
    for run in config.real_runs:
        _check_same_game(f"{run} holds an agent", read_agent(run).game, game, "leave it out of --real-runs")
    for training in _real_trainings(config, game.scenario, frames).values():
        _check_same_game("--train-real trains an agent", training.games().game, game, "leave it out")


def _check_same_game(what: str, found: GameConfig, game: GameConfig, cure: str) -> None:
    if difference := first_difference(found, game):
        setting, its, asked = difference
        raise ValueError(f"{what} with the {setting} {its!r}, the world's is {asked!r}: {cure}")


def _real_trainings(config: TransferConfig, scenario: str, frames: int | None) -> dict[str, AgentRun]:
    """The trainings in the real game that are to be made here, by name."""
    if config.train_real == "none":
        return {}
    if frames is None:
        raise ValueError("the checkpoint doesn't say how many frames it was trained on: give --real-frames")
    steps = {"equal": frames} | ({"tenfold": 10 * frames} if config.train_real == "tenfold" else {})
    return {
        name: AgentRun(
            out=config.out / "real" / name,
            scenario=scenario,
            total_steps=count,
            preset=config.real_preset,
            reward="scenario",
            repeat=config.dreams.repeat,
            max_episode_steps=config.max_episode_steps,
        )
        for name, count in steps.items()
    }


def _baselines(config: TransferConfig, frames: int | None) -> dict[str, Path]:
    """Name and folder of agents that were trained in the real game."""
    found: dict[str, Path] = {}
    for run in config.real_runs:
        for times in (1, 10):
            version = None if frames is None else _version(run, times * frames)
            if version is not None:
                found[f"{run}, at most {times}x the frames"] = version
        found[f"{run}, at its end"] = run
    scenario = checkpoints.read_game(config.checkpoint).scenario
    for name, training in _real_trainings(config, scenario, frames).items():
        train_agent(training)
        found[f"trained here, {'as many' if name == 'equal' else 'ten times the'} frames"] = training.out
    return found


def _real_runs(config: TransferConfig) -> list[Path]:
    return [*config.real_runs, *sorted((config.out / "real").glob("*"))]


def _version(run: Path, frames: int) -> Path | None:
    """The last kept version of a training in the real game that had seen at most so many frames."""
    seen = {path: read_agent(path).provenance.get("steps", 0) for path in (run / "versions").glob("*")}
    fitting = [path for path, steps in seen.items() if 0 < steps <= frames]
    return max(fitting, key=lambda path: seen[path], default=None)


class _Judge:
    """Scores players in the real game and in the dream; what was measured before is read from OUT/scores."""

    def __init__(self, config: TransferConfig, world: Checkpoint) -> None:
        self._config = config
        self._world = world
        self._envs: dict[bool, RealDoom] = {}  # with the map and without it
        self._seeds = seeds_of(config.judged_by, config.episodes)

    def close(self) -> None:
        """End the games."""
        for env in self._envs.values():
            env.close()

    def _env(self, automap: bool) -> RealDoom:
        if automap not in self._envs:
            game = self._world.game
            self._envs[automap] = RealDoom(game.scenario, game.resolution, game.frame_skip, automap=automap)
        return self._envs[automap]

    def random_players(self) -> Scores:
        """Uniform and sticky random actions; the uniform ones in the dream too."""
        actions = len(self._world.game.action_names)
        rows: Scores = {}
        for name, repeat in (("uniform random", 0.0), ("sticky random", 0.5)):
            rows[name] = self._summary([self._real(name, name, partial(StickyRandom, actions, repeat))])
        agent = read_agent(self._config.training(0).out)
        rows["uniform random"]["dream"] = _mean_of([self._dream("uniform-random", agent, at_random=True)])
        return rows

    def dreaming(self, agents: list[Agent]) -> Scores:
        """The dream-trained agents, in both worlds."""
        real = [self._of_agent(f"seed-{i}", agent) for i, agent in enumerate(agents)]
        dreams = [self._dream(f"seed-{i}-dream", agent) for i, agent in enumerate(agents)]
        row = self._summary(real)
        row["dream"] = _mean_of(dreams)
        row["flattery"] = row["dream"]["mean_return"] / row["mean_return"] if row["mean_return"] > 0 else None
        row["seeds"] = [
            {"mean_return": float(np.mean(returns)), "dream_return": float(np.mean(dream["returns"])), **_cost(agent)}
            for returns, dream, agent in zip(real, dreams, agents, strict=True)
        ]
        row["minutes"] = float(np.mean([_cost(agent)["minutes"] or 0.0 for agent in agents]))
        row["real_frames"] = self._config.real_frames or real_frames(self._world)
        return row

    def real(self, folders: dict[str, Path]) -> Scores:
        """Agents that were trained in the real game."""
        rows: Scores = {}
        for name, folder in folders.items():
            agent = read_agent(folder)
            row = self._summary([self._of_agent(f"real-{name}", agent)])
            rows[f"real game: {name}"] = {**row, "real_frames": agent.provenance.get("steps"), "minutes": None}
        return rows

    def _of_agent(self, name: str, agent: Agent) -> list[float]:
        key = fingerprint(all_arrays(agent.policy))
        return self._real(name, key, lambda: AgentPolicy(agent))

    def _real(self, name: str, who: str, player: Callable[[], Policy]) -> list[float]:
        key = [who, self._seeds[0], self._seeds[-1], len(self._seeds), self._config.max_episode_steps]

        def measure() -> list[float]:
            policy = player()
            env = self._env("automap" in policy.sees)
            returns, _ = played(env, policy, self._seeds, self._config.max_episode_steps)
            return [float(value) for value in returns]

        return list(self._cached(f"{name}-{self._config.judged_by}", key, measure))

    def _dream(self, name: str, agent: Agent, *, at_random: bool = False) -> Scores:
        config = self._config
        who = "random" if at_random else fingerprint(all_arrays(agent.policy))
        world = fingerprint(all_arrays(self._world.world))
        key = [who, world, asdict(config.dreams), config.dream_episodes, config.max_episode_steps]

        def measure() -> Scores:
            scores = play_dreams(
                agent.policy,
                self._world,
                config.dreams,
                episodes=config.dream_episodes,
                max_steps=config.max_episode_steps,
                at_random=at_random,
            )
            return {"returns": scores.returns.tolist(), "died": float(scores.died.mean())}

        return dict(self._cached(name, key, measure))

    def _cached(self, name: str, key: Any, measure: Callable[[], Any]) -> Any:
        path = self._config.out / "scores" / f"{name.replace('/', '-').replace(' ', '-')}.json"
        key = json.loads(json.dumps(key))
        if path.is_file() and (found := json.loads(path.read_text()))["key"] == key:
            return found["value"]
        value = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps({"key": key, "value": value}) + "\n").encode())
        return value

    def _summary(self, returns: list[list[float]]) -> Scores:
        each = np.array(returns)
        means = each.mean(axis=1)
        return {
            "mean_return": float(each.mean()),
            "deviation": float(each.std(ddof=1)) if each.size > 1 else 0.0,
            "deviation_of_seeds": float(means.std(ddof=1)) if len(means) > 1 else None,
            "confidence_95": interval(each),
            "games": each.size,
            "returns": returns,
        }


def interval(returns: np.ndarray) -> list[float]:
    """The 95 % bootstrap interval of the mean of `[agents, games]`: agents are resampled, then the games of each."""
    rng = np.random.default_rng(0)
    agents, games = returns.shape
    means = np.zeros(_RESAMPLES)
    for _ in range(agents):
        chosen = rng.integers(agents, size=(_RESAMPLES, 1))
        means += returns[chosen, rng.integers(games, size=(_RESAMPLES, games))].mean(axis=1) / agents
    low, high = np.percentile(means, [2.5, 97.5])
    return [float(low), float(high)]


def _mean_of(dreams: list[Scores]) -> Scores:
    each = np.array([dream["returns"] for dream in dreams])
    died = float(np.mean([dream["died"] for dream in dreams]))
    return {"mean_return": float(each.mean()), "confidence_95": interval(each), "died": died}


def _cost(agent: Agent) -> Scores:
    return {name: agent.provenance.get(name) for name in ("steps", "minutes")}


def _snapshots(out: Path) -> list[Scores]:
    """The points of a learning curve, in order."""
    rows = [json.loads(path.read_text()) for path in (out / "versions").glob("*/score.json")]
    return sorted(rows, key=lambda row: int(row["updates"]))


def _plain(config: TransferConfig) -> Scores:
    settings: Scores = json.loads(json.dumps(asdict(config), default=str))
    settings["split"] = config.judged_by
    return {name: value for name, value in settings.items() if name != "out"}


def command_of(config: TransferConfig) -> str:
    """The command line that measures the same again: what differs from the defaults."""
    given, usual = (_flat(each) for each in (config, TransferConfig(out=Path())))
    del usual["out"]
    return command_line("neural-env transfer", given, usual=usual, left_out=("max_minutes",))


def _flat(config: TransferConfig) -> Scores:
    """The settings by name, those of the dreams and of the mixture among them, as the command line has them."""
    values = asdict(config)
    dreams, mixture = values.pop("dreams"), values.pop("mixture")
    return {**values, **dreams, **mixture}
