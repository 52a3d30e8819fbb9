"""The soak test, shortened: what it watches is watched, and what it finds is told."""

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "soak.py"


@pytest.fixture(scope="module")
def soak():
    spec = importlib.util.spec_from_file_location("soak", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["soak"]


@pytest.mark.slow
def test_a_few_hundred_steps_compile_nothing_and_keep_nothing(soak, capsys):
    assert soak.main(soak.SoakConfig(steps=600, warm_up=300, num_envs=2)) == 0
    assert "0 traces and compilations" in capsys.readouterr().out


def test_what_is_compiled_or_kept_fails(soak):
    config = soak.SoakConfig()
    assert soak.Soak(0, 0.049, 500, 1, 1).passes(config)
    assert not soak.Soak(1, 0.0, 500, 1, 1).passes(config)
    assert not soak.Soak(0, 0.051, 500, 1, 1).passes(config)
