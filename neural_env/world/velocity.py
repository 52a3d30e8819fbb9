"""v-prediction on latent diffusion's schedule: GameNGen's objective (section 3.2; Salimans and Ho 2022, 2202.00512).

x = alpha x0 + sigma noise, alpha^2 + sigma^2 = 1; the network predicts v = alpha noise - sigma x0. On standardised
latents that is EDM's preconditioning to the letter, in other units (x / alpha, sigma / alpha); what differs is which
noise levels are drawn and that all errors of v count alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from neural_env.arrays import Key, Latent
from neural_env.world.objective import Denoiser, Network
from neural_env.world.sampler import ddim


@dataclass(frozen=True)
class VPrediction:
    """The scaled-linear schedule: sqrt(beta) rises evenly (Rombach et al. 2022, arXiv 2112.10752, their code)."""

    tells_step: ClassVar[bool] = False

    kind: Literal["v"] = "v"
    times: int = 1000  # noise levels of training; a sampler visits some of them
    beta_first: float = 0.00085
    beta_last: float = 0.012

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ValueError(f"times must be at least 1, got {self.times}")
        if not 0 < self.beta_first <= self.beta_last < 1:
            raise ValueError(f"betas must rise within (0, 1), got {self.beta_first} to {self.beta_last}")

    @property
    def most_steps(self) -> int:
        """One for each noise level."""
        return self.times

    def loss(self, network: Network, key: Key, x0: Latent, channel_weight: Float[Array, " c"]) -> Float[Array, " b"]:
        """||v_hat - v||^2 at times drawn evenly (GameNGen section 3.2)."""
        key_time, key_noise = jax.random.split(key)
        bars = alpha_bars(self)[jax.random.randint(key_time, (len(x0),), 0, self.times)]
        alpha, sigma = alpha_sigma(bars)
        noise = jax.random.normal(key_noise, x0.shape)
        v = alpha * noise - sigma * x0
        error = jnp.square(velocity(network)(alpha * x0 + sigma * noise, bars) - v)
        return (error * channel_weight).mean(axis=(1, 2, 3))

    def sample(
        self,
        network: Network,
        key: Key,
        shape: tuple[int, ...],
        num_steps: int,
        temperature: float | Float[Array, ""] = 1.0,
    ) -> Latent:
        """DDIM, from the noisiest time on."""
        if num_steps > self.times:
            raise ValueError(f"there are {self.times} noise levels: num_steps must be at most that, got {num_steps}")
        bars = alpha_bars(self)[visited(num_steps, self)]
        return ddim(denoiser(network), key, shape, jnp.append(bars, 1.0), temperature)

    def as_flow(self) -> VPrediction:
        """DDIM as it is here is one."""
        return self


def velocity(network: Network) -> Denoiser:
    """v_hat(x; alpha_bar) = -F, told ln(sigma / alpha) / 4 as EDM's network is.

    The sign, because the U-Net begins as a copy of the last frame, and of pure noise v is -x0: so the first guess is
    good here, too.
    """
    return lambda x, bars: -network(x, jnp.log(1 / bars - 1) / 8)


def denoiser(network: Network) -> Denoiser:
    """D(x; alpha_bar) = alpha x - sigma v_hat (Salimans and Ho 2022, appendix D)."""

    def denoise(x: Latent, bars: Float[Array, " b"]) -> Latent:
        alpha, sigma = alpha_sigma(bars)
        return alpha * x - sigma * velocity(network)(x, bars)

    return denoise


def alpha_sigma(bars: Float[Array, " b"]) -> tuple[Float[Array, "b 1 1 1"], Float[Array, "b 1 1 1"]]:
    """Scales of signal and noise where `bars` is the signal's share of the variance."""
    bars = bars[:, None, None, None]
    return jnp.sqrt(bars), jnp.sqrt(1 - bars)


def alpha_bars(config: VPrediction) -> Float[Array, " times"]:
    """alpha_bar_t, the product of 1 - beta up to t: the signal's share of the variance, from nearly 1 to nearly 0."""
    betas = jnp.linspace(config.beta_first**0.5, config.beta_last**0.5, config.times) ** 2
    return jnp.cumprod(1 - betas)


def visited(num_steps: int, config: VPrediction) -> Int32[Array, " {num_steps}"]:
    """Times that the sampler visits, the noisiest first (Lin et al. 2023, arXiv 2305.08891, table 2: trailing)."""
    return jnp.round(config.times * (1 - jnp.arange(num_steps) / num_steps)).astype(jnp.int32) - 1
