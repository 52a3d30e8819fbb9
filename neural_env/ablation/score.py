"""Scores of a denoiser's pictures on held-out play; the same windows and starts for every arm of a study.

Only pictures are scored, through `WorldModel.imagine` and `decode`: an arm has no outcome model. The held-out frames
are encoded once, for the arms share an encoder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from neural_env.data.episode import Episode
from neural_env.envs.dials import Dials
from neural_env.evaluation.frames import psnr
from neural_env.game import HUD_SHARE
from neural_env.training.latents import encode_frames
from neural_env.world.autoencoder import Autoencoder
from neural_env.world.model import WorldModel

BATCH = 16  # windows or dreams at a time


@dataclass(frozen=True)
class Exam:
    """How much is scored."""

    windows: int = 512  # teacher-forced predictions
    rollouts: int = 32  # dreams
    horizon: int = 64  # steps of each


class HeldOut(NamedTuple):
    """Episodes that no arm was trained on, and the present frames that are looked at in them."""

    episodes: list[Episode]
    latents: list[np.ndarray]  # of each episode [t + 1, h, w, c]
    windows: np.ndarray  # [m, 2]: episode and present frame
    starts: np.ndarray  # [k, 2]: the same for dreams, which go on for the whole horizon


def held_out(episodes: Sequence[Episode], autoencoder: Autoencoder, history: int, exam: Exam) -> HeldOut:
    """Places with a past of `history` frames, spread evenly over the episodes; terminating transitions left out.

    Raises:
        ValueError: no episode is long enough.
    """
    longest = max(len(episode) for episode in episodes)
    if longest - 1 < history - 1 + exam.horizon:
        cure = "play longer ones, or choose a shorter --horizon"
        raise ValueError(
            f"the longest held-out episode has {longest} steps, {history + exam.horizon} are needed: {cure}"
        )
    latents = [encode_frames(autoencoder, episode.frames) for episode in episodes]
    windows = _places(episodes, history, 1, exam.windows)
    return HeldOut(list(episodes), latents, windows, _places(episodes, history, exam.horizon, exam.rollouts))


def _places(episodes: Sequence[Episode], history: int, ahead: int, count: int) -> np.ndarray:
    """Episode and present frame of `count` places with `history` frames up to it and `ahead` pictures after it."""
    pictures = [len(episode) + 1 - episode.terminated for episode in episodes]  # the last one of a death is a copy
    every = [(e, t) for e, total in enumerate(pictures) for t in range(history - 1, total - ahead)]
    chosen = np.unique(np.linspace(0, len(every) - 1, count).astype(int))
    return np.array([every[i] for i in chosen])


def score(world: WorldModel, exam: HeldOut, dials: Dials, horizon: int) -> dict[str, Any]:
    """Teacher-forced and autoregressive scores, means in dB, and the time that a frame takes.

    `drift` and `drift_hold` (the present frame, held) are PSNR by step; `sharpness` is the mean gradient of the last
    dreamed frames, as a share of the real ones'.
    """
    forced, hud, swapped, copied, seconds = _teacher_forced(world, exam, dials)
    dream, hold, sharpness = _dreams(world, exam, dials, horizon)
    return {
        "psnr": float(forced.mean()),
        "psnr_hud": float(hud.mean()),
        "psnr_shuffled": float(swapped.mean()),
        "psnr_copy": float(copied.mean()),
        "windows": len(exam.windows),
        "drift": [round(float(x), 3) for x in dream.mean(axis=0)],
        "drift_hold": [round(float(x), 3) for x in hold.mean(axis=0)],
        "sharpness": sharpness,
        "rollouts": len(exam.starts),
        "frame_ms": 1e3 * seconds,
    }


def _teacher_forced(world: WorldModel, exam: HeldOut, dials: Dials) -> tuple[Any, ...]:
    past, actions = _past(exam, exam.windows, world.context)
    shuffled = actions.copy()
    shuffled[:, -1] = np.random.default_rng(0).permutation(actions[:, -1])
    last, after = (np.stack([exam.episodes[e].frames[t + i] for e, t in exam.windows]) for i in (0, 1))
    false, _ = _in_batches(partial(_next_frames, world, dials=dials), past, shuffled)
    dreamed, seconds = _in_batches(partial(_next_frames, world, dials=dials), past, actions)  # compiled by now
    top = after.shape[1] - round(after.shape[1] * HUD_SHARE)
    scores = psnr(dreamed, after), psnr(dreamed[:, top:], after[:, top:]), psnr(false, after), psnr(last, after)
    return *scores, seconds


def _dreams(world: WorldModel, exam: HeldOut, dials: Dials, horizon: int) -> tuple[np.ndarray, np.ndarray, float]:
    past, _ = _past(exam, exam.starts, world.context)
    rows = [(e, slice(t - world.context + 1, t + horizon)) for e, t in exam.starts]
    actions = np.stack([exam.episodes[e].actions[span] for e, span in rows])
    dreamed, _ = _in_batches(partial(_dream, world, dials=dials), past, actions)
    real = np.stack([exam.episodes[e].frames[t + 1 : t + 1 + horizon] for e, t in exam.starts])
    hold = np.stack([exam.episodes[e].frames[t] for e, t in exam.starts])[:, None]
    sharpness = _gradient(dreamed[:, -1]) / _gradient(real[:, -1])
    return psnr(dreamed, real), psnr(np.broadcast_to(hold, real.shape), real), sharpness


def _past(exam: HeldOut, places: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    """Latents [m, n, h, w, c] up to the present frames, and the actions [m, n] from each of them on."""
    spans = [(e, slice(t - context + 1, t + 1)) for e, t in places]
    latents, actions = (
        (exam.latents[e][span] for e, span in spans),
        (exam.episodes[e].actions[span] for e, span in spans),
    )
    return np.stack(list(latents)), np.stack(list(actions))


def _gradient(frames: np.ndarray) -> float:
    """Mean absolute difference of neighbours in a row."""
    return float(np.abs(np.diff(frames.astype(np.float32), axis=2)).mean())


def _in_batches(predict: Any, past: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, float]:
    """The predictions of all rows, in batches of one shape, and seconds an item at the fastest."""
    total, parts, seconds = len(past), [], []
    for start in range(0, total, BATCH):
        rows = np.minimum(np.arange(start, start + BATCH), total - 1)
        began = time.perf_counter()
        parts.append(np.asarray(predict(jax.random.fold_in(jax.random.key(0), start), past[rows], actions[rows])))
        seconds.append(time.perf_counter() - began)
    return np.concatenate(parts)[:total], min(seconds) / BATCH


@jax.jit
def _next_frames(world: WorldModel, key: jax.Array, past: jax.Array, actions: jax.Array, *, dials: Dials) -> jax.Array:
    """Frames [b, H, W, 3] that follow latents [b, n, h, w, c]."""
    return world.decode(_imagine(world, key, past, actions, dials))


@jax.jit
def _dream(world: WorldModel, key: jax.Array, past: jax.Array, actions: jax.Array, *, dials: Dials) -> jax.Array:
    """Frames [b, horizon, H, W, 3] that follow `past` [b, n, h, w, c] under `actions` [b, n - 1 + horizon]."""
    n, horizon = past.shape[1], actions.shape[1] - past.shape[1] + 1

    def step(past: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        window = jax.lax.dynamic_slice_in_dim(actions, step, n, axis=1)
        latent = _imagine(world, jax.random.fold_in(key, step), past, window, dials)
        return jnp.concatenate([past[:, 1:], latent[:, None]], axis=1), world.decode(latent)

    return jnp.moveaxis(jax.lax.scan(step, past, jnp.arange(horizon))[1], 0, 1)


def _imagine(world: WorldModel, key: jax.Array, past: jax.Array, actions: jax.Array, dials: Dials) -> jax.Array:
    return world.imagine(
        key,
        past,
        actions,
        num_steps=dials.num_steps,
        context_noise=dials.context_noise,
        guidance=dials.guidance,
        temperature=dials.temperature,
    )
