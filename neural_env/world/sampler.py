"""Samplers: each one `lax.scan` that sees the model as a function.

The noise that a sampler begins at comes from its key and the shape alone. `temperature` scales the deviation of all
noise that it draws, which is the reduced temperature of flow models (Kingma and Dhariwal 2018, arXiv 1807.03039,
section 6). At 0 nothing is drawn.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neural_env.arrays import Key, Latent
from neural_env.world.objective import Denoiser


@runtime_checkable
class Shortcuts(Protocol):
    """x1(x; tau, d): the clean latent towards which a step of length d [b] from time tau [b] goes straight."""

    def __call__(self, x: Latent, tau: Float[Array, " b"], d: Float[Array, " b"], /) -> Latent:
        """Returns the estimate [b, h, w, c]."""
        ...


def euler(
    denoise: Denoiser,
    key: Key,
    shape: tuple[int, ...],
    levels: Float[Array, " levels"],
    temperature: float | Float[Array, ""] = 1.0,
) -> Latent:
    """Euler's method on the probability-flow ODE along falling noise `levels` sigma, the last 0.

    With one step, the sample is D(sigma_max noise; sigma_max): the conditional mean of the next latent.
    """

    def step(x: Latent, pair: tuple[Array, Array]) -> tuple[Latent, None]:
        here, there = pair
        x0 = denoise(x, jnp.full(shape[0], here))
        return x0 + (x - x0) * (there / here), None  # Karras algorithm 1, lines 4 and 5, in x0 form

    start = temperature * (levels[0] * jax.random.normal(key, shape))
    return jax.lax.scan(step, start, (levels[:-1], levels[1:]))[0]


def ancestral(
    denoise: Denoiser,
    key: Key,
    shape: tuple[int, ...],
    levels: Float[Array, " levels"],
    eta: float,
    temperature: float | Float[Array, ""] = 1.0,
) -> Latent:
    """`euler` that renews a part of the noise at each step: none at `eta` 0, all that keeps the marginals at 1.

    What the first steps got wrong is drowned in the fresh noise and denoised anew. Song et al. 2021 (arXiv 2010.02502,
    eqs. 12 and 16) in units of sigma = sqrt(1 - alpha_bar) / sqrt(alpha_bar).
    """

    def step(x: Latent, row: tuple[Array, Array, Array]) -> tuple[Latent, None]:
        here, there, index = row
        x0 = denoise(x, jnp.full(shape[0], here))
        fresh = eta * there * jnp.sqrt(1 - (there / here) ** 2)  # eq. 16
        kept = jnp.sqrt(there**2 - fresh**2)
        noise = jax.random.normal(jax.random.fold_in(key, index), shape)
        return x0 + (x - x0) * (kept / here) + temperature * fresh * noise, None

    start = temperature * (levels[0] * jax.random.normal(key, shape))
    return jax.lax.scan(step, start, (levels[:-1], levels[1:], jnp.arange(len(levels) - 1)))[0]


def ddim(
    denoise: Denoiser,
    key: Key,
    shape: tuple[int, ...],
    alpha_bars: Float[Array, " levels"],
    temperature: float | Float[Array, ""] = 1.0,
) -> Latent:
    """DDIM (Song et al. 2021, arXiv 2010.02502, eq. 12 with sigma_t = 0), in any number of steps.

    `alpha_bars`, the signal's share of the variance, rise; the last is 1.
    """

    def step(x: Latent, pair: tuple[Array, Array]) -> tuple[Latent, None]:
        here, there = pair
        x0 = denoise(x, jnp.full(shape[0], here))
        noise = (x - jnp.sqrt(here) * x0) / jnp.sqrt(1 - here)
        return jnp.sqrt(there) * x0 + jnp.sqrt(1 - there) * noise, None

    start = temperature * jax.random.normal(key, shape)
    return jax.lax.scan(step, start, (alpha_bars[:-1], alpha_bars[1:]))[0]


def few_step(
    predict: Shortcuts,
    key: Key,
    shape: tuple[int, ...],
    num_steps: int,
    temperature: float | Float[Array, ""] = 1.0,
) -> Latent:
    """`num_steps` equal shortcuts from noise at tau = 0 to data at tau = 1 (Frans et al. 2024, arXiv 2410.12557)."""
    d = 1 / num_steps

    def step(x: Latent, tau: Array) -> tuple[Latent, None]:
        x1 = predict(x, jnp.full(shape[0], tau), jnp.full(shape[0], d))
        return x + (x1 - x) * (d / (1 - tau)), None  # the velocity of x-prediction: Dreamer 4 (2509.24527), eq. 7

    start = temperature * jax.random.normal(key, shape)
    return jax.lax.scan(step, start, d * jnp.arange(num_steps))[0]
