"""Many real games at once, in worker processes: where an agent learns.

::

    with Games(config) as games:
        games.send(actions)       # one byte a worker goes through a pipe
        games.receive()           # and one comes back
        games.board.frames        # everything else lies in memory that all share

The games of some workers can be stepped while the policy looks at those of the others: `send` and `receive` take the
group of workers that they mean. An episode that ends is followed by the next at once: `frames` then holds the first
frame of the new episode and `final_frames` the last one of the old.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Literal, TypeAlias

import gymnasium as gym
import numpy as np

from neural_env.data.episode import split_of
from neural_env.data.vizdoom import SIGNALS, checked_resolution, scenario_named
from neural_env.data.workers import WorkersHung
from neural_env.envs.real_doom import RealDoom
from neural_env.game import GameConfig

Reward: TypeAlias = Literal["gamengen", "scenario"]


@dataclass(frozen=True, kw_only=True)
class GamesConfig:
    """Which games are played, and by how many processes. Raises `ValueError`."""

    scenario: str
    games: int = 16
    workers: int = 2  # processes; each plays as many games as the others, or one more
    reward: Reward = "scenario"  # what `rewards` holds
    repeat: float = 0.0  # probability that a game repeats its last action instead of the one it is told
    resolution: tuple[int, int] = (120, 160)  # height and width, pixels
    frame_skip: int = 4  # tics an action is held
    max_episode_steps: int = 525  # an episode is cut off after so many steps
    first_episode: int = 0  # number of the first episode: see `training_seed`
    iwad: str | None = None  # path of a game to play it in, instead of Freedoom
    automap: bool = False  # whether the in-game map is drawn too

    def __post_init__(self) -> None:
        scenario_named(self.scenario, self.iwad)
        checked_resolution(self.resolution)
        for name in ("games", "workers", "frame_skip", "max_episode_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.workers > self.games:
            raise ValueError(f"workers={self.workers} is more than games={self.games}: a worker plays at least one")
        if not 0.0 <= self.repeat < 1.0:
            raise ValueError(f"repeat is a probability below 1, got {self.repeat}")

    @property
    def game(self) -> GameConfig:
        """What is played."""
        scenario = scenario_named(self.scenario, self.iwad)
        return GameConfig(
            scenario.name, scenario.action_names, scenario.variable_names, self.frame_skip, self.resolution
        )


def training_seed(number: int) -> int:
    """The seed of episode `number`: 2 to 9, 12 to 19, ...: never one of validation or test."""
    seed = 10 * (number // 8) + 2 + number % 8
    assert split_of(seed) == "train"
    return seed


@dataclass(frozen=True, eq=False)
class Board:
    """What the workers and their parent share: one row a game."""

    frames: np.ndarray  # uint8 [n, H, W, 3]: the present frame
    final_frames: np.ndarray  # uint8 [n, H, W, 3]: where an episode ended, its last frame
    maps: np.ndarray  # uint8 [n, H, W, 3], of the present frame; [n, H, W, 0] without a map
    final_maps: np.ndarray  # uint8, of the final frame; as `maps`
    chosen: np.ndarray  # int32 [n]: what the policy wants
    executed: np.ndarray  # int32 [n]: what was done
    rewards: np.ndarray  # float32 [n]: what the agent learns from
    scenario_rewards: np.ndarray  # float32 [n]
    terminated: np.ndarray  # bool [n]
    truncated: np.ndarray  # bool [n]
    variables: np.ndarray  # float32 [n, v], of the present frame
    final_variables: np.ndarray  # float32 [n, v], of the final frame
    signals: np.ndarray  # float32 [n, s], of the present frame
    final_signals: np.ndarray  # float32 [n, s], of the final frame
    seeds: np.ndarray  # int64 [n]: of the present episodes

    def seen(self, span: slice) -> np.ndarray:
        """What the agent sees of these games, uint8 [g, H, W, 3], or [g, H, W, 6] with the map; a copy."""
        return np.concatenate([self.frames[span], self.maps[span]], axis=-1)

    def finally_seen(self, span: slice) -> np.ndarray:
        """The same where their last episodes ended."""
        return np.concatenate([self.final_frames[span], self.final_maps[span]], axis=-1)


def _layout(config: GamesConfig) -> dict[str, tuple[tuple[int, ...], type[np.generic]]]:
    n, variables = config.games, len(config.game.variable_names)
    screen = (n, *config.resolution, 3)
    automap = (n, *config.resolution, 3 * config.automap)
    return {
        "frames": (screen, np.uint8),
        "final_frames": (screen, np.uint8),
        "maps": (automap, np.uint8),
        "final_maps": (automap, np.uint8),
        "chosen": ((n,), np.int32),
        "executed": ((n,), np.int32),
        "rewards": ((n,), np.float32),
        "scenario_rewards": ((n,), np.float32),
        "terminated": ((n,), np.bool_),
        "truncated": ((n,), np.bool_),
        "variables": ((n, variables), np.float32),
        "final_variables": ((n, variables), np.float32),
        "signals": ((n, len(SIGNALS)), np.float32),
        "final_signals": ((n, len(SIGNALS)), np.float32),
        "seeds": ((n,), np.int64),
    }


def _board(config: GamesConfig, buffers: dict[str, Any]) -> Board:
    return Board(
        **{
            name: np.frombuffer(buffers[name], dtype, int(np.prod(shape))).reshape(shape)
            for name, (shape, dtype) in _layout(config).items()
        }
    )


_Pipe: TypeAlias = "Connection[Any, Any]"
SILENCE_SECONDS = 120.0  # of a worker; a step takes milliseconds, a fresh engine some seconds
_STEP, _DONE, _FAILED = b"s", b"d", b"f"
_CURE = "train again with the same settings to go on from the last checkpoint"


class Games:
    """`config.games` running games. The constructor starts them and waits for their first frames.

    Raises (the constructor and `receive`):
        EngineCrashed: a game's engine failed.
        WorkersHung: nothing is heard of a worker any more.
        RuntimeError: a worker died.
    """

    def __init__(self, config: GamesConfig) -> None:
        self.config = config
        context = get_context("spawn")  # forking is unsafe once JAX has threads
        buffers = {
            name: context.RawArray("b", max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize))
            for name, (shape, dtype) in _layout(config).items()
        }
        self.board = _board(config, buffers)
        edges = np.linspace(0, config.games, config.workers + 1).astype(int).tolist()
        self._spans = [slice(low, high) for low, high in pairwise(edges)]
        self._workers: list[tuple[_Pipe, BaseProcess]] = []
        try:
            for span in self._spans:
                self._workers.append(_start(context, config, buffers, span))
            self.receive()
        except BaseException:
            self.close()
            raise

    def groups(self, count: int) -> list[range]:
        """The workers in `count` groups of about equal size, or in as many as there are workers."""
        edges = np.linspace(0, len(self._spans), min(count, len(self._spans)) + 1).astype(int).tolist()
        return [range(low, high) for low, high in pairwise(edges)]

    def span(self, group: range) -> slice:
        """The games that a group's workers play."""
        return slice(self._spans[group[0]].start, self._spans[group[-1]].stop)

    def send(self, actions: np.ndarray, group: range | None = None) -> None:
        """Tells the group's games (all by default) what to do; they go on while the caller does something else."""
        group = group or range(len(self._workers))
        self.board.chosen[self.span(group)] = actions
        for number in group:
            try:
                self._workers[number][0].send_bytes(_STEP)
            except OSError:  # it is gone; `receive` says so
                continue

    def receive(self, group: range | None = None) -> slice:
        """Waits for the group's games (all by default) and returns which rows of the board are new."""
        group = group or range(len(self._workers))
        for number in group:
            _hear(*self._workers[number])
        return self.span(group)

    def close(self) -> None:
        """Ends the games; may be called again."""
        for pipe, process in self._workers:
            pipe.close()
            process.terminate()
        for _, process in self._workers:
            process.join(5)
            process.kill()  # if it was deaf to the polite request
            process.join()
        self._workers = []

    def __enter__(self) -> Games:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _start(context: Any, config: GamesConfig, buffers: dict[str, Any], span: slice) -> tuple[_Pipe, BaseProcess]:
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(config, buffers, span.start, span.stop, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the pipe ends with the worker
    return ours, process


def _hear(pipe: _Pipe, process: BaseProcess) -> None:
    try:
        if not pipe.poll(SILENCE_SECONDS):
            raise WorkersHung(f"a worker was silent for {SILENCE_SECONDS} s; {_CURE}")
        answer = pipe.recv_bytes()
        if answer == _FAILED:
            raise pipe.recv()
    except (EOFError, ConnectionError):
        process.join()
        raise RuntimeError(f"a worker died with exit code {process.exitcode}; {_CURE}") from None


def _work(config: GamesConfig, buffers: dict[str, Any], low: int, high: int, pipe: _Pipe) -> None:
    """A worker's life: step its games whenever it is told to, until the pipe ends or the parent's `terminate` comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, _exit)
    board = _board(config, buffers)
    games = [_Game(config, board, row) for row in range(low, high)]
    try:
        for game in games:
            game.begin()
        pipe.send_bytes(_DONE)
        while pipe.recv_bytes() == _STEP:
            for game in games:
                game.step()
            pipe.send_bytes(_DONE)
    except (EOFError, ConnectionError):
        return  # the parent is gone
    except Exception as error:
        pipe.send_bytes(_FAILED)
        pipe.send(error)
    finally:
        for game in games:
            game.close()


def _exit(signum: int, frame: object) -> None:
    """Leave as an exception does, so that the engines are closed."""
    raise SystemExit(128 + signum)


def make_game(config: GamesConfig) -> gym.Env[np.ndarray, np.int64]:
    """The environment of one game."""
    env = RealDoom(
        config.scenario,
        config.resolution,
        config.frame_skip,
        signals=True,
        iwad=config.iwad,
        automap=config.automap,
    )
    if config.reward == "scenario":
        return env
    from neural_env.wrappers.gamengen_reward import GameNGenReward

    return GameNGenReward(env)


class _Game:
    """One game and its row of the board."""

    def __init__(self, config: GamesConfig, board: Board, row: int) -> None:
        self._env = make_game(config)
        self._names = config.game.variable_names
        self._config = config
        self._board = board
        self._row = row
        self._episode = config.first_episode + row
        self._steps = 0
        self._last = 0
        self._rng = np.random.default_rng(0)

    def begin(self) -> None:
        """Start the next episode of this game; no other game has its seed."""
        seed = training_seed(self._episode)
        self._episode += self._config.games
        self._steps = self._last = 0
        self._rng = np.random.default_rng([seed, 2])  # of the repeated actions
        frame, info = self._env.reset(seed=seed)
        board, row = self._board, self._row
        board.seeds[row] = seed
        board.frames[row], board.variables[row], board.signals[row] = frame, self._values(info), _signals(info)
        board.maps[row] = self._map(info)

    def step(self) -> None:
        """One action; and the next episode, where this one ends."""
        board, row = self._board, self._row
        if self._config.repeat == 0.0 or self._rng.random() >= self._config.repeat:
            self._last = int(board.chosen[row])
        frame, reward, terminated, truncated, info = self._env.step(np.int64(self._last))
        self._steps += 1
        truncated = not terminated and (truncated or self._steps == self._config.max_episode_steps)
        board.executed[row] = self._last
        board.rewards[row], board.scenario_rewards[row] = reward, info.get("scenario_reward", reward)
        board.terminated[row], board.truncated[row] = terminated, truncated
        if terminated or truncated:
            board.final_frames[row], board.final_variables[row] = frame, self._values(info)
            board.final_signals[row], board.final_maps[row] = _signals(info), self._map(info)
            self.begin()
        else:
            board.frames[row], board.variables[row], board.signals[row] = frame, self._values(info), _signals(info)
            board.maps[row] = self._map(info)

    def close(self) -> None:
        """End the engine."""
        self._env.close()

    def _values(self, info: dict[str, Any]) -> list[float]:
        return [info[name] for name in self._names]

    def _map(self, info: dict[str, Any]) -> np.ndarray:
        automap: np.ndarray = info["automap"] if self._config.automap else self._board.maps[self._row]  # of no bytes
        return automap


def _signals(info: dict[str, Any]) -> list[float]:
    return list(info["signals"].values())
