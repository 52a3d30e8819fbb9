"""Sampling in a few steps: Euler's method on the probability-flow ODE, one `lax.scan`; the denoiser is just a function.

With one step, the sample is D(sigma_max noise; sigma_max): the conditional mean of the next latent.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neural_env.arrays import Key, Latent
from neural_env.world.diffusion import Denoiser, NoiseConfig


def noise_levels(num_steps: int, config: NoiseConfig) -> Float[Array, " {num_steps}+1"]:
    """sigma_max = s_0 > ... > s_steps = 0 (Karras eq. 5)."""
    ramp = jnp.arange(num_steps) / max(num_steps - 1, 1)
    high, low = config.sigma_max ** (1 / config.rho), config.sigma_min ** (1 / config.rho)
    return jnp.append((high + ramp * (low - high)) ** config.rho, 0.0)


def sample(
    denoise: Denoiser,
    key: Key,
    shape: tuple[int, ...],
    num_steps: int,
    config: NoiseConfig,
    temperature: float | Float[Array, ""] = 1.0,
) -> Latent:
    """Draws latents of `shape` [b, h, w, c] with `num_steps` evaluations of `denoise`.

    The flow is a function of the noise that it begins at; `temperature` scales that noise's deviation, which is the
    reduced temperature of flow models (Kingma and Dhariwal 2018, arXiv 1807.03039, section 6). At 0 nothing is drawn.
    """
    levels = noise_levels(num_steps, config)

    def euler_step(x: Latent, pair: tuple[Array, Array]) -> tuple[Latent, None]:
        here, there = pair
        x0 = denoise(x, jnp.full(shape[0], here))
        return x0 + (x - x0) * (there / here), None  # Karras algorithm 1, lines 4 and 5, in x0 form

    start = temperature * (levels[0] * jax.random.normal(key, shape))
    return jax.lax.scan(euler_step, start, (levels[:-1], levels[1:]))[0]
