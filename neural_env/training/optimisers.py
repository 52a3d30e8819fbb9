"""Optimisers and learning-rate schedules, by the names that `LoopConfig` calls them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import jax
import optax


class Optimiser(Protocol):
    """What turns gradients into updates."""

    def transform(self, rate: Callable[[Any], Any], weight_decay: float) -> optax.GradientTransformation:
        """The transformation for a learning rate as a function of the step."""
        ...


@dataclass(frozen=True)
class AdamW:
    """Two moments for every weight (Loshchilov and Hutter 2019, arXiv 1711.05101): the choice for small worlds."""

    b1: float = 0.9
    b2: float = 0.99

    def transform(self, rate: Callable[[Any], Any], weight_decay: float) -> optax.GradientTransformation:
        """See `Optimiser`."""
        return optax.adamw(rate, b1=self.b1, b2=self.b2, weight_decay=weight_decay)


@dataclass(frozen=True)
class Adafactor:
    """Row and column sums in place of second moments, no first one (Shazeer and Stern 2018, arXiv 1804.04235).

    Hardly any state, where AdamW has two numbers for each weight. GameNGen's, at a constant 2e-5 without weight decay
    (section 4.2). The rate is absolute, not relative to a weight's size, so that it means what AdamW's does.
    """

    least_factored: int = 128  # matrices with a smaller side keep their second moments whole

    def transform(self, rate: Callable[[Any], Any], weight_decay: float) -> optax.GradientTransformation:
        """See `Optimiser`."""
        # optax subtracts this decay outside of the learning rate, where AdamW's is inside: brought to the same scale.
        factored = optax.adafactor(
            None, min_dim_size_to_factor=self.least_factored, multiply_by_parameter_scale=False, clipping_threshold=1.0
        )
        return optax.chain(
            factored, optax.add_decayed_weights(-weight_decay), optax.scale_by_learning_rate(rate, flip_sign=False)
        )


@dataclass(frozen=True)
class Muon:
    """Orthogonalised momentum for kernels (Keller Jordan 2024, kellerjordan.github.io/posts/muon), AdamW for the rest.

    All directions of a kernel move alike, that what is rare in the data be learnt with the rest. Embeddings and
    attention's kernels of three axes are AdamW's. Both have Nesterov's momentum. Updates have the size of AdamW's (Liu
    et al. 2025, arXiv 2502.16982, section 2.2), so its learning rates do.
    """

    momentum: float = 0.95
    rms: float = 0.2  # of an update of rate 1
    b1: float = 0.9
    b2: float = 0.99

    def transform(self, rate: Callable[[Any], Any], weight_decay: float) -> optax.GradientTransformation:
        """See `Optimiser`."""
        from optax.contrib import muon  # here, for other optimisers run on machines with an older Optax

        return muon(
            rate,
            beta=self.momentum,
            weight_decay=weight_decay,
            adam_b1=self.b1,
            adam_b2=self.b2,
            adam_weight_decay=weight_decay,
            muon_weight_dimension_numbers=_as_matrices,
            consistent_rms=self.rms,
        )


def _as_matrices(params: dict[str, Any]) -> dict[str, Any]:
    """How arrays are matrices: kernels [..., in, out] from all but the last axis to the last; None: they are none."""
    from optax.contrib import MuonDimensionNumbers

    def axes(path: tuple[Any, ...], array: jax.Array) -> Any:
        if not path[0].key.endswith("kernel") or array.ndim not in (2, 4):
            return None
        return MuonDimensionNumbers(tuple(range(array.ndim - 1)), array.ndim - 1)

    named: dict[str, Any] = jax.tree_util.tree_map_with_path(axes, params)  # Optax masks what isn't Muon's
    return named


OptimiserName: TypeAlias = Literal["adamw", "adafactor", "muon"]

OPTIMISERS: dict[OptimiserName, Optimiser] = {"adamw": AdamW(), "adafactor": Adafactor(), "muon": Muon()}


def cosine(peak: float, warmup: int, steps: int) -> Callable[[Any], Any]:
    """From 0 up to `peak` in `warmup` steps, then down to 0 at the last."""
    schedule: Callable[[Any], Any] = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(steps, warmup + 1))
    return schedule


def constant(peak: float, warmup: int, steps: int) -> Callable[[Any], Any]:
    """From 0 up to `peak` in `warmup` steps, then `peak`; `steps` are of no account, so more can be added later."""
    parts = [optax.linear_schedule(0.0, peak, warmup), optax.constant_schedule(peak)]
    schedule: Callable[[Any], Any] = optax.join_schedules(parts, [warmup])
    return schedule


SCHEDULES: dict[str, Callable[[float, int, int], Callable[[Any], Any]]] = {"cosine": cosine, "constant": constant}
