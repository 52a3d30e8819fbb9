"""The real game as a Gymnasium environment: the twin of `NeuralDoom`, and where its data come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.utils import EzPickle

from neural_env.data.vizdoom import SIGNALS, DoomEngine
from neural_env.envs.arguments import refuse_unknown
from neural_env.envs.doom import DoomEnv, Frame
from neural_env.game import GameConfig


class RealDoom(DoomEnv, EzPickle):
    """Doom, played by the engine; spaces, rewards and `info` as `DoomEnv` says.

    At the end of an episode the observation is the last screen that was rendered. The constructor starts no engine.

    Args:
        scenario: a name in `neural_env.data.vizdoom.SCENARIOS`, or a map as in "freedoom1:E1M1", "freedoom2:MAP01"
            or "path/to/own.wad:MAP01". A map has no reward of its own: every reward is 0.
        resolution: height and width in pixels, (120, 160) or (240, 320).
        frame_skip: tics per step, at least 1.
        render_mode: None, "rgb_array" or "human".
        iwad: path of a game to play the scenario in, instead of Freedoom.
        signals: whether `info["signals"]` holds `neural_env.data.vizdoom.SIGNALS` too, `{name: float}`: kills, hits,
            position and the like, for shaped rewards and event counts. An agent that is to play the dream can't see it.
        automap: whether `info["automap"]` holds the in-game map too, uint8 `[H, W, 3]`: what the player has seen of the
            level. The dream has none.

    Raises:
        ValueError: an unknown scenario, map, WAD, resolution or render mode.
        EngineCrashed: from `reset` or `step`, when the engine's process fails; a later `reset` starts a fresh one.
    """

    def __init__(
        self,
        scenario: str = "take_cover",
        resolution: tuple[int, int] = (120, 160),
        frame_skip: int = 4,
        render_mode: str | None = None,
        signals: bool = False,
        iwad: str | None = None,
        automap: bool = False,
        **unknown: Any,
    ) -> None:
        refuse_unknown(type(self), unknown)
        EzPickle.__init__(self, scenario, resolution, frame_skip, render_mode, signals, iwad, automap)
        self._signals = signals
        self._automap = automap
        self._engine = DoomEngine(scenario, resolution, frame_skip, iwad, automap=automap)
        names = self._engine.scenario
        game = GameConfig(names.name, names.action_names, names.variable_names, frame_skip, self._engine.resolution)
        DoomEnv.__init__(self, game, render_mode)

    def _start(self, options: dict[str, Any]) -> tuple[Frame, npt.NDArray[np.float32]]:
        if options:
            raise ValueError(f"RealDoom's reset takes no options, got {sorted(options)}: leave them out")
        return self._engine.new_episode(int(self.np_random.integers(2**31)))  # the one draw of an episode

    def _advance(self, action: int) -> tuple[Frame, float, bool, bool, npt.NDArray[np.float32]]:
        step = self._engine.act(action)
        return step.frame, step.reward, step.terminated, step.truncated, step.variables

    def _info(self, variables: npt.NDArray[np.float32]) -> dict[str, Any]:
        info = super()._info(variables)
        if self._signals:
            info["signals"] = dict(zip(SIGNALS, self._engine.signals().tolist(), strict=True))
        if self._automap:
            info["automap"] = self._engine.automap()
        return info

    def _end(self) -> None:
        engine: DoomEngine | None = getattr(self, "_engine", None)  # absent when the constructor refused its arguments
        if engine is not None:
            engine.close()
