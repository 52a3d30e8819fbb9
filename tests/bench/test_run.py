import json

import gymnasium as gym
import pytest

from neural_env.bench import run
from neural_env.bench.clock import CORES, in_turn, matmul_peaks
from neural_env.bench.parts import parts_of
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
    begun, stepped = rows["start-up until: import and make"], rows["start-up until: first step"]
    assert 0 < begun["ms"] < stepped["ms"] and stepped["mib"] > 100
    assert rows["part: the whole step"]["gflop"] > rows["part: U-Net, once"]["gflop"] > 1e-3
    assert rows["env.step, xla, 1 denoising step"]["steps_per_s"] > 1
    assert rows["make_vec, 2"]["steps_per_s"] == pytest.approx(2e3 / rows["make_vec, 2"]["ms"])
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
    monkeypatch.setattr(run.gym, "make", lambda *_, num_steps, **__: asked.append(num_steps) or Still())
    for folder in (tiny_world_folder, distilled_world_folder):
        run.single_rows(BenchConfig(checkpoint=str(folder), seconds=0.001))
    assert asked == [1, 4, 1]


def test_the_parts_are_what_a_step_is_made_of(tiny_world):
    parts = parts_of(tiny_world)
    whole = parts.pop("the whole step")
    together = sum(part.flops for part in parts.values())
    assert 0.9 * whole.flops < together <= whole.flops  # the rest draws context noise and ends
    whole.run()
    whole.run()  # the carry that the first has used up is not used again


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
