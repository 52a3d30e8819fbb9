"""Dreams that begin in the middle of real games, wherever a player got to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from neural_env.data.episode import SPLITS, Split, split_of
from neural_env.data.policies import Policy, StickyRandom
from neural_env.data.vizdoom import scenario_named
from neural_env.envs.doom import Frame
from neural_env.game import GameConfig
from neural_env.wrappers.dreams import dream_of
from neural_env.wrappers.plain import plain
from neural_env.wrappers.real_past import RealPast
from neural_env.wrappers.streams import Stream, stream_of

POLICIES: dict[str, Callable[[int], Policy]] = {
    "sticky_random": StickyRandom,  # keeps its last action with probability 0.5, as in the training data
    "random": lambda actions: StickyRandom(actions, repeat=0.0),
    "noop": lambda actions: StickyRandom(1),
}
"""Who plays until the dream begins, by name."""

_SEEDS = 10**8  # tens of real games to draw from
_DEATHS = 100  # in a row, after which it isn't bad luck any more


class RealStarts(gym.Wrapper[Frame, np.int64, Frame, np.int64], gym.utils.RecordConstructorArgs):
    """Begins each episode from the frames of a running real game, in place of the starts that came with the world.

    At `reset` the real game is played from a fresh seed: first as many frames as the dream's context, then a random
    number of steps more. If it ends on the way, another game is begun, so starts close to a certain death are rare.
    One engine serves all resets; it starts with the first. `info["real_start"]` holds `seed` and `steps`, which name
    the moment.

    Seeds and luck come from the environment's seed, but from a stream of the wrapper's own. Evaluation's games keep
    out: the seeds are those of one split.

    Args:
        env: a `NeuralDoom`, possibly wrapped.
        scenario: whose games; it must have the world's actions. None: the world's own.
        warmup: fewest and most steps that are played after the context is complete.
        policy: who plays: "sticky_random", "random" or "noop".
        split: "train", "validation" or "test": which seeds are played.

    Raises:
        TypeError: the environment is no `NeuralDoom`.
        ValueError: an argument that isn't as above.
        RuntimeError: from `reset`, if a hundred games in a row end before the dream can begin.

    Example:
        >>> import gymnasium as gym, neural_env
        >>> from neural_env.wrappers import RealStarts
        >>> env = RealStarts(gym.make("NeuralDoom-v0"), warmup=(10, 20))
        >>> observation, info = env.reset(seed=0)
        >>> 13 <= info["real_start"]["steps"] <= 23  # three of them fill the context
        True
        >>> env.close()
    """

    def __init__(
        self,
        env: gym.Env[Frame, np.int64],
        scenario: str | None = None,
        warmup: tuple[int, int] = (0, 100),
        policy: str = "sticky_random",
        split: Split = "train",
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(
            self, scenario=scenario, warmup=plain(warmup), policy=policy, split=split
        )
        super().__init__(env)
        self._dream = dream_of(env, "RealStarts")
        self._games = RealGames(self._dream.game, scenario, warmup, policy, split)
        self._stream: Stream | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Plays a real game and begins the dream where it has got to.

        Raises:
            ValueError: `options` were given: the context is the real game's own.
        """
        refuse_options("RealStarts", options)
        self._stream = stream_of(self.env, seed, self._stream, "RealStarts")
        about = self._games.play(self._stream, self._dream.context_length)
        observation, info = self.env.reset(seed=seed, options=self._games.past.context())
        return observation, {**info, "real_start": about}

    def close(self) -> None:
        """Closes the dream and the engine."""
        self._games.past.close()
        super().close()


class RealGames:
    """An engine that is played to some place; arguments as for `RealStarts`."""

    def __init__(
        self, game: GameConfig, scenario: str | None, warmup: tuple[int, int], policy: str, split: str
    ) -> None:
        self._low, self._high = _checked_warmup(warmup)
        if policy not in POLICIES:
            raise ValueError(f"unknown policy {policy!r}; choose one of {', '.join(POLICIES)}")
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
        self._endings = [digit for digit in range(10) if split_of(digit) == split]
        self._policy = POLICIES[policy](len(game.action_names))
        self.past = RealPast(_game_of(game, scenario))

    def play(self, rng: Stream, length: int) -> dict[str, int]:
        """Play to a random moment: the game's seed, and the steps that led there."""
        for _ in range(_DEATHS):
            seed = 10 * int(rng.integers(_SEEDS)) + int(rng.choice(self._endings))
            steps = length - 1 + int(rng.integers(self._low, self._high + 1))
            self._policy.reset(np.random.default_rng([seed, 1]))
            if self._survives(seed, steps, length):
                return {"seed": seed, "steps": steps}
        raise RuntimeError(f"{_DEATHS} real games in a row ended within {steps} steps: choose a shorter warmup")

    def _survives(self, seed: int, steps: int, length: int) -> bool:
        frame = self.past.begin(seed, length)
        for _ in range(steps):
            frame, _, terminated, truncated, _ = self.past.step(self._policy.act(frame, np.empty(0)))
            if terminated or truncated:  # the engine shows no frame after the last tic
                return False
        return True


def refuse_options(wrapper: str, options: dict[str, Any] | None) -> None:
    """Raises `ValueError` if `reset` got options where the real game says how to begin."""
    if options:
        raise ValueError(
            f"{wrapper} starts the dream from the real game: reset takes no options, got {sorted(options)}"
        )


def _checked_warmup(warmup: tuple[int, int]) -> tuple[int, int]:
    fits = len(warmup) == 2 and all(isinstance(n, int) and not isinstance(n, bool) for n in warmup)
    if not fits or not 0 <= warmup[0] <= warmup[1]:
        raise ValueError(f"warmup must be two integers with 0 <= fewest <= most, got {warmup!r}")
    return warmup[0], warmup[1]


def _game_of(game: GameConfig, scenario: str | None) -> GameConfig:
    """The game that is played: the world's own, or that scenario if it has the world's actions."""
    if scenario in (None, game.scenario):
        return game
    names = scenario_named(scenario).action_names
    if names != game.action_names:
        raise ValueError(
            f"{scenario!r} has the actions {', '.join(names)}, the world {', '.join(game.action_names)}: "
            "starts need a scenario with the world's own"
        )
    return GameConfig(scenario, names, game.variable_names, game.frame_skip, game.resolution)
