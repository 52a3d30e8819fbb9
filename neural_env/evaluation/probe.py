"""A small convolutional network that learns to tell things about clips: the judge of two metrics.

It sees frames at full resolution, and beside them how much each pixel differs from its neighbours: blur and noise, by
which dreams are told, are no linear function of a frame, and few clips don't teach that there is such a thing. It takes
the mean over places, of long clips over time too, and so has few weights. Each clip is judged by a network that never
saw its episode.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int32, UInt8
from rich.progress import track

from neural_env.agents.policy import PatchConv  # a strided convolution's gradient is slow on a CPU

FOLDS = 2
_BATCH = 16
_FEATURES = 16
_IN_ORDER = 2  # changes, at most, whose order is kept: what a longer clip shows may come at any time
Gather = Callable[[np.ndarray], np.ndarray]  # rows -> clips, uint8 [b, t, H, W, 3]


class Probe(nnx.Module):
    """Logits [b, classes] of clips [b, t, H, W, 3], t at least 2: each frame beside its change since the last one."""

    def __init__(self, classes: int, frames: int, *, rngs: nnx.Rngs):
        self.in_order = frames - 1 if frames - 1 <= _IN_ORDER else 1
        self.first = PatchConv(12, _FEATURES, 4, 4, rngs=rngs)
        self.second = PatchConv(_FEATURES, 2 * _FEATURES, 3, 2, rngs=rngs)
        self.out = nnx.Linear(4 * _FEATURES * self.in_order, classes, rngs=rngs)

    def __call__(self, clips: UInt8[Array, "b t H W 3"]) -> Float[Array, "b k"]:
        """Returns logits."""
        x = clips.astype(jnp.float32) / 127.5 - 1.0
        now, change = x[:, 1:], x[:, 1:] - x[:, :-1]
        seen = jnp.concatenate([now, change, now * change, _roughness(now)], axis=-1)
        b, t = seen.shape[:2]
        h = nnx.relu(self.second(nnx.relu(self.first(seen.reshape(b * t, *seen.shape[2:])))))
        pooled = jnp.concatenate([h.mean(axis=(1, 2)), h.max(axis=(1, 2))], axis=-1)
        over_time = pooled.reshape(b, self.in_order, t // self.in_order, -1).mean(axis=2).reshape(b, -1)
        logits: Float[Array, "b k"] = self.out(over_time)
        return logits


def _roughness(frames: Float[Array, "b t H W c"]) -> Float[Array, "b t H W c"]:
    """How far each pixel is from the mean of the pixel above it and the one to its left."""
    above, left = jnp.roll(frames, 1, axis=2), jnp.roll(frames, 1, axis=3)
    return jnp.abs(frames - (above + left) / 2)


def held_out(
    gather: Gather, labels: np.ndarray, groups: np.ndarray, learn: np.ndarray, classes: int, steps: int, what: str
) -> np.ndarray:
    """The class [m] that each of `m` clips is given by a network trained on other groups (episodes).

    Only clips of the mask `learn` are trained on; all are judged.

    Raises:
        ValueError: there are fewer groups than folds.
    """
    fold = folds_of(groups)
    judged = np.zeros(len(labels), np.int64)
    for number in range(FOLDS):
        mine = np.flatnonzero(fold == number)
        train = np.flatnonzero((fold != number) & learn)
        judge = _fit(gather, labels, train, classes, steps, f"{what}, fold {number + 1} of {FOLDS}")
        judged[mine] = judge(mine)
    return judged


def folds_of(groups: np.ndarray) -> np.ndarray:
    """The fold [m] of each clip: groups at random, for players take turns and a fold must not be a player.

    Raises:
        ValueError: there are fewer groups than folds.
    """
    names = np.unique(groups)
    if len(names) < FOLDS:
        raise ValueError(f"a judge needs clips of {FOLDS} episodes or more, got {len(names)}: play more episodes")
    folds: np.ndarray = np.random.default_rng(0).permutation(len(names))[np.searchsorted(names, groups)] % FOLDS
    return folds


def _fit(gather: Gather, labels: np.ndarray, rows: np.ndarray, classes: int, steps: int, what: str) -> Any:
    graph, state = nnx.split(Probe(classes, gather(rows[:1]).shape[1], rngs=nnx.Rngs(0)))
    optimizer = _optimiser(steps).init(state)
    rng = np.random.default_rng(0)
    for _ in track(range(steps), what):
        drawn = rng.choice(rows, _BATCH)
        state, optimizer = _update(graph, steps, state, optimizer, gather(drawn), labels[drawn])

    def judge(rows: np.ndarray) -> np.ndarray:
        padded = np.resize(rows, -(-len(rows) // _BATCH) * _BATCH).reshape(-1, _BATCH)
        return np.concatenate([np.asarray(_classify(graph, state, gather(part))) for part in padded])[: len(rows)]

    return judge


def _optimiser(steps: int) -> Any:
    return optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 10, steps), weight_decay=1e-3)


@partial(jax.jit, static_argnums=(0, 1))
def _update(
    graph: Any, steps: int, state: Any, optimizer: Any, clips: Array, targets: Int32[Array, " b"]
) -> tuple[Any, Any]:
    def loss(state: Any) -> Array:
        logits = nnx.merge(graph, state)(clips)
        value: Array = optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
        return value

    updates, optimizer = _optimiser(steps).update(jax.grad(loss)(state), optimizer, state)
    return optax.apply_updates(state, updates), optimizer


@partial(jax.jit, static_argnums=0)
def _classify(graph: Any, state: Any, clips: Array) -> Array:
    classes: Array = nnx.merge(graph, state)(clips).argmax(axis=-1)
    return classes
