"""What may be turned while a dream runs: one frozen object, passed through every function that steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import jax
import numpy as np

Termination: TypeAlias = Literal["sample", "threshold", "never"]
TERMINATIONS: tuple[str, ...] = get_args(Termination)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("context_noise", "guidance", "temperature"),
    meta_fields=("num_steps", "termination"),
)
@dataclass(frozen=True, kw_only=True)
class Dials:
    """A pytree: the numbers are traced, so that turning them compiles nothing; the last two are static."""

    context_noise: Any = 0.0  # level in [0, 0.7] at which the past is corrupted (GameNGen section 3.2.1)
    guidance: Any = None  # weight of at least 1 of the past frames (GameNGen section 3.2.2); None: never two calls
    temperature: Any = 1.0  # in [0, 2], of the sampler's initial noise and of the draw that ends an episode
    num_steps: int = 1  # denoising steps a frame
    termination: Termination = "sample"  # drawn, foretold with more than even odds, or never

    def on_host(self) -> Dials:
        """The same numbers as float32 of NumPy: one type, one compilation."""
        dials: Dials = jax.tree.map(np.float32, self)
        return dials
