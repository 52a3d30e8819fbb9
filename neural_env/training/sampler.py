"""Which levels a few steps are made at, chosen on validation windows; nothing is learnt.

The score is the energy score, mean |X - y| - mean |X - X'| / 2, of two draws X, X' and the truth y (Gneiting and
Raftery 2007, section 4.3): none is lower than the true distribution's. PSNR would choose what draws the mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from rich.progress import track

from neural_env.arrays import Latent
from neural_env.evaluation.frames import psnr
from neural_env.training.denoiser import channel_weight, decoded
from neural_env.training.latents import Windows
from neural_env.world.diffusion import EDM
from neural_env.world.model import WorldModel

_CHUNK = 32  # windows at a time


@dataclass(frozen=True)
class SamplerConfig:
    """What is tried."""

    num_steps: int = 2  # evaluations of the network a frame
    sigma_lasts: tuple[float, ...] = (0.02, 0.3, 0.5, 1.0, 1.5, 2.0, 3.0)  # levels of the last of them
    etas: tuple[float, ...] = (0.0, 1.0)  # shares of the noise that are renewed
    windows: int = 256  # of the validation split

    def __post_init__(self) -> None:
        if self.num_steps < 2:
            raise ValueError(f"one step has no level to choose: num_steps must be at least 2, got {self.num_steps}")
        if self.windows < _CHUNK:
            raise ValueError(f"windows must be at least {_CHUNK}, got {self.windows}")
        if not self.sigma_lasts or not self.etas:
            raise ValueError("there is nothing to try: give at least one of sigma_lasts and of etas")


class Score(NamedTuple):
    """Of one sampler, the mean over the windows."""

    sigma_last: float
    eta: float
    energy: float  # lower is better; in latent deviations, weighed by what shows in pixels
    psnr: float  # dB, of one draw against the auto-encoder's picture of the real latent
    spread: float  # deviation between two draws of one past, in latent deviations


def scored(world: WorldModel, validation: Windows, config: SamplerConfig) -> list[Score]:
    """The scores of everything that is tried, best first.

    Raises:
        ValueError: the world isn't an EDM world: others have no such dials.
    """
    objective = world.objective
    if not isinstance(objective, EDM):
        raise ValueError(f"only EDM worlds have levels to choose, this one's objective is {objective.kind!r}")
    batches = validation.evenly(_CHUNK, config.windows // _CHUNK)
    weight = channel_weight(world.autoencoder, batches[0]["latent"])
    tried = [replace(objective, sigma_last=last, eta=eta) for last, eta in product(config.sigma_lasts, config.etas)]
    scores = [_score(world, one, weight, batches, config.num_steps) for one in track(tried, "samplers")]
    return sorted(scores, key=lambda score: score.energy)


def _score(
    world: WorldModel, objective: EDM, weight: Float[Array, " c"], batches: list[dict[str, np.ndarray]], num_steps: int
) -> Score:
    @jax.jit
    def draw(world: WorldModel, key: Array, context: Array, actions: Array) -> Latent:
        network = world.network(context, actions, jnp.zeros(actions.shape))
        return objective.sample(network, key, (len(context), *world.latent_shape), num_steps)

    def measured() -> Iterator[tuple[float, float, float]]:
        for i, batch in enumerate(batches):
            keys = jax.random.split(jax.random.key(i))
            first, second = (draw(world, key, batch["context"], batch["actions"]) for key in keys)
            real = jnp.asarray(batch["latent"])
            shown, true = (decoded(world, latent) for latent in (first, real))
            spread = float((first - second).std()) / 2**0.5
            yield float(energy_score(first, second, real, weight).mean()), float(psnr(shown, true).mean()), spread

    return Score(objective.last, objective.eta, *map(float, np.mean(list(measured()), axis=0)))


def energy_score(first: Latent, second: Latent, real: Latent, weight: Float[Array, " c"]) -> Float[Array, " b"]:
    """mean(|X - y|, |X' - y|) - |X - X'| / 2, in root mean squares over the latent."""

    def distance(a: Latent, b: Latent) -> Float[Array, " b"]:
        return jnp.sqrt((jnp.square(a - b) * weight).mean(axis=(1, 2, 3)))

    return (distance(first, real) + distance(second, real) - distance(first, second)) / 2


def choice_of(scores: list[Score], config: SamplerConfig) -> dict[str, object]:
    """What the stage leaves: the choice, and everything that was tried."""
    best = scores[0]
    chosen = {"num_steps": config.num_steps, "sigma_last": best.sigma_last, "eta": best.eta}
    return {**chosen, "tried": [score._asdict() for score in scores], "config": asdict(config)}
