"""An agent learns to choose at a glance what planning chose by dreaming (Anthony et al. 2017, arXiv 1705.08439).

::

    real contexts --Planner--> outlook of every action --imitate--> ActorCritic

The value's head learns nothing: who plays has no use for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int32, UInt8
from rich.progress import track
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from neural_env.agents.dreams import Beginnings
from neural_env.agents.eyes import codes
from neural_env.agents.planning import Planner
from neural_env.agents.policy import ActorCritic
from neural_env.arrays import Key
from neural_env.data.shards import publish
from neural_env.world.parameters import Flat, parameters, replaced

_TOGETHER = 256  # moments planned at a time, and kept in a file of their own
_PARTS, _HELD_OUT = 64, 8  # of the moments, in the order of their games; one part in so many says when to stop
_BATCH, _RATE, _DECAY = 256, 5e-4, 1e-2
_NOISE = 10.0  # largest deviation of the noise on codes: half a deviation of the latents


class Lesson(NamedTuple):
    """What the agent sees at each moment, and what every action promises there."""

    frames: UInt8[Array, "s m h w c"]
    past_actions: Int32[Array, "m k"]
    outlooks: Float[Array, "m a"]


def planned(planner: Planner, places: Beginnings, seed: int, folder: Path) -> tuple[np.ndarray, float]:
    """`Planner.outlooks` of all moments `[m, a]`, and the seconds that they took; what is in `folder` isn't redone."""
    folder.mkdir(parents=True, exist_ok=True)
    count, found = len(places.variables), []
    for part in track(range(-(-count // _TOGETHER)), "planning", disable=_whole(folder, count)):
        path, began = folder / f"{part}.safetensors", time.monotonic()
        if (columns := _read(path)) is None:
            rows = np.arange(part * _TOGETHER, min((part + 1) * _TOGETHER, count))
            some: Beginnings = jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], places)
            outlooks = planner.outlooks(some, jax.random.fold_in(jax.random.key(seed), part))
            columns = {"outlooks": outlooks, "seconds": np.array([time.monotonic() - began], np.float32)}
            temporary = path.with_suffix(".tmp")
            save_file(columns, temporary)
            publish(temporary, path)
        found.append(columns)
    seconds = sum(float(columns["seconds"][0]) for columns in found)
    return np.concatenate([columns["outlooks"] for columns in found]), seconds


def _whole(folder: Path, count: int) -> bool:
    return all((folder / f"{part}.safetensors").is_file() for part in range(-(-count // _TOGETHER)))


def _read(path: Path) -> dict[str, np.ndarray] | None:
    if not path.is_file():
        return None
    try:
        return load_file(path)
    except SafetensorError:  # cut short: it is dreamed again
        path.unlink()
        return None


def lesson_of(policy: ActorCritic, places: Beginnings, outlooks: np.ndarray) -> Lesson:
    """What a policy that looks at latents sees of those contexts.

    Raises:
        ValueError: it remembers more than a context holds.
    """
    contexts, actions = np.asarray(places.states.context), np.asarray(places.states.actions)
    stack, past = policy.config.stack, policy.config.past_actions
    if stack > contexts.shape[1] or past > actions.shape[1]:
        holds = f"{contexts.shape[1]} frames and {actions.shape[1]} actions"
        raise ValueError(f"the agent sees {stack} frames and {past} actions, a context holds {holds}: choose a preset")
    frames = jnp.moveaxis(codes(jnp.asarray(contexts[:, contexts.shape[1] - stack :])), 1, 0)
    before = jnp.asarray(actions[:, actions.shape[1] - past :])
    return Lesson(frames, before, jnp.asarray(outlooks))


def imitate(
    policy: ActorCritic,
    lesson: Lesson,
    temperature: float,
    epochs: int,
    seed: int,
    tell: Callable[[int, dict[str, float]], None],
) -> ActorCritic:
    """The policy after `epochs` over the moments, or as it was when it regretted least on those held out.

    It becomes the nearest it can to softmax(outlook / temperature), by the divergence that weighs moments by how much
    is at stake there: KL(policy || softmax). `tell` hears of every epoch.
    """
    held_out = held_out_of(len(lesson.outlooks))
    learned, tested = _rows(lesson, ~held_out), _rows(lesson, held_out)
    updates = epochs * max(1, len(learned.outlooks) // _BATCH)
    transform = optax.adamw(optax.cosine_decay_schedule(_RATE, updates), weight_decay=_DECAY)
    params, rng = parameters(policy), np.random.default_rng([seed, 5])
    state, best, least = transform.init(params), params, np.inf

    @jax.jit
    def update(params: Flat, state: Any, part: Lesson, key: Key) -> tuple[Flat, Any, Array]:
        part = part._replace(frames=_blurred(part.frames, key))
        loss, gradient = jax.value_and_grad(lambda p: _divergence(replaced(policy, p), part, temperature))(params)
        changes, state = transform.update(gradient, state, params)
        return optax.apply_updates(params, changes), state, loss

    regret = jax.jit(lambda params, part: _regret(replaced(policy, params), part))
    for epoch in range(epochs):
        losses = []
        for rows in _shuffled(rng, len(learned.outlooks)):
            key = jax.random.key(int(rng.integers(2**31)))
            params, state, loss = update(params, state, _rows(learned, rows), key)
            losses.append(loss)
        found = float(regret(params, tested))
        if found < least:
            best, least = params, found
        tell(epoch + 1, {"loss": float(jnp.stack(losses).mean()), "regret_held_out": found})
    return replaced(policy, best)


def held_out_of(count: int) -> np.ndarray:
    """Which moments nothing is learned from: whole stretches, for neighbours look alike. Bool `[count]`."""
    parts = min(_PARTS, count)
    part = np.arange(count) * parts // max(count, 1)
    held_out: np.ndarray = part % _HELD_OUT == 0
    return held_out


def _rows(lesson: Lesson, rows: np.ndarray) -> Lesson:
    return Lesson(lesson.frames[:, rows], lesson.past_actions[rows], lesson.outlooks[rows])


def _shuffled(rng: np.random.Generator, count: int) -> np.ndarray:
    """All rows but a rest, in batches."""
    size = min(_BATCH, count)
    return rng.permutation(count)[: count // size * size].reshape(-1, size)


def _blurred(frames: UInt8[Array, "s b h w c"], key: Key) -> UInt8[Array, "s b h w c"]:
    """Codes with noise on them, of another strength for each moment: thousands of moments are soon known by heart."""
    key_level, key_noise = jax.random.split(key)
    level = _NOISE * jax.random.uniform(key_level, (1, frames.shape[1], 1, 1, 1))
    noise = level * jax.random.normal(key_noise, frames.shape)
    return jnp.clip(jnp.round(frames + noise), 0, 255).astype(jnp.uint8)


def _divergence(policy: ActorCritic, lesson: Lesson, temperature: float) -> Array:
    logits, _ = policy(lesson.frames, lesson.past_actions)
    log_p = jax.nn.log_softmax(logits)
    target = jax.nn.log_softmax(lesson.outlooks / temperature)
    return (jnp.exp(log_p) * (log_p - target)).sum(axis=-1).mean()


def _regret(policy: ActorCritic, lesson: Lesson) -> Array:
    """What its choices promise less than the best, in units of reward, on average."""
    logits, _ = policy(lesson.frames, lesson.past_actions)
    return (lesson.outlooks.max(axis=-1) - (jax.nn.softmax(logits) * lesson.outlooks).sum(axis=-1)).mean()
