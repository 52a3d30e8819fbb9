"""One episode: a player, a game, a record of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from neural_env.data.episode import Episode
from neural_env.data.policies import Policy


class Playable(Protocol):
    """A game that can be recorded: `RealDoom`, the same as `data.games` records it, or any other by `data.foreign`.

    `info[name]` of each of `variable_names` is a number that the player may read; `info["signals"]`, which may be
    missing, is what it may not, `{name: float}` with the same names at every step. `info["automap"]`, uint8
    `[H, W, 3]`, is there for a player that looks at it. A game with an attribute `palette`, uint8 `[c, 3]`, has frames
    `[H, W]` that are rows of it; one with a method `columns(infos)` makes variables and signals of many `info` at once.
    """

    @property
    def variable_names(self) -> tuple[str, ...]:
        """The game variables."""
        ...

    def reset(self, *, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin the episode of that seed: the first frame, uint8 `[H, W, 3]` or `[H, W]`, and `info`."""
        ...

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Frame, reward, terminated, truncated, `info`."""
        ...

    def close(self) -> None:
        """End whatever runs."""
        ...


def play(env: Playable, policy: Policy, *, seed: int, max_steps: int, room: np.ndarray | None = None) -> Episode:
    """One episode; the player's randomness comes from the seed too, apart from the game's.

    `room`, uint8 `[max_steps + 1, H, W, 3]` or `[max_steps + 1, H, W]`, is where the frames are put if it is given.
    """
    palette: np.ndarray | None = getattr(env, "palette", None)
    policy.reset(np.random.default_rng([seed, 1]))
    frame, info = env.reset(seed=seed)
    frames, infos = [_kept(frame, room, 0)], [info]
    actions: list[int] = []
    rewards: list[float] = []
    terminated = truncated = False
    while not (terminated or truncated):
        actions.append(policy.act(*_seen(policy, env, frame, info)))
        frame, reward, terminated, truncated, info = env.step(actions[-1])
        frames.append(_kept(frame, room, len(actions)))
        infos.append(info)
        rewards.append(reward)
        truncated = not terminated and (truncated or len(actions) == max_steps)
    variables, signals = _columns(env, infos)
    return Episode(
        frames=np.stack(frames) if room is None else room[: len(frames)],
        actions=np.asarray(actions, np.int32),
        rewards=np.asarray(rewards, np.float32),
        variables=variables,
        signals=signals,
        terminated=terminated,
        truncated=truncated,
        seed=seed,
        policy=policy.name,
        policy_version=policy.version,
        skill=policy.skill,
        palette=palette,
    )


def _kept(frame: np.ndarray, room: np.ndarray | None, number: int) -> np.ndarray:
    """The frame, at its place in the room while it is at hand."""
    if room is None:
        return frame
    room[number] = frame
    return room[number]


_NOTHING = np.empty(0, np.float32)


def _seen(policy: Policy, env: Playable, frame: np.ndarray, info: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """What the player is shown; what it doesn't look at isn't made, for it takes time."""
    if not policy.sees:
        return frame, _NOTHING
    palette: np.ndarray | None = getattr(env, "palette", None)
    picture = frame if palette is None else palette.take(frame, axis=0)
    if "automap" in policy.sees:
        picture = np.concatenate([picture, info["automap"]], axis=-1)
    return picture, _columns(env, [info])[0][0] if "variables" in policy.sees else _NOTHING


def _columns(env: Playable, infos: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Variables, float32 [n, v], and signals, float32 [n, s], of so many moments."""
    if hasattr(env, "columns"):
        variables, signals = env.columns(infos)
        return variables, signals
    rows = [[info[name] for name in env.variable_names] for info in infos]
    signals = [list(info.get("signals", {}).values()) for info in infos]
    return np.asarray(rows, np.float32), np.asarray(signals, np.float32)
