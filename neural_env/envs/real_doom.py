"""The real game as a Gymnasium environment: the twin of `NeuralDoom`, and where its data come from."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import EzPickle

from neural_env.data.vizdoom import TICS_PER_SECOND, DoomEngine

_WINDOW_HEIGHT = 480  # pixels


class RealDoom(gym.Env[npt.NDArray[np.uint8], np.int64], EzPickle):
    """Doom, played by the engine.

    * Observation: the screen with its HUD, RGB uint8 `[H, W, 3]`; at the end of an episode, the last screen rendered.
    * Action: `Discrete` over `action_names`; 0 is the no-op. An action is held for `frame_skip` tics (1/35 s each).
    * Reward: the scenario's own, summed over these tics, unclipped.
    * `terminated`: the player died or the scenario ended. `truncated`: the scenario's own time ran out. Never both.
    * `info`: `{"variables": {name: float}}`, the scenario's game variables.

    Arguments:
        scenario: a name in `neural_env.data.vizdoom.SCENARIOS`.
        resolution: height and width in pixels, (120, 160) or (240, 320).
        frame_skip: tics per step, at least 1.
        render_mode: None, "rgb_array" or "human" (which needs pygame).

    Raises `ValueError` for an unknown scenario, resolution or render mode, and `EngineCrashed` from `reset` or `step`
    when the engine's process fails; a later `reset` starts a fresh one. The constructor starts no engine.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]  # gymnasium declares it an instance variable
        "render_modes": ["human", "rgb_array"],
        "render_fps": TICS_PER_SECOND / 4,
    }

    def __init__(
        self,
        scenario: str = "take_cover",
        resolution: tuple[int, int] = (120, 160),
        frame_skip: int = 4,
        render_mode: str | None = None,
    ) -> None:
        EzPickle.__init__(self, scenario, resolution, frame_skip, render_mode)
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(
                f"unknown render_mode {render_mode!r}; choose None or one of {self.metadata['render_modes']}"
            )
        self._engine = DoomEngine(scenario, resolution, frame_skip)
        self.metadata = {**type(self).metadata, "render_fps": TICS_PER_SECOND / frame_skip}  # type: ignore[misc]
        self.render_mode = render_mode
        self.scenario = scenario
        self.resolution = self._engine.resolution
        self.frame_skip = frame_skip
        self.action_names = self._engine.scenario.action_names
        self.variable_names = self._engine.scenario.variable_names
        self.observation_space = gym.spaces.Box(0, 255, (*self.resolution, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(len(self.action_names))
        self._frame: npt.NDArray[np.uint8] | None = None
        self._playing = False
        self._closed = False
        self._window: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        """Start an episode. Without a seed, the next one of the stream that the last seed began; no options."""
        self._require_open()
        super().reset(seed=seed)
        self._playing = False
        engine_seed = int(self.np_random.integers(2**31))  # the one draw of an episode
        self._frame, variables = self._engine.new_episode(engine_seed)
        self._playing = True
        self._show()
        return self._frame.copy(), self._info(variables)

    def step(self, action: np.int64 | int) -> tuple[npt.NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
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
        self._playing = False  # unless the engine answers
        step = self._engine.act(int(action))
        self._playing = not (step.terminated or step.truncated)
        self._frame = step.frame
        self._show()
        return step.frame.copy(), step.reward, step.terminated, step.truncated, self._info(step.variables)

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The screen, uint8 `[H, W, 3]`, in mode "rgb_array"; None in the other modes."""
        if self.render_mode != "rgb_array":
            return None
        self._require_open()
        if self._frame is None:
            raise gym.error.ResetNeeded("render() needs a frame: call reset() first")
        return self._frame.copy()

    def close(self) -> None:
        """End the engine and the window; may be called again."""
        self._closed = True
        self._playing = False
        engine: DoomEngine | None = getattr(self, "_engine", None)  # absent when the constructor refused its arguments
        if engine is not None:
            engine.close()
        if getattr(self, "_window", None) is not None:
            self._window.close()
            self._window = None

    def _require_open(self) -> None:
        if self._closed:
            raise gym.error.ClosedEnvironmentError("this environment was closed: make a new one")

    def _info(self, variables: np.ndarray) -> dict[str, Any]:
        return {"variables": dict(zip(self.variable_names, variables.tolist(), strict=True))}

    def _show(self) -> None:
        if self.render_mode == "human" and self._frame is not None:
            if self._window is None:
                self._window = _Window(self.resolution, self.metadata["render_fps"])
            self._window.show(self._frame)


class _Window:
    """A pygame window at the game's own speed, the screen enlarged by a whole factor."""

    def __init__(self, resolution: tuple[int, int], fps: float) -> None:
        try:
            import pygame
        except ImportError as error:
            raise gym.error.DependencyNotInstalled(
                'render_mode="human" needs pygame: pip install "neural-env[human]"'
            ) from error
        height, width = resolution
        self._scale = max(1, _WINDOW_HEIGHT // height)
        self._fps = fps
        self._pygame = pygame
        pygame.display.init()
        pygame.display.set_caption("RealDoom")
        self._screen = pygame.display.set_mode((width * self._scale, height * self._scale))
        self._clock = pygame.time.Clock()

    def show(self, frame: npt.NDArray[np.uint8]) -> None:
        """Draw a frame and wait until it is due."""
        surface = self._pygame.surfarray.make_surface(frame.swapaxes(0, 1))  # pygame's x comes first
        self._screen.blit(self._pygame.transform.scale_by(surface, self._scale), (0, 0))
        self._pygame.event.pump()
        self._pygame.display.flip()
        self._clock.tick(self._fps)

    def close(self) -> None:
        self._pygame.display.quit()
        self._pygame.quit()
