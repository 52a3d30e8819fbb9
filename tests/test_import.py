"""What importing costs, each time in a process of its own."""

import os
import subprocess
import sys

import pytest


def run(code, *arguments):
    """The output of a fresh Python; a failure shows what it wrote."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_neither_jax_nor_the_engine():
    heavy = run("import sys, neural_env; print([m for m in ('jax', 'flax', 'vizdoom', 'pygame') if m in sys.modules])")
    assert heavy == "[]"


def test_importing_the_package_takes_less_than_half_a_second():
    """Processor time, so that a busy machine doesn't count; Gymnasium's import is included."""
    code = "import time; t = time.process_time(); import neural_env; print(time.process_time() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.5


def test_making_an_environment_starts_no_jax_backend(tiny_world_folder):
    """Gymnasium's asynchronous vector forks after making one, and a JAX that has started would deadlock."""
    code = """
import sys, gymnasium as gym, neural_env
env = gym.make("NeuralDoom-v0", checkpoint=sys.argv[1])
from jax._src import xla_bridge
print(xla_bridge.backends_are_initialized())
env.reset(seed=0)
print(xla_bridge.backends_are_initialized())
"""
    assert run(code, tiny_world_folder).split() == ["False", "True"]


def test_an_environment_is_made_without_an_import_by_naming_the_module(tiny_world_folder):
    code = """
import sys, gymnasium as gym
env = gym.make("neural_env:NeuralDoom-v0", checkpoint=sys.argv[1])
print(env.spec.id, env.unwrapped.max_episode_steps, env.unwrapped.scenario)
"""
    assert run(code, tiny_world_folder) == "NeuralDoom-v0 525 take_cover"


def test_reloading_the_package_does_not_warn():
    assert run("import importlib, neural_env; importlib.reload(neural_env); print('quiet')") == "quiet"


def test_load_is_there_without_naming_its_module():
    import neural_env
    from neural_env.checkpoint import load

    assert neural_env.load is load


def test_an_unknown_name_is_no_attribute():
    import neural_env

    with pytest.raises(AttributeError, match="'neural_env' has no attribute 'lode'"):
        neural_env.lode  # noqa: B018
