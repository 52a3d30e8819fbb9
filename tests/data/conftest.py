"""A small recorded dataset of a game that doesn't exist, with every kind of player."""

import numpy as np
import pytest

from neural_env.data.episode import Episode
from neural_env.data.recorder import Recorder
from neural_env.game import GameConfig

TOY = GameConfig("toy", ("noop", "go"), ("health",), 4, (6, 8))
SIGNALS = ("killcount", "dead")


def toy_episode(seed):
    """Random players first, then an agent that gets better; a kill at transition 2, and the player dies."""
    rng, t, learned = np.random.default_rng(seed), 5 + seed % 3, max(0, seed - 6)
    signals = np.zeros((t + 1, 2), np.float32)
    signals[3:, 0], signals[-1, 1] = 1, 1
    return Episode(
        frames=rng.integers(0, 256, (t + 1, 6, 8, 3), np.uint8),
        actions=rng.integers(0, 2, t).astype(np.int32),
        rewards=np.full(t, 1 + learned, np.float32),
        variables=rng.normal(size=(t + 1, 1)).astype(np.float32),
        signals=signals,
        terminated=seed % 4 > 0,
        truncated=seed % 4 == 0,
        seed=seed,
        policy="ppo" if learned else "random",
        policy_version=10 * learned,
        skill=float(learned) / 3 if learned else None,
    )


@pytest.fixture
def toy_folder(tmp_path):
    folder = tmp_path / "toy"
    with Recorder(folder, TOY, policy="ppo", signal_names=SIGNALS, episodes_per_shard=5, command="make toy") as run:
        for seed in range(24):
            run.add(toy_episode(seed))
    return folder
