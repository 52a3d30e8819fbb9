"""What can be collected: Doom's scenarios, and any Gymnasium environment that shows images and takes discrete actions.

A game here is a small description from which any process can start it: its `name` for manifest and records and the
`signal_names` are known without starting anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from neural_env.data.foreign import Foreign
from neural_env.data.vizdoom import SIGNALS, scenario_named
from neural_env.envs.real_doom import RealDoom
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

    def start(self) -> RealDoom:
        """The engine; raises `EngineCrashed` while it plays."""
        return RealDoom(self.scenario, self.resolution, self.frame_skip, signals=True, iwad=self.iwad)


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

    def start(self) -> Foreign:
        """The environment; raises `ValueError` for one that can't be recorded."""
        return Foreign(self.env, self.observation, self.variables, self.resize, self.frame_skip)
