"""Every example runs, at smoke size, on a tiny world."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted(Path(__file__).parents[1].glob("examples/*.py"))


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example, tiny_world_folder, tmp_path):
    """On a world where it takes one."""
    world = ["--checkpoint", str(tiny_world_folder)] if "--checkpoint" in example.read_text() else []
    done = subprocess.run(
        [sys.executable, str(example), "--smoke", *world],
        capture_output=True,
        text=True,
        timeout=250,
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout and "Traceback" not in done.stderr


def test_the_planner_survives_where_the_dream_says_it_will():
    """The future with the least danger is begun, not the one with the luckiest draw."""
    import importlib.util

    import numpy as np

    spec = importlib.util.spec_from_file_location("plan_by_branching", EXAMPLES[0].parent / "plan_by_branching.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    class Dream:
        action_names = ("noop", "move_left", "move_right")

        def get_state(self):
            return None

        def branch(self, snapshot, actions, seed):
            danger = np.where(actions == 2, 0.01, 0.3).astype(np.float32)
            return example.Branches(None, None, np.zeros_like(danger, bool), danger, None, ())

    rng = np.random.default_rng(0)
    assert [example.plan(Dream(), rng, futures=64, horizon=4) for _ in range(5)] == [2] * 5
