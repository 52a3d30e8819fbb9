"""EDM: preconditioning, noise distribution and loss (Karras et al. 2022, arXiv 2206.00364, table 1).

The denoiser D(x; sigma) is the network F between fixed scalings, chosen so that what F sees and what F must produce
have unit variance at every noise level. The loss is the error of D itself, in x0-space, never of the noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neural_env.arrays import Key, Latent

SIGMA_DATA = 1.0  # latents are standardised


@dataclass(frozen=True)
class NoiseConfig:
    """Which noise levels training draws and sampling visits."""

    log_mean: float = 1.0  # of ln(sigma): a few-step sampler lives at high noise, hence above Karras' -1.2
    log_std: float = 1.4
    sigma_min: float = 0.02
    sigma_max: float = 20.0
    rho: float = 7.0  # Karras eq. 5: bends the sampler's levels towards sigma_min


@runtime_checkable
class Denoiser(Protocol):
    """D(x; sigma): the estimate of the clean latent [b, h, w, c] from a noised one at levels sigma [b]."""

    def __call__(self, x: Latent, sigma: Float[Array, " b"]) -> Latent:
        """Returns the estimate."""
        ...


@runtime_checkable
class Network(Protocol):
    """F(x, c_noise): the raw network, conditioning already bound."""

    def __call__(self, x: Latent, c_noise: Float[Array, " b"]) -> Latent:
        """Returns the raw output."""
        ...


def precondition(network: Network) -> Denoiser:
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) (Karras eq. 7, table 1)."""

    def denoise(x: Latent, sigma: Float[Array, " b"]) -> Latent:
        s = sigma[:, None, None, None]
        c_skip = SIGMA_DATA**2 / (s**2 + SIGMA_DATA**2)
        c_out = s * SIGMA_DATA / jnp.sqrt(s**2 + SIGMA_DATA**2)
        c_in = 1 / jnp.sqrt(s**2 + SIGMA_DATA**2)
        c_noise = jnp.log(sigma) / 4
        return c_skip * x + c_out * network(c_in * x, c_noise)

    return denoise


def sample_sigma(key: Key, batch: int, config: NoiseConfig) -> Float[Array, " b"]:
    """Training noise levels: ln(sigma) is normal, cut to the sampler's range."""
    sigma = jnp.exp(config.log_mean + config.log_std * jax.random.normal(key, (batch,)))
    return jnp.clip(sigma, config.sigma_min, config.sigma_max)


def loss_weight(sigma: Float[Array, " b"]) -> Float[Array, " b"]:
    """Weight of the squared x0 error: Karras' 1/c_out^2, capped.

    Uncapped, it makes the errors of F count alike, so a quarter of all effort goes into noise too small to see.
    """
    return jnp.minimum((sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2, 5.0)


def denoising_loss(
    denoise: Denoiser, key: Key, x0: Latent, sigma: Float[Array, " b"], channel_weight: Float[Array, " c"]
) -> Float[Array, " b"]:
    """Weighted squared error of D in x0-space, one number an item of the batch (Karras eq. 2 and 8).

    `channel_weight` (mean 1) says how much a unit of error in each channel shows in the decoded pixels.
    """
    noise = jax.random.normal(key, x0.shape)
    error = jnp.square(denoise(x0 + sigma[:, None, None, None] * noise, sigma) - x0)
    return loss_weight(sigma) * (error * channel_weight).mean(axis=(1, 2, 3))
