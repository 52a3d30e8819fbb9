import json
import time
from functools import partial
from types import SimpleNamespace

import gymnasium as gym
import jax
import pytest

from neural_env.bench import run
from neural_env.bench.clock import CORES, in_turn, matmul_peaks
from neural_env.bench.parts import evaluate_network, flops_of, further_flops, network_arguments, parts_of
from neural_env.bench.run import BenchConfig, Row
from neural_env.bench.table import Table
from neural_env.cli import main


@pytest.mark.slow
def test_every_question_has_a_row(tiny_world_folder, tmp_path, capsys):
    out = tmp_path / "bench.json"
    arguments = ["--checkpoint", str(tiny_world_folder), "--sizes", "2", "--num-steps", "1", "--seconds", "0.05"]
    assert main(["bench", *arguments, "--json", str(out)]) == 0
    document = json.loads(out.read_text())
    rows = {row["what"]: row for row in document["rows"]}
    begun, stepped = (rows[f"start-up, xla, until: {phase}"] for phase in ("import and make", "first step"))
    assert 0 < begun["ms"] < stepped["ms"] and stepped["mib"] > 100
    assert rows["part: the whole step"]["gflop"] > rows["part: U-Net, once"]["gflop"] > 1e-3
    assert rows["env.step, xla, 1 denoising step"]["steps_per_s"] > 1
    assert rows["make_vec, xla, 2"]["steps_per_s"] == pytest.approx(2e3 / rows["make_vec, xla, 2"]["ms"])
    assert {f"the real game, raw, {n} at once" for n in (1, CORES)} < rows.keys()
    assert document["machine"]["cores"] == CORES
    printed = capsys.readouterr().out
    assert all(f"| {what} |" in printed for what in rows)


class Still(gym.Env):
    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        return 0, 0.0, False, False, {}


def test_steps_that_the_world_cannot_make_are_not_asked_for(tiny_world_folder, distilled_world_folder, monkeypatch):
    asked = []
    monkeypatch.setattr(run, "runtimes", lambda: ("xla",))
    monkeypatch.setattr(run.gym, "make", lambda *_, num_steps, **__: asked.append(num_steps) or Still())
    for folder in (tiny_world_folder, distilled_world_folder):
        run.single_rows(BenchConfig(checkpoint=str(folder), seconds=0.001))
    assert asked == [1, 4, 1]


def test_every_runtime_that_is_there_has_rows_of_its_own_name(tiny_world_folder, monkeypatch):
    made = []

    def make(*_, runtime, **__):
        made.append(runtime)
        return SimpleNamespace(num_envs=2, close=lambda: None)

    monkeypatch.setattr(run, "runtimes", lambda: ("xla", "openvino"))
    for name in ("stepper", "vector_stepper"):
        monkeypatch.setattr(run, name, lambda env: lambda: time.sleep(1e-4))
    for name in ("make", "make_vec"):
        monkeypatch.setattr(run.gym, name, make)
    config = BenchConfig(num_steps=(1,), sizes=(2,), seconds=0.001)
    singles, vectors = run.single_rows(config), run.vector_rows(config)
    assert [row.what for row in singles] == [f"env.step, {name}, 1 denoising step" for name in ("xla", "openvino")]
    assert [row.what for row in vectors] == ["make_vec, xla, 2", "make_vec, openvino, 2"]
    assert vectors[0].steps_per_s == pytest.approx(2e3 / vectors[0].ms)
    assert made == ["xla", "openvino"] * 2


def test_the_parts_are_what_a_step_is_made_of(tiny_world):
    parts = parts_of(tiny_world)
    whole = parts.pop("the whole step")
    together = sum(part.flops for part in parts.values())
    assert 0.9 * whole.flops < together <= whole.flops  # the rest draws context noise and ends
    whole.run()
    whole.run()  # the carry that the first has used up is not used again


def test_every_denoising_step_is_counted(tiny_world):
    """XLA counts the body of a loop once: unrolled, all steps are counted."""

    def sampled(world, key, x, context, actions, *, steps):
        for _ in range(steps):
            x = evaluate_network(world, x, context, actions)
        return x

    def counted(steps):
        arguments = network_arguments(tiny_world, 2)
        lowered = jax.jit(partial(sampled, steps=steps)).lower(tiny_world, jax.random.key(0), *arguments)
        return flops_of(lowered)

    assert further_flops(tiny_world, 1, 2) == 0
    assert further_flops(tiny_world, 4, 2) == pytest.approx(counted(4) - counted(1), rel=1e-3)
    one, four = (parts_of(tiny_world, steps)["the whole step"].flops for steps in (1, 4))
    assert four - one == pytest.approx(further_flops(tiny_world, 4), rel=0.01)


def test_calls_take_turns_and_the_first_is_not_counted():
    called = []
    medians = in_turn({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 0.0)
    assert "".join(called) == "ab" * 6 and medians.keys() == {"a", "b"}


def test_a_matrix_product_has_a_rate():
    peaks = matmul_peaks(0.0, side=64)
    assert peaks.keys() == {"float32", "bfloat16"} and min(peaks.values()) > 1e6


def test_markdown_can_be_pasted():
    table = Table("t", ("a", "b"), (("x", "1"), ("y", "")))
    assert table.markdown() == "| a | b |\n| --- | ---: |\n| x | 1 |\n| y |  |"


def test_what_was_not_asked_is_left_empty():
    table = run.table([Row("x", 1.234, of_peak=0.5)], BenchConfig())
    assert table.rows == (("x", "1.23", "", "", "50%", ""),)


@pytest.mark.parametrize("wrong", [{"sizes": (0,)}, {"num_steps": ()}, {"seconds": 0.0}])
def test_numbers_that_measure_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BenchConfig(**wrong)
