"""What a fresh process with N dreams holds in memory at most, in MiB; its median time is that of the first step."""

from __future__ import annotations

import pytest

from neural_env.bench.startup import startup


@pytest.mark.parametrize("observation", ["rgb", "latent"])
def test_memory(benchmark, observation):
    arguments = {"checkpoint": "take_cover", "observation": observation, "runtime": "xla"}
    measured = benchmark.pedantic(startup, kwargs=arguments, rounds=1)
    benchmark.extra_info.update({name.replace(" ", "_"): value for name, value in measured.items()})
    assert measured["resident MiB"] > 0
