"""What a denoiser is trained to do and how it is then sampled: one interface, one small object for each way.

    network F  --objective.loss-->    a number for each item of a batch, to minimise
               --objective.sample-->  the next latents, from noise

The network is just a function, its past and actions already bound. Four objectives exist: `EDM`, `VPrediction`,
`Shortcut`, and `Distilled`, which is any of them after `neural-env train distill`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float

from neural_env.arrays import Key, Latent


@runtime_checkable
class Network(Protocol):
    """F: the raw network, conditioning already bound; what its output means is the objective's affair.

    Given fewer items than conditions were bound, it takes the first items' conditions.
    """

    def __call__(self, x: Latent, c_noise: Float[Array, " b"], c_step: Float[Array, " b"] | None = None, /) -> Latent:
        """Returns the raw output for `x` [b, h, w, c].

        `c_noise`, of order 1, says how noisy `x` is; `c_step` how far the sampler is about to go, to a network that was
        built to be told (`Objective.tells_step`).
        """
        ...


@runtime_checkable
class Denoiser(Protocol):
    """D: the estimate of the clean latent [b, h, w, c] from a noised one, at the noise that `level` [b] stands for."""

    def __call__(self, x: Latent, level: Float[Array, " b"], /) -> Latent:
        """Returns the estimate."""
        ...


class Objective(Protocol):
    """A way to train a network and to sample from it. A frozen dataclass, part of a world's configuration."""

    @property
    def tells_step(self) -> bool:
        """Whether the network is told the length of the sampler's step."""
        ...

    @property
    def most_steps(self) -> int | None:
        """The most steps that a sample can be drawn in; None: any number."""
        ...

    def loss(self, network: Network, key: Key, x0: Latent, channel_weight: Float[Array, " c"]) -> Float[Array, " b"]:
        """The loss of each item, for clean latents `x0` [b, h, w, c].

        `channel_weight` (mean 1) says how much a unit of error in each channel shows in the decoded pixels.
        """
        ...

    def sample(
        self,
        network: Network,
        key: Key,
        shape: tuple[int, ...],
        num_steps: int,
        temperature: float | Float[Array, ""] = 1.0,
    ) -> Latent:
        """Draws latents of `shape` [b, h, w, c] with `num_steps` evaluations of the network.

        The noise that the sampler begins at is a function of `key` and `shape` alone, whatever the number of steps:
        that is what a one-step student shares with its teacher. `temperature` scales all noise drawn; at 0 there is
        none.

        Raises:
            ValueError: the objective can't be sampled in so many steps.
        """
        ...

    def as_flow(self) -> Objective:
        """The same with a sampler that draws nothing after its first noise: equal noise, equal sample."""
        ...
