"""The latent U-Net: the noised next latent and the past latents, stacked in channels, to the raw estimate F."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32

from neural_env.arrays import Latent
from neural_env.world.conditioning import AdaGN, CrossAttention, Listening, Sizes, Told
from neural_env.world.layers import Position, conv, resize_to, zero_conv
from neural_env.world.objective import Network


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the denoiser."""

    context: int = 4  # past frames seen, and actions: those between them and the one that leads to the next frame
    widths: tuple[int, ...] = (96, 144, 128)  # features at full, half, quarter latent resolution
    blocks: int = 2  # residual blocks a level, on the way down and again on the way up
    embedding: int = 192  # features of the conditioning vector
    context_dropout: float = 0.0  # share of training items without a past; 0.1 makes `guidance` possible (GameNGen 3.2)
    conditioning: AdaGN | CrossAttention = field(default_factory=AdaGN)  # how it is told the actions

    def __post_init__(self) -> None:
        if not 1 <= self.context <= 64:
            raise ValueError(f"a world sees 1 to 64 past frames, got context {self.context}")


class UNet(nnx.Module):
    """F(x, c_noise; context, actions, levels)."""

    def __init__(
        self,
        config: UNetConfig,
        grid: tuple[int, int],
        channels: int,
        num_actions: int,
        *,
        tells_step: bool = False,
        rngs: nnx.Rngs,
    ):
        widths, e, without_past = config.widths, config.embedding, config.context_dropout > 0
        self.context_dropout = config.context_dropout
        sizes = Sizes(num_actions, config.context, grid, channels, e, without_past, tells_step)
        self.conditioner: Listening = config.conditioning.build(sizes, rngs=rngs)
        block = partial(self.conditioner.block, rngs=rngs)
        self.stem = conv(channels * (config.context + 1), widths[0], rngs=rngs)
        self.position = Position(grid, widths[0], rngs=rngs)
        self.down = nnx.List([nnx.List([block(width, width) for _ in range(config.blocks)]) for width in widths])
        self.shrink = nnx.List([conv(wide, narrow, stride=2, rngs=rngs) for wide, narrow in pairwise(widths)])
        self.grow = nnx.List([conv(narrow, wide, size=1, rngs=rngs) for wide, narrow in pairwise(widths)])
        self.up = nnx.List(
            [
                nnx.List([block(width * (2 if i == 0 else 1), width) for i in range(config.blocks)])
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
        c_step: Float[Array, " b"] | None = None,
    ) -> Latent:
        """Returns F [b, h, w, c]; `context` is oldest first, `actions[:, -1]` leads to the frame being denoised.

        `c_noise` says how noisy `x` is, `c_step` to a network built to be told how long the sampler's step is.

        An item that is not `present` has no past: every context channel is zero and the gist and levels of them are
        replaced, all together; the actions stay. None: all have one.
        """
        if present is not None:
            context = jnp.where(present[:, None, None, None, None], context, 0.0)
        past = jnp.concatenate(jnp.moveaxis(context, 1, 0), axis=-1)
        condition = self.conditioner(Told(past, actions, c_noise, levels, present, c_step))
        h = self.position(self.stem(jnp.concatenate([x, past], axis=-1)))
        skips = []
        for i, blocks in enumerate(self.down):
            h = h if i == 0 else self.shrink[i - 1](h)
            for block in blocks:
                h = block(h, condition)
            skips.append(h)
        for i in reversed(range(len(self.up))):
            skip = skips[i]
            h = jnp.concatenate([resize_to(self.grow[i](h), *skip.shape[1:3]), skip], axis=-1)
            for block in self.up[i]:
                h = block(h, condition)
        change = self.head(nnx.silu(self.norm(h)))
        return change + self.keep(self.conditioner.vector(condition))[:, None, None] * context[:, -1]

    def bound(
        self,
        context: Float[Array, "b n h w c"],
        actions: Int32[Array, "b n"],
        levels: Float[Array, "b n"],
        present: Bool[Array, " b"] | None = None,
    ) -> Network:
        """F as a function of the sample alone; called with fewer items, it takes the conditions of the first."""

        def network(x: Latent, c_noise: Float[Array, " a"], c_step: Float[Array, " a"] | None = None) -> Latent:
            a = len(x)
            there = None if present is None else present[:a]
            return self(x, c_noise, context[:a], actions[:a], levels[:a], there, c_step)

        return network
