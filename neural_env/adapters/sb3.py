"""Many dreams for Stable-Baselines3 and SBX: their `VecEnv` over Gymnasium's vector environment.

Both libraries refuse a Gymnasium `VectorEnv` and would step N single environments in turn; here one compiled program
steps all. What differs between the two interfaces is when an episode begins anew and where its end is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from neural_env.envs.infos import info_of

try:
    from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn
except ImportError as error:
    raise ImportError('neural_env.adapters.sb3 needs Stable-Baselines3: pip install "neural-env[sb3]"') from error

_BY_DREAM = ("np_random", "np_random_seed", "get_state", "render")  # what the vector environment has N of


class DreamVecEnv(VecEnv):
    """A `VecEnv` for the algorithms of Stable-Baselines3 and SBX.

    It shows what `DummyVecEnv` shows of N single environments: `dones`, and in `infos[i]` of an episode's last step
    `terminal_observation` and `TimeLimit.truncated` (true only if the step was not deadly too). The `info` of the
    next episode's first moment is in `reset_infos[i]`.

    Args:
        envs: a vector environment that begins anew within the last step of an episode, possibly wrapped:
            `gym.make_vec("NeuralDoom-v0", num_envs=16, autoreset_mode="SameStep")`.

    Raises:
        TypeError: a single environment.
        ValueError: another autoreset mode.

    Example:
        >>> import gymnasium as gym, neural_env
        >>> from neural_env.adapters.sb3 import DreamVecEnv
        >>> envs = DreamVecEnv(gym.make_vec("NeuralDoom-v0", num_envs=2, autoreset_mode="SameStep"))
        >>> envs.seed(0)
        [0, 1]
        >>> envs.reset().shape
        (2, 120, 160, 3)
        >>> envs.close()
    """

    def __init__(self, envs: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        _check(envs)
        self.envs = envs
        self._actions: npt.NDArray[Any] | None = None
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self.metadata = {**envs.metadata, **self.metadata}  # the frame rate of videos

    def reset(self) -> VecEnvObs:
        """Begin an episode in every dream, with the seeds of `seed` and the options of `set_options` if given."""
        seeds: Any = self._seeds  # a list, which Gymnasium's vector environments take and its types don't
        observations, infos = self.envs.reset(seed=seeds, options=self._common_options())
        self.reset_infos = [info_of(infos, i) for i in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observations  # type: ignore[no-any-return]

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Keep the actions, `[N]`, for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step all dreams; rewards are float32, as in `DummyVecEnv`."""
        observations, rewards, terminated, truncated, infos = self.envs.step(self._actions)
        dones = terminated | truncated
        rows = [self._last_info(infos, i) if dones[i] else info_of(infos, i) for i in range(self.num_envs)]
        for i, info in enumerate(rows):
            info["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        return observations, rewards.astype(np.float32), dones, rows

    def close(self) -> None:
        """Let go of the world."""
        self.envs.close()

    def get_images(self) -> Sequence[npt.NDArray[np.uint8] | None]:
        """The N screens; `render` shows them as one picture."""
        frames: Any = self.envs.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the vector environment, for each dream; what it has N of, each dream's own."""
        return self._shares(attr_name, self._find(attr_name), indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the vector environment, such as a dial; all dreams share it.

        Raises `ValueError` if only some are meant.
        """
        if set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise ValueError(f"all dreams share {attr_name!r}: set it with indices=None, got {indices!r}")
        setattr(self.envs.unwrapped, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the vector environment, once, and give each dream what it returns, or its part of it."""
        return self._shares(method_name, self._find(method_name)(*method_args, **method_kwargs), indices)

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Whether one of the vector environment's wrappers is of this class."""
        wrapped = any(isinstance(layer, wrapper_class) for layer in self._layers())
        return [wrapped for _ in self._get_indices(indices)]

    def _last_info(self, infos: dict[str, Any], row: int) -> dict[str, Any]:
        """The `info` of an episode's last step; that of the next one's beginning goes to `reset_infos`."""
        info = info_of(infos, row)
        last, frame = info.pop("final_info"), info.pop("final_obs")
        self.reset_infos[row] = {name: value for name, value in info.items() if name in last}
        return {
            **info,
            **last,
            "terminal_observation": frame,
        }  # what a wrapper added, as the episode's return, is in `info`

    def _common_options(self) -> dict[str, Any] | None:
        first = self._options[0]
        if all(options is first for options in self._options) or not any(self._options):
            return first or None
        if all(set(options) == {"state"} for options in self._options):
            return {"state": [options["state"] for options in self._options]}
        raise ValueError("dreams share reset's options: give set_options one dict, or a list of {'state': snapshot}")

    def _shares(self, name: str, value: Any, indices: VecEnvIndices) -> list[Any]:
        return [value[i] if name in _BY_DREAM and value is not None else value for i in self._get_indices(indices)]

    def _layers(self) -> Iterator[gym.vector.VectorEnv[Any, Any, Any]]:
        """The wrappers from the outermost on, and the vector environment itself."""
        layer = self.envs
        while isinstance(layer, gym.vector.VectorWrapper):
            yield layer
            layer = layer.env
        yield layer

    def _find(self, name: str) -> Any:
        """An attribute of the outermost layer that has it: vector wrappers pass on none but Gymnasium's own."""
        for layer in self._layers():
            if hasattr(layer, name):
                return getattr(layer, name)
        raise AttributeError(f"{type(self.envs.unwrapped).__name__} has no attribute {name!r}")


def _check(envs: gym.vector.VectorEnv[Any, Any, Any]) -> None:
    if not isinstance(envs, gym.vector.VectorEnv):
        raise TypeError(f"DreamVecEnv takes a vector environment, got {type(envs).__name__}: make it with gym.make_vec")
    mode = envs.metadata.get("autoreset_mode")
    if mode is not AutoresetMode.SAME_STEP:
        raise ValueError(
            "DreamVecEnv needs the last frame of an episode and the first of the next one from one step: make it with "
            f'autoreset_mode="SameStep", got {mode!r}'
        )
