"""CPU time that a step costs, of the raw engine and of a collection: `collect_cost.py SCENARIO GAMES [ROUNDS]`.

Unlike a rate, it means something on a machine that is busy with other work. Each is measured as the difference of a
long run and a short one, so that start-up is left out; both in turn, so that what disturbs them meets both.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from neural_env.data.collect import CollectConfig, plan
from neural_env.data.workers import shards_here, shards_of_workers


def cpu_seconds() -> float:
    """Of this process and all that have ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def collection(scenario: str, games: int, episodes: int) -> tuple[float, float]:
    """CPU seconds and steps."""
    began, frames = cpu_seconds(), []
    with tempfile.TemporaryDirectory() as folder:
        config = CollectConfig(out=folder, scenario=scenario, episodes=episodes, workers=games)
        make = shards_here if games == 1 else shards_of_workers
        with closing(make(config, plan(config), frames.append)) as shards:
            for _ in shards:
                pass
    return cpu_seconds() - began, sum(frames) - len(frames)


def raw(scenario: str, games: int, seconds: float) -> tuple[float, float]:
    """CPU seconds and steps."""
    began, start = cpu_seconds(), time.time() + 2.0 + games / 2
    command = [sys.executable, str(Path(__file__).with_name("raw_engine.py")), scenario, str(start), str(seconds)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(games)]
    steps = sum(float(process.communicate()[0]) * seconds for process in processes)
    return cpu_seconds() - began, steps


def a_step(short: tuple[float, float], long: tuple[float, float]) -> float:
    """Microseconds."""
    return 1e6 * (long[0] - short[0]) / (long[1] - short[1])


def main(scenario: str, games: int, rounds: int) -> None:
    for _ in range(rounds):
        ours = a_step(collection(scenario, games, 32 * games), collection(scenario, games, 160 * games))
        theirs = a_step(raw(scenario, games, 1.0), raw(scenario, games, 4.0))
        print(
            f"{scenario}, {games} games: {ours:.0f} us a step, raw engine {theirs:.0f}: {theirs / ours:.0%}", flush=True
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 3)
