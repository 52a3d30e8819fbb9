"""Which way to dodge: what the real game says, by trying, and what the dream says, by how many steps it is followed.

A few steps before random players were hurt, the real game is gone on with in each direction for 8 steps, several times
over at random from there on: how soon harm comes is the truth. Then each direction is dreamed, and the danger that is
read off after so many steps is compared with it, beside the danger read off the real game's frames. Validation seeds.

    .venv/bin/python runs/take_cover_branches.py runs/danger/take_cover
    .venv/bin/python runs/take_cover_branches.py out/few out/few/world
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import neural_env
from neural_env.data.episode import Episode
from neural_env.data.play import play
from neural_env.data.policies import StickyRandom
from neural_env.envs.real_doom import RealDoom
from neural_env.evaluation.world import seeds_of
from neural_env.training.danger import load_danger
from neural_env.training.latents import encode_frames
from neural_env.world.danger import DISCOUNT
from neural_env.world.model import WorldModel

MOMENTS, HELD, AFTER, TIMES = 120, 8, 8, 4  # steps an action is held, and at random after it, so many times
LEFT, RIGHT = 1, 2


class Scripted:
    """A player that is told what to do at each step; its randomness is the script's own."""

    name, version, skill, sees = "scripted", 0, None, ()

    def __init__(self, script: Callable[[int], int]) -> None:
        self._script, self._step = script, 0

    def reset(self, rng: np.random.Generator) -> None:
        """Nothing: it plays one game."""

    def act(self, frame: np.ndarray, variables: np.ndarray) -> int:
        """The script's next action."""
        self._step += 1
        return self._script(self._step - 1)


def hurt_at(episode: Episode) -> np.ndarray:
    """The steps in which health was lost, or the life."""
    lost = np.diff(episode.variables[:, 0]) < 0
    lost[-1] |= episode.terminated
    return np.flatnonzero(lost)


def at_random(seed: list[int]) -> Callable[[int], int]:
    """Keeps its last action every second time."""
    policy = StickyRandom(3, 0.5)
    policy.reset(np.random.default_rng(seed))
    return lambda step: policy.act(np.empty(0), np.empty(0))


def branched(
    env: RealDoom, seed: int, past: list[int], action: int, after: Callable[[int], int], steps: int
) -> Episode:
    """The game of that past, gone on with; equal choices are equal games."""
    given = [*past, *[action] * HELD]
    player = Scripted(lambda step: given[step] if step < len(given) else after(step))
    return play(env, player, seed=seed, max_steps=len(past) + steps)


def moments(env: RealDoom) -> list[tuple[int, list[int]]]:
    """Seed and past of moments 3 to 11 steps before a random player is hurt, one a game."""
    rng = np.random.default_rng(5)
    found: list[tuple[int, list[int]]] = []
    for seed in seeds_of("validation", 10 * MOMENTS):
        game = play(env, Scripted(at_random([seed])), seed=seed, max_steps=150)
        starts = hurt_at(game) - rng.integers(3, 12)
        if (starts >= 4).any() and len(found) < MOMENTS:
            found.append((seed, game.actions[: starts[starts >= 4][0]].tolist()))
    return found


def harm(env: RealDoom, seed: int, past: list[int], action: int) -> float:
    """DISCOUNT^k, `k` the steps until harm in the real game, on average."""
    sums = 0.0
    for time in range(TIMES):
        game = branched(env, seed, past, action, at_random([seed, action, time]), HELD + AFTER)
        hurt = hurt_at(game)
        soon = hurt[hurt >= len(past)] - len(past)
        sums += DISCOUNT ** soon[0] if len(soon) else 0.0
    return sums / TIMES


def shown(env: RealDoom, world: WorldModel, seed: int, past: list[int], action: int) -> np.ndarray:
    """Latents [n + HELD, h, w, c] of the context and of the real frames that follow; the last one stays."""
    frames = list(branched(env, seed, past, action, lambda step: 0, HELD).frames)
    frames += [frames[-1]] * (len(past) + HELD + 1 - len(frames))
    return encode_frames(world.autoencoder, np.stack(frames[len(past) + 1 - world.context :]))


@jax.jit
def imagined(world: WorldModel, key: jax.Array, context: jax.Array, actions: jax.Array) -> jax.Array:
    """The next latents."""
    return world.imagine(key, context, actions, num_steps=world.num_steps)


def main(run: str, name: str = "take_cover") -> None:
    """Prints the table of a world, bundled or a checkpoint folder, and of what a run learned is dangerous."""
    checkpoint = neural_env.load(name)
    world, danger = checkpoint.world, jax.jit(load_danger(Path(run), checkpoint).__call__)
    env = RealDoom("take_cover")
    places = moments(env)
    truth = np.array([harm(env, *place, LEFT) - harm(env, *place, RIGHT) for place in places])
    matters = np.abs(truth) > 0.2
    real = {a: np.stack([shown(env, world, *place, a) for place in places]) for a in (LEFT, RIGHT)}
    n = world.context
    read: dict[str, dict[int, Any]] = {"dream": {}, "game": {}}
    for action in (LEFT, RIGHT):
        context = jnp.asarray(real[action][:, :n], jnp.float32)
        past = jnp.asarray([past[1 - n :] for _, past in places], jnp.int32)
        for step in range(1, HELD + 1):
            actions = jnp.concatenate([past, jnp.full((len(past), 1), action)], axis=1)
            parts = [slice(i, i + 20) for i in range(0, len(past), 20)]
            latent = jnp.concatenate([imagined(world, jax.random.key(step), context[p], actions[p]) for p in parts])
            context, past = jnp.concatenate([context[:, 1:], latent[:, None]], axis=1), actions[:, 1:]
            for kind, seen in (("dream", context), ("game", real[action][:, step : step + n])):
                found = np.asarray(danger(jnp.asarray(seen, jnp.float32), past))
                read[kind][step] = read[kind].get(step, 0.0) + (found if action == LEFT else -found)
    print(
        f"{len(places)} moments; where it matters, {matters.sum()}: the safer side is told, and correlation with truth"
    )
    for step in range(1, HELD + 1):
        cells = []
        for kind in ("dream", "game"):
            told = (np.sign(read[kind][step]) == np.sign(truth))[matters].mean()
            cells.append(f"{kind} {told:.0%} {np.corrcoef(read[kind][step], truth)[0, 1]:.2f}")
        print(f"after {step} steps: {'   '.join(cells)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
