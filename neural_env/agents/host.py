"""Roll-outs in real games: the host's twin of `ppo.rollout_in_dream`, which hands over the same `Rollout`.

Where cores are to spare, the policy looks at the games of one half of the workers while the other half steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from neural_env.agents.games import Games, training_seed
from neural_env.agents.policy import ActorCritic, Memory, act, begin, evaluate, observe
from neural_env.agents.ppo import PPOConfig, Rollout, value_of
from neural_env.arrays import Key
from neural_env.data.episode import Episode
from neural_env.runtime import usable_cores
from neural_env.world.parameters import Flat, replaced


@dataclass(frozen=True, eq=False)
class Ended:
    """An episode that came to its end."""

    scenario_return: float  # in the scenario's own reward
    shaped_return: float  # in the reward that the agent learns from
    steps: int
    episode: Episode | None  # if episodes are recorded


def groups_for(workers: int) -> int:
    """Two groups of workers where a core is left for the policy while one of them plays, else one.

    Without a free core nothing is hidden, and each group costs a call of the policy: on two cores, two groups of one
    worker each make three quarters of the steps of one group of two (see docs/agents.md).
    """
    return 2 if usable_cores() > workers > 1 else 1


class HostPlayer:
    """The agent in `games`: keeps its memory of them from roll-out to roll-out.

    Arguments:
        games: as many as `config` says.
        policy: the network; its parameters are given anew for each roll-out.
        config: how long a roll-out is.
        record: whether ended episodes are handed over whole, with their frames.
        groups: of workers; while one is looked at, the others step. None: as `groups_for` says.
    """

    def __init__(
        self, games: Games, policy: ActorCritic, config: PPOConfig, *, record: bool, groups: int | None = None
    ) -> None:
        self._games = games
        self._config = config
        self._groups = games.groups(groups or groups_for(games.config.workers))
        self._compiled = _Compiled(policy)
        self._memories = [self._compiled.begin(games.board.seen(games.span(group))) for group in self._groups]
        name = f"ppo({games.config.scenario})"
        self._traces = [_Trace(games, row, name if record else None) for row in range(games.config.games)]

    @property
    def next_episode(self) -> int:
        """The number of an episode that no game has begun, nor any after it."""
        n = self._games.config.games
        latest = int(self._games.board.seeds.max())
        number = latest // 10 * 8 + latest % 10 - 2
        assert training_seed(number) == latest
        return (number // n + 1) * n if number % n else number + n

    def rollout(self, params: Flat, key: Key, version: int, skill: float | None) -> tuple[Rollout, list[Ended]]:
        """`n_steps` of every game, and the episodes that ended in them.

        `version` and `skill` are written into the episodes that begin from here on.
        """
        n, steps = self._config.games, self._config.n_steps
        columns = _columns(steps, n, self._compiled.policy)
        ended: list[Ended] = []
        for trace in self._traces:
            trace.version, trace.skill = version, skill
        stack = self._compiled.policy.config.stack
        for group, memory in zip(self._groups, self._memories, strict=True):
            columns["frames"][: stack - 1, self._games.span(group)] = np.asarray(memory.frames)[:-1]
        for t in range(steps):
            for number, group in enumerate(self._groups):
                if t > 0:
                    ended += self._hear(params, number, t - 1, columns)
                key_now = jax.random.fold_in(key, t * len(self._groups) + number)
                acted = self._compiled.act(params, self._memories[number], key_now)
                self._games.send(np.asarray(acted.actions), group)
                _write(columns, t, self._games.span(group), stack, self._memories[number], acted)
        for number, group in enumerate(self._groups):
            ended += self._hear(params, number, steps - 1, columns)
            columns["last_values"][self._games.span(group)] = self._compiled.value(params, self._memories[number])
        return Rollout(**columns), ended  # type: ignore[arg-type]  # `update` moves them to the device

    def _hear(self, params: Flat, number: int, t: int, columns: dict[str, np.ndarray]) -> list[Ended]:
        """What became of the step `t` of a group's games."""
        span, board, memory = self._games.receive(self._groups[number]), self._games.board, self._memories[number]
        for name in ("rewards", "terminated", "truncated"):
            columns[name][t, span] = getattr(board, name)[span]
        executed = board.executed[span].copy()
        if board.truncated[span].any():
            final = self._compiled.value_of(params, memory, board.finally_seen(span), executed)
            columns["final_values"][t, span] = final
        over = board.terminated[span] | board.truncated[span]
        # `seen` copies, for JAX may go on reading after the call while the workers write.
        self._memories[number] = self._compiled.observe(memory, board.seen(span), executed, over)
        return [one for trace in self._traces[span] if (one := trace.step()) is not None]


class _Compiled:
    """The policy's functions, compiled; parameters are arguments, so that an update compiles nothing."""

    def __init__(self, policy: ActorCritic) -> None:
        self.policy = policy
        self.begin = jax.jit(partial(begin, policy))
        self.observe = jax.jit(partial(observe, policy))
        self.act = jax.jit(lambda params, memory, key: act(replaced(policy, params), memory, key))
        self.value = jax.jit(lambda params, memory: evaluate(replaced(policy, params), memory)[1])
        self.value_of = jax.jit(lambda params, *what: value_of(replaced(policy, params), *what))


def _columns(steps: int, n: int, policy: ActorCritic) -> dict[str, np.ndarray]:
    """An empty roll-out."""
    view = (*policy.view_shape, policy.config.channels)
    flags = {name: np.zeros((steps, n), bool) for name in ("terminated", "truncated")}
    floats = ("log_probs", "values", "rewards", "final_values")
    return {
        "frames": np.zeros((policy.config.stack - 1 + steps, n, *view), np.uint8),
        "ages": np.zeros((steps, n), np.int32),
        "past_actions": np.zeros((steps, n, policy.config.past_actions), np.int32),
        "actions": np.zeros((steps, n), np.int32),
        **{name: np.zeros((steps, n), np.float32) for name in floats},
        **flags,
        "last_values": np.zeros(n, np.float32),
    }


def _write(columns: dict[str, np.ndarray], t: int, span: slice, stack: int, memory: Memory, acted: Any) -> None:
    columns["frames"][stack - 1 + t, span] = np.asarray(memory.frames[-1])
    columns["ages"][t, span] = np.asarray(memory.ages)
    columns["past_actions"][t, span] = np.asarray(memory.past_actions)
    for name in ("actions", "log_probs", "values"):
        columns[name][t, span] = np.asarray(getattr(acted, name))


class _Trace:
    """The running episode of one game, as far as it has come."""

    def __init__(self, games: Games, row: int, policy: str | None) -> None:
        self.version = 0
        self.skill: float | None = None
        self._board = games.board
        self._row = row
        self._policy = policy
        self._begin()

    def _begin(self) -> None:
        self._seed = int(self._board.seeds[self._row])
        self._born: tuple[int, float | None] | None = None
        self._shaped = 0.0
        self._rewards: list[float] = []
        self._actions: list[int] = []
        self._frames: list[np.ndarray] = []
        self._variables: list[np.ndarray] = []
        self._signals: list[np.ndarray] = []
        self._keep("frames", "variables", "signals")

    def _keep(self, *names: str) -> None:
        if self._policy is None:
            return
        for name, rows in zip(names, (self._frames, self._variables, self._signals), strict=True):
            rows.append(getattr(self._board, name)[self._row].copy())

    def step(self) -> Ended | None:
        """Take in what the board says of the step; the episode, if it has ended."""
        board, row = self._board, self._row
        self._born = self._born or (self.version, self.skill)
        self._actions.append(int(board.executed[row]))
        self._rewards.append(float(board.scenario_rewards[row]))
        self._shaped += float(board.rewards[row])
        if not (board.terminated[row] or board.truncated[row]):
            self._keep("frames", "variables", "signals")
            return None
        self._keep("final_frames", "final_variables", "final_signals")
        ended = Ended(sum(self._rewards), self._shaped, len(self._actions), self._episode())
        self._begin()
        return ended

    def _episode(self) -> Episode | None:
        if self._policy is None:
            return None
        assert self._born is not None
        return Episode(
            frames=np.stack(self._frames),
            actions=np.asarray(self._actions, np.int32),
            rewards=np.asarray(self._rewards, np.float32),
            variables=np.stack(self._variables),
            signals=np.stack(self._signals),
            terminated=bool(self._board.terminated[self._row]),
            truncated=bool(self._board.truncated[self._row]),
            seed=self._seed,
            policy=self._policy,
            policy_version=self._born[0],
            skill=self._born[1],
        )
