"""How true a world is, on episodes of held-out seeds that are played afresh in the real game.

Teacher-forced: every frame is predicted from the true past. Autoregressive: the dream sees its own frames, the real
actions alone link it to the truth. Frames are compared with the engine's own, so the auto-encoder's loss is included.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track

from neural_env.checkpoint import Starts
from neural_env.data.episode import Episode, Split, split_of
from neural_env.data.play import play
from neural_env.data.policies import StickyRandom
from neural_env.envs import core
from neural_env.envs.dials import Dials as EnvDials
from neural_env.envs.real_doom import RealDoom
from neural_env.evaluation.calibration import average_precision, expected_calibration_error
from neural_env.evaluation.frames import psnr
from neural_env.game import GameConfig
from neural_env.world.model import WorldModel

BATCH = 16  # windows or roll-outs at a time


@dataclass(frozen=True)
class Dials:
    """How the dream is run; the environment's arguments of the same names."""

    num_steps: int = 1
    context_noise: float = 0.0

    def of_env(self) -> EnvDials:
        """The same for the environment's functions."""
        return EnvDials(**asdict(self))


def seeds_of(split: Split, count: int, first: int = 0) -> list[int]:
    """The first `count` seeds from `first` on that belong to a split."""
    return list(islice((seed for seed in itertools.count(first) if split_of(seed) == split), count))


def real_episodes(game: GameConfig, seeds: Sequence[int], repeat: float = 0.5, max_steps: int = 525) -> list[Episode]:
    """Plays the real game with the sticky-random policy that the training data were collected with."""
    policy = StickyRandom(len(game.action_names), repeat)
    with closing(RealDoom(game.scenario, game.resolution, game.frame_skip)) as env:
        return [play(env, policy, seed=seed, max_steps=max_steps) for seed in track(seeds, "play the real game")]


class Windows(NamedTuple):
    """Windows of real episodes: the past, the action taken and the truth after it."""

    frames: np.ndarray  # [m, n, H, W, 3] uint8, oldest first
    actions: np.ndarray  # [m, n] int32; the last is the one being taken
    after: np.ndarray  # [m, H, W, 3] uint8
    rewards: np.ndarray  # [m] float32
    ends: np.ndarray  # [m] bool: this transition terminated the episode
    variables: np.ndarray  # [m, v] float32, after the transition


def windows_of(episodes: Sequence[Episode], context: int) -> Windows:
    """Every window of the episodes.

    Raises:
        ValueError: no episode is longer than the context.
    """
    rows = [row for episode in episodes for row in _rows(episode, context)]
    if not rows:
        raise ValueError(f"no episode is longer than the context of {context} frames: play more episodes")
    return Windows(*(np.stack(column) for column in zip(*rows, strict=True)))


def _rows(episode: Episode, context: int) -> Iterator[tuple[Any, ...]]:
    for t in range(context - 1, len(episode)):
        past = slice(t - context + 1, t + 1)
        ended = np.bool_(episode.terminated and t == len(episode) - 1)
        yield (
            episode.frames[past], episode.actions[past], episode.frames[t + 1],
            episode.rewards[t], ended, episode.variables[t + 1],
        )  # fmt: skip


def teacher_forced(world: WorldModel, windows: Windows, dials: Dials) -> dict[str, float]:
    """Scores of one-step predictions from the true past.

    Transitions that terminate count for reward and termination only: the engine shows no frame after them. The
    shuffled figures give each window the action taken in another one, drawn at random, its past left as it is.
    """
    predict = core.bind(partial(_predict, dials=dials), world)
    shuffled_actions = windows.actions.copy()
    shuffled_actions[:, -1] = np.random.default_rng(0).permutation(windows.actions[:, -1])
    true = _in_batches(predict, windows, windows.actions, "teacher-forced")
    false = _in_batches(predict, windows, shuffled_actions, "shuffled actions")
    alive = ~windows.ends
    after = windows.after[alive]
    swapped = (windows.actions[:, -1] != shuffled_actions[:, -1])[alive]
    true_psnr, false_psnr = psnr(true.frames[alive], after), psnr(false.frames[alive], after)
    p, ends = true.termination, windows.ends
    scores = {
        "frames": float(alive.sum()),
        "autoencoder_psnr": float(psnr(true.reconstructed[alive], after).mean()),
        "psnr": float(true_psnr.mean()),
        "copy_last_psnr": float(psnr(windows.frames[alive, -1], after).mean()),
        "shuffled_psnr": float(false_psnr.mean()),
        "true_where_swapped_psnr": float(true_psnr[swapped].mean()),
        "shuffled_where_swapped_psnr": float(false_psnr[swapped].mean()),
        "reward_mean_absolute_error": float(np.abs(true.rewards - windows.rewards).mean()),
        "reward_agreement": float((np.abs(true.rewards - windows.rewards) < 0.5).mean()),
        "termination_agreement": float(np.where(ends, p, 1 - p).mean()),
        "termination_events": float(ends.sum()),
        "termination_false_alarms_per_1000": float(1000 * p[alive].mean()),
    }
    if ends.any():
        scores["termination_recall"] = float(p[ends].mean())
        scores["termination_average_precision"] = average_precision(p, ends)
    scores["termination_calibration_error"] = expected_calibration_error(p, ends)
    error = np.abs(true.variables[alive] - windows.variables[alive]).mean(axis=0)
    return scores | {f"variable_{i}_mean_absolute_error": float(e) for i, e in enumerate(error)}


class Predictions(NamedTuple):
    """What the world says of windows."""

    frames: Any  # [m, H, W, 3] uint8; an array on the device or, collected, of NumPy
    reconstructed: Any  # the true next frame through the auto-encoder: the ceiling
    rewards: Any
    termination: Any  # probability
    variables: Any


def _predict(
    world: WorldModel, key: jax.Array, frames: jax.Array, actions: jax.Array, after: jax.Array, *, dials: Dials
) -> Predictions:
    b, n = actions.shape
    context = world.encode(frames.reshape(b * n, *frames.shape[2:])).reshape(b, n, *world.latent_shape)
    latent = world.imagine(key, context, actions, num_steps=dials.num_steps, context_noise=dials.context_noise)
    outcome = world.foretell(context, actions, latent)
    p = jax.nn.sigmoid(outcome.termination_logit)
    reconstructed = world.decode(world.encode(after))
    return Predictions(world.decode(latent), reconstructed, outcome.reward, p, outcome.variables)


def _in_batches(predict: Callable[..., Predictions], windows: Windows, actions: np.ndarray, what: str) -> Predictions:
    total = len(actions)
    parts = []
    for start in track(range(0, total, BATCH), what):
        rows = np.minimum(np.arange(start, start + BATCH), total - 1)  # one shape: the last batch repeats its last row
        key = jax.random.fold_in(jax.random.key(0), start)
        parts.append([np.asarray(x) for x in predict(key, windows.frames[rows], actions[rows], windows.after[rows])])
    return Predictions(*(np.concatenate(column)[:total] for column in zip(*parts, strict=True)))


class RolloutScores(NamedTuple):
    """Fidelity by age of the dream; index 0 is the first dreamed frame."""

    psnr: np.ndarray  # [rollouts, horizon] dB
    copy_first_psnr: np.ndarray  # [rollouts, horizon] dB: the last real frame, held
    dreamed: np.ndarray  # [horizon, H, W, 3] of the first roll-out
    real: np.ndarray  # [horizon, H, W, 3]


def autoregressive(
    world: WorldModel, episodes: Sequence[Episode], dials: Dials, horizon: int = 64, rollouts: int = BATCH
) -> RolloutScores:
    """PSNR of dreams that see their own frames for `horizon` steps, given the real actions.

    Starts are spread evenly over all places from which the real episode goes on for `horizon` steps. Terminations that
    the model foretells are passed over, so that every roll-out has the full length.

    Raises:
        ValueError: no episode is that long.
    """
    n = world.context
    places = [(e, t) for e, episode in enumerate(episodes) for t in range(n, len(episode) - horizon + 1)]
    if not places:
        raise ValueError(f"no episode has {n + horizon} steps: play more episodes, or shorten the horizon")
    chosen = [places[i] for i in np.linspace(0, len(places) - 1, rollouts).astype(int)]
    dream = core.bind(partial(_dream, dials=dials), world)
    scores: list[tuple[np.ndarray, np.ndarray]] = []
    film: tuple[np.ndarray, np.ndarray] | None = None
    for start in track(range(0, rollouts, BATCH), f"dream {horizon} steps"):
        part = chosen[start : start + BATCH]
        padded = part + [part[-1]] * (BATCH - len(part))
        past = np.stack([episodes[e].frames[t - n : t] for e, t in padded])
        actions = np.stack([episodes[e].actions[t - n : t - 1 + horizon] for e, t in padded])
        key = jax.random.fold_in(jax.random.key(1), start)
        dreamed = np.asarray(dream(key, past, actions))
        for (e, t), frames in zip(part, dreamed, strict=False):
            real = episodes[e].frames[t : t + horizon]
            held = np.broadcast_to(episodes[e].frames[t - 1], real.shape)
            scores.append((psnr(frames, real), psnr(held, real)))
            film = film or (frames, real)
    assert film is not None
    dream_psnr, held_psnr = (np.stack(column) for column in zip(*scores, strict=True))
    return RolloutScores(dream_psnr, held_psnr, *film)


def _dream(world: WorldModel, key: jax.Array, past: jax.Array, actions: jax.Array, *, dials: Dials) -> jax.Array:
    """Frames [b, horizon, H, W, 3] that follow `past` [b, n, H, W, 3] under `actions` [b, n - 1 + horizon]."""
    n = past.shape[1]

    def one(key: jax.Array, past: jax.Array, actions: jax.Array) -> jax.Array:
        state = core.encode_context(world, past, actions[: n - 1])
        carry = core.carry_from(key, state)
        return core.rollout(world, carry, actions[n - 1 :], dials.of_env()).observation

    return jax.vmap(one)(jax.random.split(key, len(past)), past, actions)


def long_dream(world: WorldModel, starts: Starts, dials: Dials, length: int, seed: int = 0) -> np.ndarray:
    """Frames [length, H, W, 3] of one dream under the sticky-random policy, terminations passed over."""
    policy = StickyRandom(world.outcome.num_actions)
    policy.reset(np.random.default_rng([seed, 1]))
    actions = np.array([policy.act(np.empty(0), np.empty(0)) for _ in range(length)], np.int32)
    state = core.DreamState(jnp.asarray(starts.latents[0]), jnp.asarray(starts.actions[0]))
    carry = core.carry_from(jax.random.key(seed), state)
    return np.asarray(core.bind(core.rollout, world)(carry, actions, dials.of_env()).observation)
