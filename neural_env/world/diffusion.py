"""EDM: preconditioning, noise distribution and loss (Karras et al. 2022, arXiv 2206.00364, table 1).

The denoiser D(x; sigma) is the network F between fixed scalings, chosen so that what F sees and what F must produce
have unit variance at every noise level. The loss is the error of D itself, in x0-space, never of the noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neural_env.arrays import Key, Latent
from neural_env.world.objective import Denoiser, Network
from neural_env.world.sampler import ancestral, euler

SIGMA_DATA = 1.0  # latents are standardised


@dataclass(frozen=True)
class EDM:
    """Which noise levels training draws and sampling visits; the last two are dials that no weight depends on.

    A world knows most of its next frame: what is open has a deviation far below 1, and a sampler decides it at levels
    of that size. `sigma_last` puts the last of a few steps there, instead of where there is nothing left to decide.

    At `sigma_max`, where play begins, training shows the network noise alone, as play does. Under 20 times its size in
    noise a bright missile can still be seen, and who sees it need not foretell it from the past (Lin et al. 2023, arXiv
    2305.08891: schedules whose last level isn't noise alone are flawed).
    """

    tells_step: ClassVar[bool] = False
    most_steps: ClassVar[int | None] = None

    kind: Literal["edm"] = "edm"
    log_mean: float = 1.0  # of ln(sigma): a few-step sampler lives at high noise, hence above Karras' -1.2
    log_std: float = 1.4
    first: float = 0.5  # share of training at sigma_max, beside what the distribution puts there
    sigma_min: float = 0.02  # the least noise of training
    sigma_max: float = 20.0  # the most, and where sampling begins
    rho: float = 7.0  # Karras eq. 5: bends the sampler's levels towards the last
    sigma_last: float | None = None  # level of the last of several steps; None: sigma_min
    eta: float = 0.0  # share of the noise that the sampler renews: 0 the flow, 1 ancestral

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min <= self.last < self.sigma_max:
            levels = f"sigma_min {self.sigma_min}, sigma_last {self.last}, sigma_max {self.sigma_max}"
            raise ValueError(f"noise levels must be positive and in this order, got {levels}")
        if not 0 <= self.first <= 1:
            raise ValueError(f"first is a share of training in [0, 1], got {self.first}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must be in [0, 1], got {self.eta}")

    @property
    def last(self) -> float:
        """Level of the sampler's last step, if it makes more than one."""
        return self.sigma_min if self.sigma_last is None else self.sigma_last

    def loss(self, network: Network, key: Key, x0: Latent, channel_weight: Float[Array, " c"]) -> Float[Array, " b"]:
        """Weighted error in x0-space at levels drawn by `sample_sigma`."""
        key_sigma, key_noise = jax.random.split(key)
        sigma = sample_sigma(key_sigma, len(x0), self)
        return denoising_loss(precondition(network), key_noise, x0, sigma, channel_weight, self.sigma_max)

    def sample(
        self,
        network: Network,
        key: Key,
        shape: tuple[int, ...],
        num_steps: int,
        temperature: float | Float[Array, ""] = 1.0,
    ) -> Latent:
        """Euler's method along `noise_levels`."""
        denoise, levels = precondition(network), noise_levels(num_steps, self)
        if self.eta == 0:
            return euler(denoise, key, shape, levels, temperature)
        return ancestral(denoise, key, shape, levels, self.eta, temperature)

    def as_flow(self) -> EDM:
        """The same with nothing renewed."""
        return replace(self, eta=0.0)


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


def noise_levels(num_steps: int, config: EDM) -> Float[Array, " {num_steps}+1"]:
    """sigma_max = s_0 > ... > s_(steps - 1) = sigma_last > s_steps = 0 (Karras eq. 5)."""
    ramp = jnp.arange(num_steps) / max(num_steps - 1, 1)
    high, low = config.sigma_max ** (1 / config.rho), config.last ** (1 / config.rho)
    return jnp.append((high + ramp * (low - high)) ** config.rho, 0.0)


def sample_sigma(key: Key, batch: int, config: EDM) -> Float[Array, " b"]:
    """Training noise levels: a share at the highest; else ln(sigma) is normal, cut to the sampler's range."""
    sigma = jnp.exp(config.log_mean + config.log_std * jax.random.normal(key, (batch,)))
    first = jax.random.bernoulli(jax.random.fold_in(key, 1), config.first, (batch,))
    return jnp.where(first, config.sigma_max, jnp.clip(sigma, config.sigma_min, config.sigma_max))


def loss_weight(sigma: Float[Array, " b"]) -> Float[Array, " b"]:
    """Weight of the squared x0 error: Karras' 1/c_out^2, capped.

    Uncapped, it makes the errors of F count alike, so a quarter of all effort goes into noise too small to see.
    """
    return jnp.minimum((sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2, 5.0)


def denoising_loss(
    denoise: Denoiser,
    key: Key,
    x0: Latent,
    sigma: Float[Array, " b"],
    channel_weight: Float[Array, " c"],
    sigma_max: float,
) -> Float[Array, " b"]:
    """Weighted squared error of D in x0-space, one number an item of the batch (Karras eq. 2 and 8).

    `channel_weight` (mean 1) says how much a unit of error in each channel shows in the decoded pixels. From
    `sigma_max` on, D is given noise alone.
    """
    level = sigma[:, None, None, None]
    shown = jnp.where(level < sigma_max, x0, 0.0)
    error = jnp.square(denoise(shown + level * jax.random.normal(key, x0.shape), sigma) - x0)
    return loss_weight(sigma) * (error * channel_weight).mean(axis=(1, 2, 3))
