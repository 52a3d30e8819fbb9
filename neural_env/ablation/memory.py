"""A long, thin past: a few frames of long ago beside the last ones, whole or as a blur.

What the last four frames have forgotten may still be true: what is behind the player's back, where the fight began. The
frames lie 8, 16, 32 steps back, so that three of them reach as far as thirty-two in a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32

from neural_env.game import GameConfig
from neural_env.world.model import ModelConfig, WorldModel
from neural_env.world.objective import Network
from neural_env.world.unet import UNet


class SparsePast(nnx.Module):
    """A U-Net that is shown the last `recent` frames of a long past, and those of the `ages` before them."""

    def __init__(self, unet: UNet, recent: int, ages: tuple[int, ...], grid: tuple[int, int] | None):
        self.unet = unet
        self.context_dropout = unet.context_dropout
        self.places = tuple(-age for age in (*sorted(ages, reverse=True), *range(recent, 0, -1)))
        self.old = len(ages)
        self.grid = grid

    def bound(
        self,
        context: Float[Array, "b n h w c"],
        actions: Int32[Array, "b n"],
        levels: Float[Array, "b n"],
        present: Bool[Array, " b"] | None = None,
    ) -> Network:
        """`UNet.bound`, of the frames that are looked at."""
        places = jnp.array(self.places)
        seen = context[:, places]
        if self.grid is not None:
            seen = jnp.concatenate([_blurred(seen[:, : self.old], self.grid), seen[:, self.old :]], axis=1)
        network: Network = self.unet.bound(seen, actions[:, places], levels[:, places], present)
        return network


def _blurred(frames: Float[Array, "b n h w c"], grid: tuple[int, int]) -> Float[Array, "b n h w c"]:
    """The frames as means over a coarse grid, which is all that an environment would have to keep of them."""
    b, n, _, _, c = frames.shape
    coarse = jax.image.resize(frames, (b, n, *grid, c), "linear")
    blurred: jax.Array = jax.image.resize(coarse, frames.shape, "nearest")
    return blurred


@dataclass(frozen=True)
class Remembering:
    """Builds worlds whose denoiser sees a sparse past; the rest of them is as it was, and so is what they cost."""

    ages: tuple[int, ...]  # steps back; 1 is the present frame
    grid: tuple[int, int] | None = None  # height and width that the old frames are averaged to; None: whole

    def __call__(self, model: ModelConfig, game: GameConfig, seed: int) -> WorldModel:
        """An untrained world, whose context is as long as the oldest age.

        Raises:
            ValueError: an age that lies within the recent frames.
        """
        recent = model.unet.context
        if min(self.ages) <= recent:
            cure = "which the model sees anyway: choose older ones, or a preset or checkpoint with a shorter context"
            raise ValueError(f"the ages {self.ages} must lie before the last {recent} frames, {cure}")
        longer = replace(model, unet=replace(model.unet, context=recent + len(self.ages)))
        world = WorldModel(longer, game, rngs=nnx.Rngs(seed))
        sparse = SparsePast(world.unet, recent, self.ages, self.grid)
        world.unet = sparse  # type: ignore[assignment]
        world.context = max(self.ages)
        return world
