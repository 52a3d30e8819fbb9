"""What a world says of episodes of held-out seeds that are played afresh in the real game.

Teacher-forced: every frame is predicted from the true past. Autoregressive: the dream sees its own frames, the real
actions alone link it to the truth. Frames are compared with the engine's own, so the auto-encoder's loss is included.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
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
from neural_env.data.policies import Policy, StickyRandom
from neural_env.envs import core
from neural_env.envs.dials import Dials as EnvDials
from neural_env.envs.real_doom import RealDoom
from neural_env.evaluation.calibration import average_precision, expected_calibration_error
from neural_env.evaluation.frames import psnr
from neural_env.game import GameConfig
from neural_env.world.model import WorldModel

BATCH = 16  # windows, frames or roll-outs at a time


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


def real_episodes(
    game: GameConfig, seeds: Sequence[int], players: Sequence[Policy] = (), max_steps: int = 525
) -> list[Episode]:
    """Plays the real game, the players taking turns; without any, the sticky-random one that collects by default."""
    players = players or [StickyRandom(len(game.action_names))]
    automap = any("automap" in player.sees for player in players)
    with closing(RealDoom(game.scenario, game.resolution, game.frame_skip, automap=automap)) as env:
        return [
            play(env, players[i % len(players)], seed=seed, max_steps=max_steps)
            for i, seed in enumerate(track(seeds, "play the real game"))
        ]


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of real episodes: the past, the action taken and the truth after it."""

    screens: np.ndarray  # [f, H, W, 3] uint8: every frame of the episodes, which windows share
    last: np.ndarray  # [m] int64: which of them is the present one
    actions: np.ndarray  # [m, n] int32; the last is the one being taken
    rewards: np.ndarray  # [m] float32
    ends: np.ndarray  # [m] bool: this transition terminated the episode
    variables: np.ndarray  # [m, v] float32, after the transition
    episode: np.ndarray  # [m] int64: number of the episode

    def __len__(self) -> int:
        """How many windows."""
        return len(self.last)

    @property
    def past(self) -> np.ndarray:
        """Which screens are each window's past, [m, n], oldest first."""
        rows: np.ndarray = self.last[:, None] + np.arange(1 - self.actions.shape[1], 1)
        return rows

    @property
    def frames(self) -> np.ndarray:
        """The past, [m, n, H, W, 3] uint8, oldest first."""
        frames: np.ndarray = self.screens[self.past]
        return frames

    @property
    def present(self) -> np.ndarray:
        """The last frame of the past, [m, H, W, 3] uint8."""
        present: np.ndarray = self.screens[self.last]
        return present

    @property
    def after(self) -> np.ndarray:
        """The truth, [m, H, W, 3] uint8."""
        after: np.ndarray = self.screens[self.last + 1]
        return after

    def __getitem__(self, rows: np.ndarray) -> Windows:
        """Some of the windows."""
        own = ("last", "actions", "rewards", "ends", "variables", "episode")
        return replace(self, **{name: getattr(self, name)[rows] for name in own})


def windows_of(episodes: Sequence[Episode], context: int) -> Windows:
    """Every window of the episodes.

    Raises:
        ValueError: no episode is longer than the context.
    """
    if not any(len(episode) >= context for episode in episodes):
        raise ValueError(f"no episode is longer than the context of {context} frames: play more episodes")
    columns: list[tuple[np.ndarray, ...]] = []
    first = 0
    for number, episode in enumerate(episodes):
        t = np.arange(context - 1, len(episode))
        ends = episode.terminated & (t == len(episode) - 1)
        past = t[:, None] + np.arange(1 - context, 1)
        columns.append(
            (first + t, episode.actions[past], episode.rewards[t], ends, episode.variables[t + 1], 0 * t + number)
        )
        first += len(episode.frames)
    screens = np.concatenate([episode.frames for episode in episodes])
    return Windows(screens, *(np.concatenate(column) for column in zip(*columns, strict=True)))


class Imagined(NamedTuple):
    """What the world says of windows."""

    latents: np.ndarray  # [m, h, w, c] the next frame
    rewards: np.ndarray  # [m]
    termination: np.ndarray  # [m] probability
    variables: np.ndarray  # [m, v]


class Dreamer:
    """A world run with these dials, as functions of arrays on the host; each is compiled once.

    Randomness follows from the place of a row alone: two worlds, or two rows of actions, meet the same noise.
    """

    def __init__(self, world: WorldModel, dials: Dials):
        self.context = world.context
        self._encode = core.bind(lambda world, key, frames: world.encode(frames), world)
        self._decode = core.bind(lambda world, key, latents: world.decode(latents), world)
        self._imagine = core.bind(partial(_imagine, dials=dials), world)
        self._dream = core.bind(partial(_dream, dials=dials), world)

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Frames [m, H, W, 3] as latents [m, h, w, c]."""
        return np.asarray(_in_batches(self._encode, len(frames), lambda rows: (frames[rows],), "encode"))

    def decode(self, latents: np.ndarray, what: str = "decode") -> np.ndarray:
        """Latents [m, h, w, c] as frames [m, H, W, 3]."""
        return np.asarray(_in_batches(self._decode, len(latents), lambda rows: (latents[rows],), what))

    def imagine(self, latents: np.ndarray, past: np.ndarray, actions: np.ndarray, what: str) -> Imagined:
        """The transition after each window: `past` [m, n] are rows of `latents`, `actions` [m, n] go with them."""
        found = _in_batches(self._imagine, len(actions), lambda rows: (latents[past[rows]], actions[rows]), what)
        return Imagined(*found)

    def dream(self, past: np.ndarray, actions: np.ndarray, what: str) -> np.ndarray:
        """Latents [m, t, h, w, c] of dreams that follow `past` [m, n, H, W, 3] under `actions` [m, n - 1 + t].

        Terminations that the model foretells are passed over, so that every dream has the full length.
        """
        return np.asarray(_in_batches(self._dream, len(past), lambda rows: (past[rows], actions[rows]), what))


def _imagine(
    world: WorldModel, key: jax.Array, context: jax.Array, actions: jax.Array, *, dials: Dials
) -> tuple[jax.Array, ...]:
    """The fields of `Imagined`, on the device."""
    latent = world.imagine(key, context, actions, num_steps=dials.num_steps, context_noise=dials.context_noise)
    outcome = world.foretell(context, actions, latent)
    p = jax.nn.sigmoid(outcome.termination_logit)
    expected = (1 - p) * outcome.reward + p * outcome.last_reward
    return latent, expected, p, outcome.variables


def _dream(world: WorldModel, key: jax.Array, past: jax.Array, actions: jax.Array, *, dials: Dials) -> jax.Array:
    n = past.shape[1]

    def one(key: jax.Array, past: jax.Array, actions: jax.Array) -> jax.Array:
        state = core.encode_context(world, past, actions[: n - 1])
        carry = core.carry_from(key, state)
        return core.rollout(world, carry, actions[n - 1 :], dials.of_env(), core.latent).observation

    return jax.vmap(one)(jax.random.split(key, len(past)), past, actions)


def _in_batches(function: Callable[..., Any], total: int, gather: Callable[[np.ndarray], Any], what: str) -> Any:
    """The function of all rows, in batches of one shape, at most `BATCH`: the last one repeats its last row."""
    size = -(-total // -(-total // BATCH))
    parts = []
    for start in track(range(0, total, size), what):
        rows = np.minimum(np.arange(start, start + size), total - 1)
        key = jax.random.fold_in(jax.random.key(0), start)
        parts.append(jax.tree.map(np.asarray, function(key, *gather(rows))))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:total], *parts)


@dataclass(frozen=True, eq=False)
class Forced:
    """One-step predictions from the true past: outcomes of all windows, pictures of some.

    The engine shows no frame after a transition that terminates, so none of the pictures belongs to one.
    """

    windows: Windows
    outcomes: Imagined
    shown: Windows  # those of which there are pictures
    frames: np.ndarray  # [k, H, W, 3] uint8, dreamed from the noise that `shuffled` is dreamed from
    reconstructed: np.ndarray  # [k, H, W, 3] the true next frame through the auto-encoder: the ceiling
    shuffled: np.ndarray  # [k, H, W, 3] dreamed with the action taken in another window, the past left as it is
    swapped: np.ndarray  # [k] bool: where that action is another one


def force(dreamer: Dreamer, windows: Windows, pictures: int | None = None) -> Forced:
    """Predicts all windows; pictures, at most so many, are those of windows spread evenly."""
    alive = np.flatnonzero(~windows.ends)
    count = len(alive) if pictures is None else min(pictures, len(alive))
    rows = alive[np.linspace(0, len(alive) - 1, count).astype(int)]
    shown = windows[rows]
    latents = dreamer.encode(windows.screens)
    outcomes = dreamer.imagine(latents, windows.past, windows.actions, "teacher-forced")
    shuffled = shown.actions.copy()
    shuffled[:, -1] = np.random.default_rng(0).permutation(shown.actions[:, -1])
    # The true actions anew, in the rows in which the others are imagined: noise follows from the row.
    those = dreamer.imagine(latents, shown.past, shown.actions, "true actions")
    others = dreamer.imagine(latents, shown.past, shuffled, "shuffled actions")
    return Forced(
        windows,
        outcomes,
        shown,
        frames=dreamer.decode(those.latents),
        reconstructed=dreamer.decode(latents[shown.last + 1]),
        shuffled=dreamer.decode(others.latents),
        swapped=shown.actions[:, -1] != shuffled[:, -1],
    )


def teacher_forced(world: WorldModel, windows: Windows, dials: Dials) -> dict[str, float]:
    """Scores of one-step predictions from the true past."""
    return scores_of(force(Dreamer(world, dials), windows))


def scores_of(forced: Forced) -> dict[str, float]:
    """Means over the pictures, and over all windows where the outcome is concerned.

    Transitions that terminate count for reward and termination only.
    """
    windows, outcomes, after = forced.windows, forced.outcomes, forced.shown.after
    true_psnr, false_psnr = psnr(forced.frames, after), psnr(forced.shuffled, after)
    swapped, p, ends = forced.swapped, outcomes.termination, windows.ends
    reward_error = np.abs(outcomes.rewards - windows.rewards)
    scores = {
        "frames": float(len(after)),
        "autoencoder_psnr": float(psnr(forced.reconstructed, after).mean()),
        "psnr": float(true_psnr.mean()),
        "copy_last_psnr": float(psnr(forced.shown.present, after).mean()),
        "shuffled_psnr": float(false_psnr.mean()),
        "true_where_swapped_psnr": float(true_psnr[swapped].mean()) if swapped.any() else 0.0,
        "shuffled_where_swapped_psnr": float(false_psnr[swapped].mean()) if swapped.any() else 0.0,
        "reward_mean_absolute_error": float(reward_error.mean()),
        "reward_agreement": float((reward_error < 0.5).mean()),
        "termination_agreement": float(np.where(ends, p, 1 - p).mean()),
        "termination_steps": float(len(ends)),
        "termination_events": float(ends.sum()),
        "termination_false_alarms_per_1000": float(1000 * p[~ends].mean()),
    }
    if ends.any():
        scores["termination_recall"] = float(p[ends].mean())
        scores["termination_average_precision"] = average_precision(p, ends)
    scores["termination_calibration_error"] = expected_calibration_error(p, ends)
    error = np.abs(outcomes.variables - windows.variables)[~ends].mean(axis=0)
    return scores | {f"variable_{i}_mean_absolute_error": float(e) for i, e in enumerate(error)}


@dataclass(frozen=True, eq=False)
class Rollouts:
    """Dreams that see their own frames, and what the real game showed; index 0 is the first dreamed frame."""

    episode: np.ndarray  # [r] int64: number of the episode that each follows
    start: np.ndarray  # [r] int64: which of its frames the first dreamed one answers to
    past: np.ndarray  # [r, n, H, W, 3] uint8: the real frames that the dream began with
    actions: np.ndarray  # [r, t] int32: `actions[:, i]` led to frame i
    dreamed: np.ndarray  # [r, t, H, W, 3] uint8
    real: np.ndarray  # [r, t, H, W, 3] uint8


class RolloutScores(NamedTuple):
    """Fidelity by age of the dream; index 0 is the first dreamed frame."""

    psnr: np.ndarray  # [rollouts, horizon] dB
    copy_first_psnr: np.ndarray  # [rollouts, horizon] dB: the last real frame, held
    dreamed: np.ndarray  # [horizon, H, W, 3] of the first roll-out
    real: np.ndarray  # [horizon, H, W, 3]


def roll(dreamer: Dreamer, episodes: Sequence[Episode], horizon: int = 64, rollouts: int = BATCH) -> Rollouts:
    """Dreams of `horizon` steps under the real actions.

    Starts are spread evenly over all places from which the real episode goes on for `horizon` steps.

    Raises:
        ValueError: no episode is that long.
    """
    n = dreamer.context
    places = [(e, t) for e, episode in enumerate(episodes) for t in range(n, len(episode) - horizon + 1)]
    if not places:
        raise ValueError(f"no episode has the {n + horizon} steps of a context and a roll-out: play longer episodes")
    chosen = [places[i] for i in np.linspace(0, len(places) - 1, rollouts).astype(int)]
    past = np.stack([episodes[e].frames[t - n : t] for e, t in chosen])
    actions = np.stack([episodes[e].actions[t - n : t - 1 + horizon] for e, t in chosen])
    latents = dreamer.dream(past, actions, f"dream {horizon} steps")
    flat = latents.reshape(-1, *latents.shape[2:])
    dreamed = dreamer.decode(flat, "decode dreams").reshape(rollouts, horizon, *past.shape[2:])
    real = np.stack([episodes[e].frames[t : t + horizon] for e, t in chosen])
    episode, start = np.array(chosen).T
    return Rollouts(episode, start, past, actions[:, n - 1 :], dreamed, real)


def drift(rollouts: Rollouts) -> RolloutScores:
    """PSNR by age of the dream."""
    held = np.broadcast_to(rollouts.past[:, -1:], rollouts.real.shape)
    of_dream, of_held = psnr(rollouts.dreamed, rollouts.real), psnr(held, rollouts.real)
    return RolloutScores(of_dream, of_held, rollouts.dreamed[0], rollouts.real[0])


def autoregressive(
    world: WorldModel, episodes: Sequence[Episode], dials: Dials, horizon: int = 64, rollouts: int = BATCH
) -> RolloutScores:
    """PSNR of dreams that see their own frames for `horizon` steps, given the real actions; raises as `roll`."""
    return drift(roll(Dreamer(world, dials), episodes, horizon, rollouts))


def long_dream(world: WorldModel, starts: Starts, dials: Dials, length: int, seed: int = 0) -> np.ndarray:
    """Frames [length, H, W, 3] of one dream under the sticky-random policy, terminations passed over."""
    actions = sticky_actions(world.outcome.num_actions, length, seed)
    state = core.DreamState(jnp.asarray(starts.latents[0]), jnp.asarray(starts.actions[0]))
    carry = core.carry_from(jax.random.key(seed), state)
    return np.asarray(core.bind(core.rollout, world)(carry, actions, dials.of_env()).observation)


def sticky_actions(num_actions: int, length: int, seed: int) -> np.ndarray:
    """A row of actions, int32 [length], of the sticky-random policy, which looks at nothing."""
    policy = StickyRandom(num_actions)
    policy.reset(np.random.default_rng([seed, 1]))
    return np.array([policy.act(np.empty(0), np.empty(0)) for _ in range(length)], np.int32)
