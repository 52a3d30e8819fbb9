"""What can be collected: Doom's scenarios, and any Gymnasium environment that shows images and takes discrete actions.

A game here is a small description from which any process can start it: its `name` for manifest and records and the
`signal_names` are known without starting anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.utils import seeding

from neural_env.data.foreign import Foreign
from neural_env.data.vizdoom import SIGNALS, DoomEngine, scenario_named
from neural_env.game import GameConfig


@dataclass(frozen=True)
class DoomGame:
    """A scenario of the real game."""

    scenario: str
    iwad: str | None  # path of a game to play it in, instead of Freedoom
    resolution: tuple[int, int]  # height and width, pixels
    frame_skip: int  # tics an action is held

    @property
    def name(self) -> str:
        """The scenario's."""
        return scenario_named(self.scenario, self.iwad).name

    @property
    def signal_names(self) -> tuple[str, ...]:
        """What the engine tells beside the screen."""
        return SIGNALS

    def describe(self) -> GameConfig:
        """Known without an engine."""
        scenario = scenario_named(self.scenario, self.iwad)
        return GameConfig(
            scenario.name, scenario.action_names, scenario.variable_names, self.frame_skip, self.resolution
        )

    @property
    def palette(self) -> np.ndarray | None:
        """The colours that its frames are rows of, uint8 [256, 3]; None: they are RGB."""
        return scenario_named(self.scenario, self.iwad).palette

    def start(self, automap: bool = False) -> RecordedDoom:
        """The engine; raises `EngineCrashed` while it plays."""
        return RecordedDoom(self, automap)


class RecordedDoom:
    """The episodes of `RealDoom(signals=True)`, seed for seed, at the least cost.

    The screen stays as the engine has it, in its palette, and `columns` makes variables and signals of all `info` of an
    episode at once. `info["automap"]` is the map, uint8 [H, W, 3], if it is asked for.
    """

    def __init__(self, game: DoomGame, automap: bool = False) -> None:
        self._engine = DoomEngine(
            game.scenario, game.resolution, game.frame_skip, game.iwad, indexed=True, automap=automap
        )
        self._automap = automap
        self.variable_names = self._engine.scenario.variable_names
        self.palette = self._engine.palette

    def reset(self, *, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        """The episode that `RealDoom.reset(seed=seed)` begins."""
        random, _ = seeding.np_random(seed)
        frame, _ = self._engine.new_episode(int(random.integers(2**31)))
        return frame, self._info()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Frame, reward, terminated, truncated, `info`."""
        step = self._engine.act(action)
        return step.frame, step.reward, step.terminated, step.truncated, self._info()

    def columns(self, infos: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
        """Variables, float32 [n, v], and signals, float32 [n, s], of so many moments."""
        values = np.stack([info["values"] for info in infos])
        return self._engine.variables_of(values), self._engine.signals_of(values)

    def close(self) -> None:
        """End the engine."""
        self._engine.close()

    def _info(self) -> dict[str, Any]:
        automap = {"automap": self._engine.automap()} if self._automap else {}
        return {"values": self._engine.values, **automap}


@dataclass(frozen=True)
class ForeignGame:
    """A user's own game; the fields are `Foreign`'s arguments."""

    env: str
    observation: str | None = None
    variables: tuple[str, ...] = ()
    resize: tuple[int, int] | None = None
    frame_skip: int = 1

    @property
    def name(self) -> str:
        """The id, with what is recorded of it: `module:EnvId` or `module:EnvId[render]`."""
        return self.env if self.observation is None else f"{self.env}[{self.observation}]"

    @property
    def signal_names(self) -> tuple[str, ...]:
        """It has none."""
        return ()

    def describe(self) -> GameConfig:
        """Makes the environment and looks at its first frame; raises `ValueError` for one that can't be recorded."""
        game = self.start()
        try:
            return game.describe(self.name)
        finally:
            game.close()

    @property
    def palette(self) -> None:
        """Its frames are RGB."""
        return

    def start(self, automap: bool = False) -> Foreign:
        """The environment; raises `ValueError` for one that can't be recorded, or for a map."""
        if automap:
            raise ValueError(f"the agent looks at Doom's map, which {self.env} hasn't got: let it play Doom")
        return Foreign(self.env, self.observation, self.variables, self.resize, self.frame_skip)
