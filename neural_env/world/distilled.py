"""A world after `neural-env train distill`: its network draws a whole sample in one evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from jaxtyping import Array, Float

from neural_env.arrays import Key, Latent
from neural_env.world.diffusion import EDM
from neural_env.world.objective import Network
from neural_env.world.shortcut import Shortcut
from neural_env.world.velocity import VPrediction


@dataclass(frozen=True)
class Distilled:
    """The objective that the teacher was trained with, and one step of its sampler."""

    most_steps: ClassVar[int | None] = 1

    kind: Literal["distilled"] = "distilled"
    teacher: EDM | VPrediction | Shortcut = field(default_factory=EDM)

    @property
    def tells_step(self) -> bool:
        """As the teacher's network, which the student's began as."""
        return self.teacher.tells_step

    def loss(self, network: Network, key: Key, x0: Latent, channel_weight: Float[Array, " c"]) -> Float[Array, " b"]:
        """A student has no loss against data.

        Raises:
            ValueError: always.
        """
        raise ValueError("a distilled network learns from its teacher alone: train the teacher and distil it again")

    def sample(
        self,
        network: Network,
        key: Key,
        shape: tuple[int, ...],
        num_steps: int,
        temperature: float | Float[Array, ""] = 1.0,
    ) -> Latent:
        """One evaluation, from the noise that the teacher would have begun at.

        Raises:
            ValueError: more than one step.
        """
        if num_steps != 1:
            raise ValueError(f"this world was distilled to one step and has unlearned more: num_steps is {num_steps}")
        return self.teacher.sample(network, key, shape, 1, temperature)

    def as_flow(self) -> Distilled:
        """One step draws noise once."""
        return self
