"""How much of the raw engine's rate a collection keeps: both in one run, in turn, on the same cores.

The raw engine is `DoomGame.make_action` with the same settings (160x120, frame skip 4, HUD) and the same player in as
many processes as the collection has games; it reads no signals and writes nothing. The collection records frames,
actions, rewards, variables and signals, compresses, hashes and syncs them. Start-up is left out of both.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

import pytest

from neural_env.bench.clock import CORES
from neural_env.data.collect import CollectConfig, plan
from neural_env.data.workers import shards_here, shards_of_workers

SECONDS = 4.0  # of raw play in each round
WARM_UP = 0.25  # the share of the episodes that isn't timed: processes start, caches fill


def raw_rate(scenario: str, games: int, seconds: float = SECONDS) -> float:
    """Steps a second of all games together."""
    start = time.time() + 2.0 + games / CORES
    command = [sys.executable, str(Path(__file__).with_name("raw_engine.py")), scenario, str(start), str(seconds)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(games)]
    return sum(float(process.communicate()[0]) for process in processes)


def collected_rate(scenario: str, games: int, episodes: int) -> float:
    """Steps a second of all games together, until the last shard is on disk."""
    heard: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        config = CollectConfig(out=folder, scenario=scenario, episodes=episodes, workers=games)
        make = shards_here if games == 1 else shards_of_workers
        with closing(make(config, plan(config), lambda frames: heard.append((time.perf_counter(), frames)))) as shards:
            for _ in shards:
                pass
        end = time.perf_counter()
    first = round(WARM_UP * episodes)
    return sum(frames - 1 for _, frames in heard[first:]) / (end - heard[first - 1][0])


def ratios(scenario: str, games: int, episodes: int, rounds: int) -> list[tuple[float, float]]:
    """Rates of the collection and of the raw engine, in turn, so that what else the machine does meets both."""
    return [(collected_rate(scenario, games, episodes), raw_rate(scenario, games)) for _ in range(rounds)]


@pytest.mark.parametrize("games", sorted({1, CORES}))
@pytest.mark.parametrize("scenario", ["take_cover", "defend_the_center"])
def test_collect(benchmark, scenario, games):
    measured = benchmark.pedantic(ratios, args=(scenario, games, 320 * games, 3), rounds=1)
    collected, raw = (median(rates) for rates in zip(*measured, strict=True))
    ratio = median(ours / theirs for ours, theirs in measured)
    benchmark.extra_info.update(collected_steps_per_s=collected, raw_steps_per_s=raw, ratio=ratio)
    print(f"\n{scenario}, {games} games on {CORES} cores: {collected:.0f} of {raw:.0f} steps/s, {ratio:.0%}")
    assert ratio > 0
