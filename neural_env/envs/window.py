"""A window that shows frames at the game's speed."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import numpy.typing as npt

_HEIGHT = 480  # pixels, at least as high as a frame


class Window:
    """A pygame window, the screen enlarged by a whole factor. Raises `DependencyNotInstalled` without pygame."""

    def __init__(self, caption: str, resolution: tuple[int, int], fps: float) -> None:
        try:
            import pygame
        except ImportError as error:
            raise gym.error.DependencyNotInstalled('render_mode="human" needs pygame: pip install pygame-ce') from error
        height, width = resolution
        self._scale = max(1, _HEIGHT // height)
        self._fps = fps
        self._pygame = pygame
        pygame.display.init()
        pygame.display.set_caption(caption)
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
        """Close the window."""
        self._pygame.display.quit()
        self._pygame.quit()
