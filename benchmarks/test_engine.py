"""The real engine on the same cores: raw steps a second, one game and one on every core."""

from __future__ import annotations

import pytest

from neural_env.bench.clock import CORES
from neural_env.bench.engine import engine_rate


@pytest.mark.parametrize("games", sorted({1, CORES}))
@pytest.mark.parametrize("scenario", ["take_cover", "defend_the_center"])
def test_engine(benchmark, scenario, games):
    rate = benchmark.pedantic(engine_rate, args=(scenario, games, 4.0), rounds=1)
    benchmark.extra_info["env_steps_per_s"] = rate
    assert rate > 0
