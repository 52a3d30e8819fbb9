"""The sweep that is run unattended where there is a GPU, at its smallest and on the CPU."""

import json

import jax
import jax.numpy as jnp
import pytest

from neural_env.envs import core
from neural_env.envs.dials import Dials


@pytest.fixture(scope="module")
def gpu(benchmark_module):
    return benchmark_module("gpu")


@pytest.mark.slow
def test_a_smoke_run_leaves_both_files_and_a_row_for_every_program(gpu, tmp_path):
    rows = gpu.main(gpu.GpuConfig(out=tmp_path, smoke=True))
    document = json.loads((tmp_path / "gpu.json").read_text())
    kinds = [(row["precision"], row["observe"], row["dreams"]) for row in document["rows"]]
    assert kinds == [("bfloat16", "screen", 2), ("float32", "screen", 2), ("bfloat16", "latent", 2)]
    assert all(row.steps_per_s > 0 and row.of_peak > 0 and row.mib_a_dream > 0 for row in rows)
    assert set(document["peaks"]) == {"float32", "bfloat16"} and document["engine_steps_per_s"]["1"] > 0
    assert (tmp_path / "gpu.md").read_text().count("| tiny |") == 3


def test_a_sweep_ends_where_the_memory_does(gpu, tmp_path, monkeypatch, capsys):
    def measured(config, peaks, world, precision, num_steps, observe, dreams):
        if dreams > 3:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return gpu.Row(world, precision, num_steps, observe, dreams, 1.0, 1.0, 0.5, 1.0, 1.0)

    monkeypatch.setattr(gpu, "measured", measured)
    config = gpu.GpuConfig(out=tmp_path, sizes=(1, 3, 4, 5), observe=("screen",), num_steps=(1,))
    assert [row.dreams for row in gpu.sweep(config, {})] == [1, 3, 1, 3]
    assert "4 dreams of small in float32 are more than the device's memory holds" in capsys.readouterr().out


def convolutions(jaxpr):
    """How many there are, in all programs within."""
    return str(jaxpr).count("conv_general_dilated[")


def test_a_roll_out_overwrites_its_past_and_runs_every_layer_once_a_step(gpu, tiny_world):
    carries, actions = gpu.beginning(tiny_world, 2), jnp.zeros((5, 2), jnp.int32)

    def play(world, carries, actions):
        return gpu.roll_out(world, carries, actions, Dials(), core.screen)

    program = jax.jit(play, donate_argnums=1).lower(tiny_world, carries, actions).compile()
    past = sum(leaf.nbytes for leaf in jax.tree.leaves(carries))
    assert program.memory_analysis().alias_size_in_bytes >= past
    one = jax.tree.map(lambda leaf: leaf[0], carries)
    rolled = jax.make_jaxpr(core.rollout)(tiny_world, one, actions[:, 0])
    stepped = jax.make_jaxpr(core.advance)(tiny_world, one, jnp.int32(0))
    assert convolutions(rolled) == convolutions(stepped) > 10
