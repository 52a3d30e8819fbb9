"""What the wrappers' tests share: a tiny dream, and a real game that costs nothing."""

import gymnasium as gym
import numpy as np
import pytest

import neural_env  # noqa: F401  registers the environments
from neural_env.wrappers import real_past


class FakeReal:
    """A real game that counts its steps on the screen, and ends when it is told to."""

    ends = None  # step, counted from the reset, and whether it terminates
    made = 0  # how many there have been

    def __init__(self, scenario, resolution, frame_skip):
        self.observation_space = gym.spaces.Box(0, 255, (*resolution, 3), np.uint8)
        self.made_with = scenario, resolution, frame_skip
        self.closed = False
        self.seeds = []
        type(self).made += 1

    def reset(self, *, seed=None, options=None):
        self.seed, self.time, self.actions = seed, 0, []
        self.seeds.append(seed)
        return self._screen(), {"variables": {"health": 100.0}}

    def step(self, action):
        self.time += 1
        self.actions.append(int(action))
        ended, terminates = (self.ends or (None, False))[0] == self.time, bool(self.ends and self.ends[1])
        return self._screen(), 2.5, ended and terminates, ended and not terminates, {"variables": {"health": 1.0}}

    def close(self):
        self.closed = True

    def _screen(self):
        return np.full(self.observation_space.shape, 10 * self.time % 256, np.uint8)


@pytest.fixture
def fake(monkeypatch):
    class Fake(FakeReal):
        pass

    monkeypatch.setattr(real_past, "RealDoom", Fake)
    return Fake


@pytest.fixture(scope="session")
def tiny_dream(tiny_world_folder):
    """One dream for all tests that leave it open; its dials are put back by `dream`."""
    env = gym.make("NeuralDoom-v0", checkpoint=str(tiny_world_folder))
    yield env
    env.close()


@pytest.fixture
def dream(tiny_dream):
    yield tiny_dream
    tiny_dream.unwrapped.context_noise = 0.0


@pytest.fixture
def make_dream(tiny_world_folder):
    """A dream of the test's own, for what closes or copies it."""

    def make(**arguments):
        return gym.make("NeuralDoom-v0", checkpoint=str(tiny_world_folder), **arguments)

    return make
