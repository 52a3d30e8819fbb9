"""The raw engine's rate: `DoomGame.make_action` and the state that it brings, with `RealDoom`'s settings, no more.

    python -m neural_env.bench.engine SCENARIO START SECONDS

prints the steps a second of one game, played by the random player of a collection. It begins at START, in seconds since
the epoch, so that the games of several processes begin together.
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

from neural_env.bench.clock import CORES

MAX_STEPS = 525  # of an episode


def engine_rate(scenario: str, games: int, seconds: float) -> float:
    """Steps a second of all games together, one process each.

    Raises:
        RuntimeError: a game failed; its last words are in the message.
    """
    start = time.time() + 2.0 + games / CORES
    command = [sys.executable, "-m", __spec__.name, scenario, str(start), str(seconds)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, text=True, **streams) for _ in range(games)]  # type: ignore[call-overload]
    outputs = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        if process.returncode:
            raise RuntimeError(f"a game of {scenario} ended with status {process.returncode}: {errors.strip()[-300:]}")
    return sum(float(out) for out, _ in outputs)


def play(scenario: str, start: float, seconds: float) -> float:
    """Steps a second of one game in this process."""
    from neural_env.data.policies import StickyRandom
    from neural_env.data.vizdoom import DoomEngine

    engine = DoomEngine(scenario)
    engine.new_episode(0)
    game, presses, policy = engine._game, engine._presses, StickyRandom(len(engine._presses))
    assert game is not None, "new_episode starts it"
    time.sleep(max(0.0, start - time.time()))
    nothing = np.empty(0, np.uint8)  # the player looks at nothing
    began, steps, seed = time.perf_counter(), 0, 0
    while time.perf_counter() - began < seconds:
        policy.reset(np.random.default_rng([seed, 1]))
        game.set_seed(seed)
        game.new_episode()
        seed, first = seed + 1, steps
        while not game.is_episode_finished() and steps - first < MAX_STEPS:
            game.make_action(presses[policy.act(nothing, nothing)], engine.frame_skip)
            game.get_state()
            steps += 1
    rate = steps / (time.perf_counter() - began)
    engine.close()
    return rate


if __name__ == "__main__":
    print(play(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
