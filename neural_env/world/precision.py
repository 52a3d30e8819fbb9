"""The world in bfloat16: what an accelerator multiplies fastest, and half the weights to read.

The convolutions of U-Net and auto-encoder compute in bfloat16. Float32 stays what must not lose digits and costs
little: the latents that pass from step to step, the sampler's arithmetic, the outcome model, and the linear path of the
decoder, which carries most of the picture. So a world in bfloat16 takes and returns the arrays that it took and
returned before, and every function of `envs.core` takes it as it is.

The bundled take_cover, 16 steps on its own frames: 58 dB from what float32 shows (tests/world/test_precision.py).
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx

from neural_env.world.layers import Position
from neural_env.world.model import WorldModel

_LAYERS = (nnx.Conv, nnx.Linear, nnx.Embed, nnx.RMSNorm)  # they cast what they are given to their own type


def in_bfloat16(world: WorldModel) -> WorldModel:
    """A copy of the world whose layers hold their weights and compute in bfloat16."""
    copy: WorldModel = nnx.clone(world)
    for part in (copy.unet, copy.autoencoder):
        for _, layer in nnx.iter_modules(part):
            if isinstance(layer, _LAYERS):
                layer.dtype = jnp.bfloat16
            if isinstance(layer, (*_LAYERS, Position)):
                _cast(layer)
    return copy


def _cast(layer: nnx.Module) -> None:
    for value in vars(layer).values():
        if isinstance(value, nnx.Param):
            value.set_value(value.get_value().astype(jnp.bfloat16))
