"""A game whose law is known, and the world that is right about it: the picture rolls to where the action says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env.checkpoint import Checkpoint, Starts
from neural_env.data.episode import Episode
from neural_env.game import GameConfig
from neural_env.world.diffusion import EDM
from neural_env.world.distilled import Distilled
from neural_env.world.model import PRESETS, WorldModel
from neural_env.world.outcome import Outcome

SIZE = (40, 48)
SHIFTS = (0, -3, 3)  # pixels that the picture moves to the right, by action
GAME = GameConfig("take_cover", ("noop", "move_left", "move_right"), ("place",), 4, SIZE)


class Law(WorldModel):
    """The game itself, as a world model: latents are the frames."""

    def __init__(self):
        self.objective = EDM()
        self.context = 4
        self.latent_shape = (*SIZE, 3)

    def encode(self, frames):
        return frames.astype(jnp.float32)

    def decode(self, latent):
        return jnp.clip(jnp.round(latent), 0, 255).astype(jnp.uint8)

    def imagine(self, key, context, actions, **dials):
        shifts = jnp.array(SHIFTS)[self.heard(actions[:, -1])]
        return jax.vmap(lambda x, shift: jnp.roll(x, shift, axis=1))(context[:, -1], shifts)

    def foretell(self, context, actions, latent):
        place = jnp.argmax(latent[:, 0, :, 0], axis=1)
        reward = jnp.where(actions[:, -1] == 2, 3.0, 1.0)
        variables = place[:, None].astype(jnp.float32)
        return Outcome(reward, jnp.where(place == 0, 30.0, -30.0), variables, reward, variables)

    def heard(self, actions):
        return actions


class Shuffled(Law):
    """Takes every action for another one."""

    def heard(self, actions):
        return (actions + 1) % 3


class Deaf(Law):
    """Does the same, whatever the action."""

    def heard(self, actions):
        return 0 * actions


class OneStep(Law):
    """Distilled: it makes one step and no more."""

    def __init__(self):
        super().__init__()
        self.objective = Distilled()

    def imagine(self, key, context, actions, *, num_steps, **dials):
        if num_steps != 1:
            raise ValueError(f"num_steps is {num_steps}")
        return super().imagine(key, context, actions)


class Fading(Law):
    """Right about where things are; loses an eighth of its light with every frame."""

    def decode(self, latent):
        return super().decode(0.9 * latent)

    def imagine(self, key, context, actions, **dials):
        return 0.875 * super().imagine(key, context, actions)


def law_episode(seed, steps):
    """Rolls a picture of coloured squares until its brightest column, in the first row, comes to the left edge."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(20, 200, (SIZE[0] // 4, SIZE[1] // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    place = int(rng.integers(4, 12)) * 3
    picture[0, place] = (255, 0, 0)
    frames, actions, variables, terminated = [picture], [], [place], False
    while len(actions) < steps and not terminated:
        actions.append(int(rng.integers(3)))
        frames.append(np.roll(frames[-1], SHIFTS[actions[-1]], axis=1))
        variables.append(int(frames[-1][0, :, 0].argmax()))
        terminated = variables[-1] == 0
    if terminated:  # the engine shows no frame after the last transition
        frames[-1] = frames[-2]
    chosen = np.array(actions, np.int32)
    return Episode(
        frames=np.stack(frames),
        actions=chosen,
        rewards=np.where(chosen == 2, 3.0, 1.0).astype(np.float32),
        variables=np.array(variables, np.float32)[:, None],
        signals=np.zeros((len(frames), 0), np.float32),
        terminated=terminated,
        truncated=not terminated,
        seed=seed,
        policy="luck",
    )


@pytest.fixture(scope="session")
def law_episodes():
    """Six episodes: some end, some are cut off."""
    episodes = [law_episode(seed, 90) for seed in (1, 11, 41, 91, 121, 131)]
    assert {episode.terminated for episode in episodes} == {True, False}
    return episodes


@pytest.fixture(scope="session")
def law():
    """Checkpoints of `Law` and of what is wrong with it, by kind."""
    starts = Starts(np.zeros((1, 4, *SIZE, 3), np.float32), np.zeros((1, 3), np.int32))
    kinds = {"oracle": Law, "shuffled": Shuffled, "deaf": Deaf, "fading": Fading, "one step": OneStep}
    return lambda kind: Checkpoint(kinds[kind](), PRESETS["tiny"], GAME, starts, {"preset": "none"}, {})
