"""The latent U-Net: the noised next latent and the past latents, stacked in channels, to the raw estimate F."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32

from neural_env.arrays import Latent
from neural_env.world.conditioning import Conditioner
from neural_env.world.layers import ModulatedBlock, Position, conv, resize_to, zero_conv


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the denoiser."""

    context: int = 4  # past frames seen, and actions: those between them and the one that leads to the next frame
    widths: tuple[int, ...] = (96, 144, 128)  # features at full, half, quarter latent resolution
    blocks: int = 2  # residual blocks a level, on the way down and again on the way up
    embedding: int = 192  # features of the conditioning vector
    context_dropout: float = 0.0  # share of training items without a past; 0.1 makes `guidance` possible (GameNGen 3.2)


class UNet(nnx.Module):
    """F(x, c_noise; context, actions, levels)."""

    def __init__(self, config: UNetConfig, grid: tuple[int, int], channels: int, num_actions: int, *, rngs: nnx.Rngs):
        widths, e = config.widths, config.embedding
        self.context_dropout = config.context_dropout
        self.conditioner = Conditioner(
            num_actions, config.context, grid, channels, e, without_past=config.context_dropout > 0, rngs=rngs
        )
        self.stem = conv(channels * (config.context + 1), widths[0], rngs=rngs)
        self.position = Position(grid, widths[0], rngs=rngs)
        self.down = nnx.List(
            [nnx.List([ModulatedBlock(width, width, e, rngs=rngs) for _ in range(config.blocks)]) for width in widths]
        )
        self.shrink = nnx.List([conv(wide, narrow, stride=2, rngs=rngs) for wide, narrow in pairwise(widths)])
        self.grow = nnx.List([conv(narrow, wide, size=1, rngs=rngs) for wide, narrow in pairwise(widths)])
        self.up = nnx.List(
            [
                nnx.List(
                    [ModulatedBlock(width * (2 if i == 0 else 1), width, e, rngs=rngs) for i in range(config.blocks)]
                )
                for width in widths[:-1]
            ]
        )
        self.norm = nnx.RMSNorm(widths[0], rngs=rngs)
        self.head = zero_conv(widths[0], channels, rngs=rngs)
        # Most of the next frame is the last one: the network starts from it and learns the change. The gain depends
        # on the noise levels, because F must not pass a noisy frame on.
        self.keep = nnx.Linear(
            e, channels, kernel_init=nnx.initializers.zeros, bias_init=nnx.initializers.ones, rngs=rngs
        )

    def __call__(
        self,
        x: Latent,
        c_noise: Float[Array, " b"],
        context: Float[Array, "b n h w c"],
        actions: Int32[Array, "b n"],
        levels: Float[Array, "b n"],
        present: Bool[Array, " b"] | None = None,
    ) -> Latent:
        """Returns F [b, h, w, c]; `context` is oldest first, `actions[:, -1]` leads to the frame being denoised.

        An item that is not `present` has no past: every context channel is zero and the gist and levels of them are
        replaced, all together; the actions stay. None: all have one.
        """
        if present is not None:
            context = jnp.where(present[:, None, None, None, None], context, 0.0)
        past = jnp.concatenate(jnp.moveaxis(context, 1, 0), axis=-1)
        embedding = self.conditioner(past, actions, c_noise, levels, present)
        h = self.position(self.stem(jnp.concatenate([x, past], axis=-1)))
        skips = []
        for i, blocks in enumerate(self.down):
            h = h if i == 0 else self.shrink[i - 1](h)
            for block in blocks:
                h = block(h, embedding)
            skips.append(h)
        for i in reversed(range(len(self.up))):
            skip = skips[i]
            h = jnp.concatenate([resize_to(self.grow[i](h), *skip.shape[1:3]), skip], axis=-1)
            for block in self.up[i]:
                h = block(h, embedding)
        change = self.head(nnx.silu(self.norm(h)))
        return change + self.keep(embedding)[:, None, None] * context[:, -1]
