"""Shortcut forcing: a flow whose steps know how long they are, distilled into itself as it trains.

After Dreamer 4 (Hafner et al. 2025, arXiv 2509.24527, section 3.2) and shortcut models (Frans et al. 2024, arXiv
2410.12557). x_tau = (1 - tau) noise + tau x1; the network predicts the clean x1, told tau and the length d of the
step. At the shortest step it learns the flow itself, at longer ones that one step must land where two half steps do.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neural_env.arrays import Key, Latent
from neural_env.world.objective import Network
from neural_env.world.sampler import Shortcuts, few_step


@dataclass(frozen=True)
class Shortcut:
    """How finely the flow is cut, and how much of a batch learns to skip."""

    tells_step: ClassVar[bool] = True

    kind: Literal["shortcut"] = "shortcut"
    halvings: int = 6  # the shortest step is 2^-6: Dreamer 4's K_max of 64
    skipping: float = 0.25  # share of a batch that learns double steps; the rest learns the flow

    def __post_init__(self) -> None:
        if self.halvings < 1:
            raise ValueError(f"halvings must be at least 1, got {self.halvings}: without one there is nothing to skip")
        if not 0 < self.skipping < 1:
            raise ValueError(f"skipping is a share of the batch within (0, 1), got {self.skipping}")

    @property
    def most_steps(self) -> int:
        """Of the shortest length that was trained."""
        return int(2**self.halvings)

    def loss(self, network: Network, key: Key, x0: Latent, channel_weight: Float[Array, " c"]) -> Float[Array, " b"]:
        """The flow's loss, and in the batch's first items that of a double step (Dreamer 4, eqs. 4, 7 and 8)."""
        key_step, key_time, key_noise = jax.random.split(key, 3)
        skipping = ceil(self.skipping * len(x0))  # the first ones: items of a batch come in no order
        flows = jnp.arange(len(x0)) >= skipping
        halvings = jnp.where(flows, self.halvings, jax.random.randint(key_step, (len(x0),), 0, self.halvings))
        d = 2.0**-halvings
        tau = d * jnp.floor(jax.random.uniform(key_time, (len(x0),)) / d)  # eq. 4: a step never passes 1
        x = _cube(1 - tau) * jax.random.normal(key_noise, x0.shape) + _cube(tau) * x0
        predict = self.shortcuts(network)
        target = landing(predict, x[:skipping], tau[:skipping], d[:skipping])
        target = jnp.concatenate([jax.lax.stop_gradient(target), x0[skipping:]])
        error = jnp.square(predict(x, tau, d) - target)
        return ramp(tau) * (error * channel_weight).mean(axis=(1, 2, 3))

    def sample(
        self,
        network: Network,
        key: Key,
        shape: tuple[int, ...],
        num_steps: int,
        temperature: float | Float[Array, ""] = 1.0,
    ) -> Latent:
        """Equal steps. Powers of two are what training drew; between them, the network must guess."""
        if num_steps > self.most_steps:
            shortest = f"the shortest step that was trained is 1/{self.most_steps}"
            raise ValueError(f"{shortest}: num_steps must be at most {self.most_steps}, got {num_steps}")
        return few_step(self.shortcuts(network), key, shape, num_steps, temperature)

    def as_flow(self) -> Shortcut:
        """It is one."""
        return self

    def shortcuts(self, network: Network) -> Shortcuts:
        """The network as a function of time and step: F is the clean latent itself, and both are told within [0, 1]."""
        return lambda x, tau, d: network(x, tau, -jnp.log2(d) / self.halvings)


def landing(predict: Shortcuts, x: Latent, tau: Float[Array, " b"], d: Float[Array, " b"]) -> Latent:
    """The clean latent towards which one step of length d must go, to end where two of d / 2 end (Dreamer 4, eq. 7).

    The equation compares mean velocities (x1 - x) / (1 - tau) and multiplies by (1 - tau)^2: the same in x-space.
    """
    half = d / 2
    first = (predict(x, tau, half) - x) / _cube(1 - tau)  # b'
    middle = x + first * _cube(half)
    second = (predict(middle, tau + half, half) - middle) / _cube(1 - tau - half)  # b''
    return x + (first + second) / 2 * _cube(1 - tau)


def ramp(tau: Float[Array, " b"]) -> Float[Array, " b"]:
    """Weight 0.9 tau + 0.1: where there is more signal, there is more to learn (Dreamer 4, eq. 8)."""
    return 0.9 * tau + 0.1


def _cube(x: Float[Array, " b"]) -> Float[Array, "b 1 1 1"]:
    return x[:, None, None, None]
