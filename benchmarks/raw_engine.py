"""The raw engine's rate, one game in this process: `raw_engine.py SCENARIO START SECONDS` prints steps a second.

`DoomGame.make_action` and the state that it brings, with the settings of `RealDoom`, and nothing else; the player is
the random one of a collection. It begins at START, in seconds since the epoch, so that several begin together.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from neural_env.data.policies import StickyRandom
from neural_env.data.vizdoom import DoomEngine

MAX_STEPS = 525


def steps_a_second(scenario: str, start: float, seconds: float) -> float:
    engine = DoomEngine(scenario)
    engine.new_episode(0)
    game, presses, policy = engine._game, engine._presses, StickyRandom(len(engine._presses))
    time.sleep(max(0.0, start - time.time()))
    began, steps, seed = time.perf_counter(), 0, 0
    while time.perf_counter() - began < seconds:
        policy.reset(np.random.default_rng([seed, 1]))
        game.set_seed(seed)
        game.new_episode()
        seed, first = seed + 1, steps
        while not game.is_episode_finished() and steps - first < MAX_STEPS:
            game.make_action(presses[policy.act(None, None)], engine.frame_skip)
            game.get_state()
            steps += 1
    rate = steps / (time.perf_counter() - began)
    engine.close()
    return rate


if __name__ == "__main__":
    print(steps_a_second(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
