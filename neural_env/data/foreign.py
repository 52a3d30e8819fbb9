"""A user's own game, as the recorder wants it: RGB frames, discrete actions, named variables.

Any Gymnasium environment will do that shows images, as observations or by `render()`, and takes discrete actions. What
it shows is checked at every step, because a record that bends frames to fit is worse than none.
"""

from __future__ import annotations

from enum import EnumMeta
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from neural_env.arrays import Frame
from neural_env.game import GameConfig

RENDER = "render"
"""The observation that stands for `render()`."""


class Foreign:
    """A Gymnasium environment that is to be recorded.

    Args:
        env: its id, `EnvId` or `module:EnvId`; the module is imported first.
        observation: which observation is the frame: the key of a `Dict`, the index of a `Tuple`, "render" for what
            `render()` shows in mode "rgb_array"; None if the observation itself is the image.
        variables: names of numbers in `info`, to be recorded; they must be there at every step.
        resize: height and width to which frames are brought by averaging areas; None keeps them.
        frame_skip: steps that an action is held; rewards are summed.

    Raises:
        ValueError: there is no such environment, or it can't be recorded: no image, no discrete actions; from `reset`
            and `step`, frames that change their shape and variables that are missing.
    """

    def __init__(
        self,
        env: str,
        observation: str | None = None,
        variables: tuple[str, ...] = (),
        resize: tuple[int, int] | None = None,
        frame_skip: int = 1,
    ) -> None:
        self.id = env
        self.frame_skip = frame_skip
        self._observation = observation
        self.variable_names = variables
        self._env = _made(env, "rgb_array" if observation == RENDER else None)
        try:
            self._actions = _discrete(env, self._env.action_space)
            if observation != RENDER:
                _check_image(env, observation, _part_of_space(env, self._env.observation_space, observation))
        except ValueError:
            self._env.close()
            raise
        self._resize = resize
        self._shrink: _AreaMean | None = None
        self._shape: tuple[int, ...] | None = None

    def describe(self, name: str) -> GameConfig:
        """The game under that name; looks at the first frame of an episode."""
        frame, _ = self.reset(seed=0)
        height, width = frame.shape[:2]
        names = action_names(self._env, int(self._actions.n))
        return GameConfig(name, names, self.variable_names, self.frame_skip, (height, width))

    def reset(self, *, seed: int | None = None) -> tuple[Frame, dict[str, Any]]:
        """Begin the episode of that seed: the first frame, and the variables."""
        observation, info = self._env.reset(seed=seed)
        return self._frame(observation), self._told(info)

    def step(self, action: int) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Hold the action; frame, summed reward, terminated, truncated, variables."""
        total, terminated, truncated = 0.0, False, False
        for _ in range(self.frame_skip):
            observation, reward, terminated, truncated, info = self._env.step(self._actions.start + action)
            total += float(reward)
            if terminated or truncated:
                break
        return self._frame(observation), total, bool(terminated), bool(truncated and not terminated), self._told(info)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _told(self, info: dict[str, Any]) -> dict[str, Any]:
        return {name: self._variable(info, name) for name in self.variable_names}

    def _variable(self, info: dict[str, Any], name: str) -> float:
        if name not in info:
            there = ", ".join(sorted(map(str, info))) or "nothing"
            cure = "name what is there after reset and after every step, or add it by a wrapper"
            raise ValueError(f"{self.id}: info has no {name!r}, it has {there}; {cure}")
        try:
            value = float(info[name])
        except (TypeError, ValueError):
            raise ValueError(f"{self.id}: info[{name!r}] must be one number, got {info[name]!r}") from None
        if not np.isfinite(value):
            raise ValueError(f"{self.id}: info[{name!r}] must be finite, got {value}; leave it out of the variables")
        return value

    def _frame(self, observation: Any) -> Frame:
        shown = self._env.render() if self._observation == RENDER else _part(observation, self._observation)
        image = _rgb(self.id, shown)
        if self._shape is None:
            self._shape = image.shape
            self._shrink = None if self._resize is None else _AreaMean((image.shape[0], image.shape[1]), self._resize)
        if image.shape != self._shape:
            cure = "record one that keeps its size, for example one wrapped in gymnasium.wrappers.ResizeObservation"
            raise ValueError(f"{self.id}: frames must keep their shape, got {image.shape} after {self._shape}; {cure}")
        return image if self._shrink is None else self._shrink(image)


def action_names(env: gym.Env[Any, Any], count: int) -> tuple[str, ...]:
    """What the actions are called, in lower case: by the environment if it says so, else `action_0` and so on.

    Asks for `action_names`, `get_action_meanings()` (Atari) and an `actions` or `Actions` enum (MiniGrid).
    """
    game = env.unwrapped
    meanings = getattr(game, "get_action_meanings", None)
    enums = [getattr(game, "actions", None), getattr(game, "Actions", None)]
    for found in (getattr(game, "action_names", None), meanings() if callable(meanings) else None, *map(_names, enums)):
        if found is not None and len(found) == count and all(isinstance(name, str) for name in found):
            return tuple(name.lower() for name in found)
    return tuple(f"action_{number}" for number in range(count))


def _names(enum: object) -> list[str] | None:
    """Of an enum's members, in the order of their values."""
    if not isinstance(enum, EnumMeta):
        return None
    members: list[Any] = list(enum)
    return [member.name for member in sorted(members, key=lambda member: member.value)]


def _made(env: str, render_mode: str | None) -> gym.Env[Any, Any]:
    """The environment; Gymnasium's own checks are left out, since those that matter here are made at every step."""
    try:
        return gym.make(env, render_mode=render_mode, disable_env_checker=True)
    except (gym.error.Error, ImportError) as error:
        cure = "name it as module:EnvId, where importing the module registers EnvId"
        raise ValueError(f"there is no environment {env!r} ({error}); {cure}") from error


def _discrete(env: str, space: spaces.Space[Any]) -> spaces.Discrete:
    if isinstance(space, spaces.Discrete):
        return space
    cure = "choose a set of actions and map a Discrete space to them, by gymnasium.wrappers.TransformAction"
    raise ValueError(f"{env}: actions must be Discrete, got {space}; {cure}")


def _part_of_space(env: str, space: spaces.Space[Any], observation: str | None) -> spaces.Space[Any]:
    """The space of what is to be recorded."""
    parts: dict[str, spaces.Space[Any]] = {}
    if isinstance(space, spaces.Dict):
        parts = dict(space.spaces)
    elif isinstance(space, spaces.Tuple):
        parts = {str(number): part for number, part in enumerate(space.spaces)}
    if not parts and observation is None:
        return space
    if observation in parts:
        return parts[str(observation)]
    images = [name for name, part in parts.items() if _is_image(part)]
    cure = f"--observation {' or '.join([*images, RENDER])}"
    raise ValueError(f"{env}: which observation is the frame? Got {observation!r} of {space}: {cure}")


def _part(observation: Any, name: str | None) -> Any:
    if name is None:
        return observation
    return observation[int(name)] if isinstance(observation, tuple) else observation[name]


def _is_image(space: spaces.Space[Any]) -> bool:
    """Grey `[H, W]` or `[H, W, 1]`, or RGB `[H, W, 3]`, uint8."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    return len(space.shape) == 2 or (len(space.shape) == 3 and space.shape[-1] in (1, 3))


def _check_image(env: str, observation: str | None, space: spaces.Space[Any]) -> None:
    if not _is_image(space):
        what = "the observation" if observation is None else f"observation {observation!r}"
        cure = f"--observation {RENDER} records what render() shows"
        raise ValueError(f"{env}: {what} must be a uint8 image [H, W], [H, W, 1] or [H, W, 3], got {space}; {cure}")


def _rgb(env: str, shown: Any) -> Frame:
    """The image with three channels."""
    image = np.asarray(shown)
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[-1] in (1, 3))):
        found = f"{image.dtype} of shape {image.shape}"
        raise ValueError(f"{env}: a frame must be a uint8 image [H, W], [H, W, 1] or [H, W, 3], got {found}")
    channels: np.ndarray = image if image.ndim == 3 else image[..., None]
    return np.repeat(channels, 3 // channels.shape[-1], axis=-1)


class _AreaMean:
    """Resizes an image: each new pixel is the mean over the area that it covers."""

    def __init__(self, size: tuple[int, int], new: tuple[int, int]) -> None:
        self._rows, self._columns = (_overlaps(old, to) for old, to in zip(size, new, strict=True))

    def __call__(self, image: Frame) -> Frame:
        rows = np.tensordot(self._rows, image.astype(np.float32), axes=(1, 0))  # [H', W, 3]
        mean = np.tensordot(self._columns, rows, axes=(1, 1)).transpose(1, 0, 2)  # [H', W', 3]
        resized: np.ndarray = np.clip(np.rint(mean), 0, 255).astype(np.uint8)
        return resized


def _overlaps(old: int, new: int) -> np.ndarray:
    """`[new, old]`: the share of each old pixel in each new one; rows sum to 1."""
    edges = np.arange(new + 1) * old / new
    pixels = np.arange(old)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares: np.ndarray = np.maximum(shared, 0) * new / old
    return shares.astype(np.float32)
