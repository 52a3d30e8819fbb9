"""The one vocabulary of array types: names, shapes, ranges and units.

Frames cross the border of the model at two named places only, `WorldModel.encode` and `WorldModel.decode`; everything
inside the model is float32 (or the backend's compute type) and everything outside is uint8.

Axes: `b` batch, `n` context frames, `t` transitions of an episode, `H W` pixels, `h w c` latent, `v` game variables.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Array, Float, Int32, PRNGKeyArray, UInt8

Frame: TypeAlias = UInt8[np.ndarray, "H W 3"]
"""One screen of the game, RGB, [0, 255]."""

Frames: TypeAlias = UInt8[Array, "*b H W 3"]
"""Screens on the device, RGB, [0, 255]."""

Pixels: TypeAlias = Float[Array, "*b H W 3"]
"""Screens inside the auto-encoder, RGB, [-1, 1]."""

Latent: TypeAlias = Float[Array, "*b h w c"]
"""The auto-encoder's code of a frame, standardised per channel: mean 0, deviation 1 over the training frames."""

Actions: TypeAlias = Int32[Array, "*b"]
"""Indices into the scenario's `action_names`; 0 is the no-op."""

Key: TypeAlias = PRNGKeyArray
"""A typed JAX random key (`jax.random.key`)."""
