"""One episode: a player, a game, a record of both."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from neural_env.arrays import Frame
from neural_env.data.episode import Episode
from neural_env.data.policies import Policy


class Playable(Protocol):
    """A game that can be recorded: `RealDoom`, or any other through `data.foreign`.

    `info[name]` of each of `variable_names` is a number that the player may read; `info["signals"]`, which may be
    missing, is what it may not, `{name: float}` with the same names at every step.
    """

    @property
    def variable_names(self) -> tuple[str, ...]:
        """The game variables."""
        ...

    def reset(self, *, seed: int | None = None) -> tuple[Frame, dict[str, Any]]:
        """Begin the episode of that seed: the first frame, uint8 `[H, W, 3]`, and `info`."""
        ...

    def step(self, action: int) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Frame, reward, terminated, truncated, `info`."""
        ...

    def close(self) -> None:
        """End whatever runs."""
        ...


def play(env: Playable, policy: Policy, *, seed: int, max_steps: int, room: np.ndarray | None = None) -> Episode:
    """One episode; the player's randomness comes from the seed too, apart from the game's.

    `room`, uint8 `[max_steps + 1, H, W, 3]`, is where the frames are put if it is given.
    """
    policy.reset(np.random.default_rng([seed, 1]))
    frame, info = env.reset(seed=seed)
    frames, variables, signals = [frame], [_variables(env, info)], [_signals(info)]
    actions: list[int] = []
    rewards: list[float] = []
    terminated = truncated = False
    while not (terminated or truncated):
        actions.append(policy.act(frame, variables[-1]))
        frame, reward, terminated, truncated, info = env.step(actions[-1])
        frames.append(frame)
        variables.append(_variables(env, info))
        signals.append(_signals(info))
        rewards.append(reward)
        truncated = not terminated and (truncated or len(actions) == max_steps)
    return Episode(
        frames=np.stack(frames, out=None if room is None else room[: len(frames)]),
        actions=np.asarray(actions, np.int32),
        rewards=np.asarray(rewards, np.float32),
        variables=np.stack(variables),
        signals=np.stack(signals),
        terminated=terminated,
        truncated=truncated,
        seed=seed,
        policy=policy.name,
        policy_version=policy.version,
        skill=policy.skill,
    )


def _variables(env: Playable, info: dict[str, Any]) -> np.ndarray:
    return np.asarray([info[name] for name in env.variable_names], np.float32)


def _signals(info: dict[str, Any]) -> np.ndarray:
    return np.asarray(list(info.get("signals", {}).values()), np.float32)
