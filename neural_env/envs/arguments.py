"""The arguments that the dream's environments share, checked once, without starting JAX."""

from __future__ import annotations

import re
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from neural_env.game import TICS_PER_SECOND, GameConfig

if TYPE_CHECKING:
    from neural_env.envs.dials import Dials

CONTEXT_NOISE_MAX = 0.7  # the highest level that training shows (`world.conditioning`, not imported: it starts JAX)
TEMPERATURE_MAX = 2.0
OBSERVATIONS = ("rgb", "latent", "dict")
TERMINATIONS = ("sample", "threshold", "never")  # those of `envs.dials`
_TIME_LIMIT = 60 * TICS_PER_SECOND  # tics: the cap of World Models' take_cover score


@dataclass(frozen=True)
class World:
    """What a checkpoint says of its world before its weights are read."""

    checkpoint: str  # bundled name or folder
    game: GameConfig
    context_length: int  # past frames that it sees
    latent_shape: tuple[int, int, int]  # h, w, c
    can_be_guided: bool  # whether it was trained to dream without a past, too
    num_steps: int  # denoising steps a frame that suit it
    most_steps: int | None  # that it can make; None: any number


class Dial:
    """A number of the dream that may be turned between steps; what is set is checked.

    In a vector environment it may be an array with a number for each dream, if it is `by_row`.
    """

    def __init__(self, lowest: float, highest: float, *, by_row: bool = True):
        self._lowest, self._highest, self._by_row = lowest, highest, by_row

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name.lstrip("_")
        self._place = f"_dial_{self._name}"

    def __get__(self, env: Any, owner: type | None = None) -> Any:
        if env is None:
            return self
        value = env.__dict__[self._place]
        return value.copy() if isinstance(value, np.ndarray) else value

    def __set__(self, env: Any, value: Any) -> None:
        env.__dict__[self._place] = self._checked(value, getattr(env, "num_envs", None) if self._by_row else None)

    def _checked(self, value: Any, rows: int | None) -> Any:
        allowed = f"in [{self._lowest:g}, {self._highest:g}]" + (f", one or {rows} of them" if rows else "")
        try:
            given = np.array(value, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self._name} must be {allowed}, got {value!r}") from error
        if given.shape not in ((), (rows,)) or not ((given >= self._lowest) & (given <= self._highest)).all():
            raise ValueError(f"{self._name} must be {allowed}, got {value!r}")
        return given if given.shape else float(given)


class Dialled:
    """The dials of a dream as attributes of an environment: `env.unwrapped.context_noise = 0.3`."""

    context_noise = Dial(0, CONTEXT_NOISE_MAX)
    temperature = Dial(0, TEMPERATURE_MAX)
    _guidance = Dial(1, np.inf, by_row=False)

    world: World
    num_steps: int
    _termination: str
    _limit: int | None

    @property
    def termination(self) -> str:
        """When an episode ends: "sample", "threshold" or "never"; another one compiles the step anew."""
        return self._termination

    @termination.setter
    def termination(self, when: str) -> None:
        one_of("termination", when, TERMINATIONS)
        self._termination = when

    @property
    def max_episode_steps(self) -> int | None:
        """Steps that an episode has at most; None, which -1 is too: no limit."""
        return self._limit

    @max_episode_steps.setter
    def max_episode_steps(self, steps: int | None) -> None:
        self._limit = None if steps is None else _limit(steps)

    @property
    def guidance(self) -> float:
        """Weight of the past frames, at least 1, which is none."""
        return float(self._guidance)

    @guidance.setter
    def guidance(self, weight: float) -> None:
        self._guidance = weight
        if self.guidance != 1 and not self.world.can_be_guided:
            self._guidance = 1.0
            raise ValueError(
                f"guidance must be 1 in this world, got {weight}: it never learned to dream without a past. Train one "
                "with UNetConfig.context_dropout = 0.1"
            )

    def dials(self) -> Dials:
        """The dials as `envs.core` takes them."""
        from neural_env.envs.dials import Dials

        return Dials(
            context_noise=self.context_noise,
            guidance=self.guidance if self.world.can_be_guided else None,
            temperature=self.temperature,
            num_steps=self.num_steps,
            termination=self.termination,  # type: ignore[arg-type]  # checked
        )

    def _turn(
        self, num_steps: int | None, context_noise: float, guidance: float, temperature: float, termination: str
    ) -> None:
        """Sets all, once `world` is known."""
        num_steps = self.world.num_steps if num_steps is None else num_steps
        if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
            raise ValueError(f"num_steps must be an integer of at least 1, got {num_steps!r}")
        if self.world.most_steps is not None and num_steps > self.world.most_steps:
            raise ValueError(f"num_steps must be at most {self.world.most_steps} in this world, got {num_steps}")
        self.num_steps, self.termination = num_steps, termination
        self.context_noise, self.guidance, self.temperature = context_noise, guidance, temperature


def refuse_unknown(kind: type, unknown: dict[str, Any]) -> None:
    """Raises `TypeError`, with the arguments that there are, if any is unknown.

    In Python's own words, which TorchRL's `GymEnv` looks for: it tries every environment with `frameskip` first.
    """
    for name in unknown:
        known = [n for n, p in signature(kind).parameters.items() if p.kind is not Parameter.VAR_KEYWORD]
        raise TypeError(f"{kind.__name__} got an unexpected keyword argument {name!r}; it has {', '.join(known)}")


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises `ValueError` for what is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_device(device: str | None) -> None:
    """Raises `ValueError` for what is no name of a device; whether there is one is seen at the first reset."""
    if device is not None and not (isinstance(device, str) and re.fullmatch(r"[a-z]+(:\d+)?", device)):
        raise ValueError(f'device must be None or a name like "cpu", "gpu:0" or "tpu", got {device!r}')


def time_limit(max_episode_steps: int | None, game: GameConfig) -> int | None:
    """Steps that an episode has at most; None: as many as it likes.

    Args:
        max_episode_steps: None: 2100 tics, which are 525 steps at frame skip 4; -1, as in `gym.make`: no limit.
        game: whose steps they are.

    Raises:
        ValueError: another number below 1, or none at all.
    """
    return max(1, _TIME_LIMIT // game.frame_skip) if max_episode_steps is None else _limit(max_episode_steps)


def _limit(steps: int) -> int | None:
    if isinstance(steps, bool) or not isinstance(steps, int) or (steps < 1 and steps != -1):
        raise ValueError(f"max_episode_steps must be an integer of at least 1, or -1, got {steps!r}")
    return None if steps == -1 else steps


def read_world(scenario: str | None, checkpoint: str | None, frame_skip: int | None) -> World:
    """The world that is meant.

    Raises:
        CheckpointError: an unusable checkpoint.
        ValueError: a scenario without a bundled world, or an argument at odds with the world.
    """
    from neural_env.checkpoint import read_game, read_model

    name = str(checkpoint) if checkpoint else _bundled(scenario or "take_cover")
    game, model = read_game(name), read_model(name)
    if scenario not in (None, game.scenario):
        raise ValueError(f"this world dreams {game.scenario!r}, not {scenario!r}: leave scenario out, or load another")
    if frame_skip not in (None, game.frame_skip):
        raise ValueError(f"this world was trained at frame_skip {game.frame_skip}, not {frame_skip}: leave it out")
    shape = (*model.autoencoder.grid(game.resolution), model.autoencoder.channels)
    can_be_guided = model.unet.context_dropout > 0
    return World(name, game, model.unet.context, shape, can_be_guided, model.num_steps, model.objective.most_steps)


def observation_space(observation: str, world: World) -> gym.Space[Any]:
    """The space of the observations of one dream.

    "dict" is that of ViZDoom's own Gymnasium wrapper: `screen`, and `gamevariables` if there are any.
    """
    game, limits = world.game, np.finfo(np.float32)
    lowest, highest = float(limits.min), float(limits.max)
    screen = gym.spaces.Box(0, 255, (*game.resolution, 3), np.uint8)
    if observation == "latent":
        return gym.spaces.Box(lowest, highest, world.latent_shape, np.float32)
    if observation == "rgb":
        return screen
    count = len(game.variable_names)
    numbers = gym.spaces.Box(lowest, highest, (count,), np.float32)
    return gym.spaces.Dict({"screen": screen, "gamevariables": numbers} if count else {"screen": screen})


def _bundled(scenario: str) -> str:
    from neural_env import bundled

    worlds = bundled.scenarios()
    if scenario not in worlds:
        raise ValueError(
            f"there is no bundled world of scenario {scenario!r}, only of {sorted(worlds)}: choose one of these, or "
            "train a world and give its folder as checkpoint"
        )
    return worlds[scenario]
