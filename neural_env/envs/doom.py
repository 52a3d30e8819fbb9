"""What the dream and the real game have in common: spaces, checks, rendering. A subclass starts, advances and ends."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from neural_env.envs.window import Window
from neural_env.game import TICS_PER_SECOND, GameConfig

Frame = npt.NDArray[np.uint8]


class DoomEnv(gym.Env[Any, np.int64]):
    """Doom, by whatever makes its frames.

    * Observation: the screen with its HUD, RGB uint8 `[H, W, 3]`.
    * Action: `Discrete` over `action_names`; 0 is the no-op. An action is held for `frame_skip` tics (1/35 s each).
    * Reward: the scenario's own, summed over these tics, unclipped.
    * `terminated`: the player died or the scenario ended. `truncated`: time ran out. Never both.
    * `info`: the scenario's game variables by name, floats: `{"health": 100.0}`. Flat, because TorchRL, SB3's `Monitor`
      and others read numbers there, and nothing that is nested.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]  # gymnasium declares it an instance variable
        "render_modes": ["human", "rgb_array"],
        "render_fps": TICS_PER_SECOND / 4,
    }

    def __init__(self, game: GameConfig, render_mode: str | None) -> None:
        modes = self.metadata["render_modes"]
        if render_mode is not None and render_mode not in modes:
            raise ValueError(f"unknown render_mode {render_mode!r}; choose None or one of {modes}")
        self.metadata = {**type(self).metadata, "render_fps": TICS_PER_SECOND / game.frame_skip}  # type: ignore[misc]
        self.render_mode = render_mode
        self.game = game
        self.scenario = game.scenario
        self.resolution = game.resolution
        self.frame_skip = game.frame_skip
        self.action_names = game.action_names
        self.variable_names = game.variable_names
        self.observation_space = gym.spaces.Box(0, 255, (*game.resolution, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(len(game.action_names))
        self._frame: Frame | None = None
        self._playing = False
        self._closed = False
        self._window: Window | None = None

    @abstractmethod
    def _start(self, options: dict[str, Any]) -> tuple[Frame | None, npt.NDArray[np.float32]]:
        """Begin an episode, drawing from `self.np_random` only: the first frame (None: later) and variables."""

    @abstractmethod
    def _advance(self, action: int) -> tuple[Frame | None, float, bool, bool, npt.NDArray[np.float32]]:
        """One step: frame (None: later), reward, terminated, truncated, variables."""

    @abstractmethod
    def _end(self) -> None:
        """Release what the frames are made with; may be called again."""

    def _observation(self) -> Any:
        """What the agent sees of the present, its own to write to."""
        return self._screen().copy()

    def _screen(self) -> Frame:
        """The present frame. Raises `gym.error.ResetNeeded` before the first reset."""
        if self._frame is None:
            raise gym.error.ResetNeeded("render() needs a frame: call reset() first")
        return self._frame

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode. Without a seed, the next one of the stream that the last seed began."""
        self._require_open()
        super().reset(seed=seed)
        self._playing = False
        self._frame, variables = self._start(options or {})
        self._playing = True
        self._show()
        return self._observation(), self._info(variables)

    def step(self, action: np.int64 | int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Hold the action for `frame_skip` tics.

        Raises `gym.error.ResetNeeded` outside an episode, `ClosedEnvironmentError` after `close` and `InvalidAction`.
        """
        self._require_open()
        if not self._playing:
            raise gym.error.ResetNeeded("step() needs a running episode: call reset() first")
        if not self.action_space.contains(action):
            names = ", ".join(f"{i} {name}" for i, name in enumerate(self.action_names))
            raise gym.error.InvalidAction(
                f"action {action!r} is no integer of {self.action_space}; choose one of {names}"
            )
        self._playing = False  # unless the step comes to its end
        self._frame, reward, terminated, truncated, variables = self._advance(int(action))
        self._playing = not (terminated or truncated)
        self._show()
        return self._observation(), reward, terminated, truncated, self._info(variables)

    def render(self) -> Frame | None:
        """The screen, uint8 `[H, W, 3]`, in mode "rgb_array"; None in the other modes."""
        if self.render_mode != "rgb_array":
            return None
        self._require_open()
        return self._screen().copy()

    def close(self) -> None:
        """End whatever runs, and the window; may be called again."""
        self._closed = True
        self._playing = False
        self._end()
        if getattr(self, "_window", None) is not None:
            self._window.close()  # type: ignore[union-attr]
            self._window = None

    def _require_open(self) -> None:
        if self._closed:
            raise gym.error.ClosedEnvironmentError("this environment was closed: make a new one")

    def _info(self, variables: npt.NDArray[np.float32]) -> dict[str, Any]:
        return dict(zip(self.variable_names, variables.tolist(), strict=True))

    def _show(self) -> None:
        if self.render_mode == "human":
            if self._window is None:
                self._window = Window(type(self).__name__, self.resolution, self.metadata["render_fps"])
            self._window.show(self._screen())
