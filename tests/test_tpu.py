import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from neural_env import tpu
from neural_env.bench.table import show
from neural_env.cli import main
from neural_env.tpu import Compiled, CompilerFailed, TpuReportConfig, compiled
from neural_env.world.model import PRESETS

ROW = Compiled("small", 16, 1, "bfloat16", 20e9, 500e6, 50 * 2**20, 0.8e-3, 0)


@pytest.fixture
def libtpu(monkeypatch):
    """Where `make test` puts it, or where the extra does."""
    beside = Path(sys.prefix) / "tpu" / "libtpu" / "libtpu.so"
    if beside.is_file():
        monkeypatch.setenv("TPU_LIBRARY_PATH", str(beside))
    try:
        return tpu.require_libtpu()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_the_compiler_of_a_tpu_compiles_the_tiny_preset(libtpu, tmp_path, capsys):
    before, out = dict(os.environ), tmp_path / "tpu.json"
    assert main(["tpu-report", "--worlds", "tiny", "--batches", "1", "4", "--json", str(out)]) == 0
    one, four = json.loads(out.read_text())["rows"]
    assert (one["world"], one["batch"], four["batch"]) == ("tiny", 1, 4)
    assert 2.5 * one["flops"] < four["flops"] < 5 * one["flops"] and one["flops"] > 5e6
    assert 0 < one["ms_a_frame"] < tpu.PAPER_MS and one["fits"] and one["memory_bytes"] > 2**20
    assert four["ms_a_frame"] < one["ms_a_frame"]
    assert "| tiny | 4 |" in capsys.readouterr().out
    assert dict(os.environ) == before  # what the compiler is told stays with it


def test_operations_without_an_estimate_are_counted_and_left_out():
    assert tpu._estimate(0.0042) == (0.0042, 0)
    seconds, unknown = tpu._estimate(-7.99968)  # eight of them, and 0.32 ms
    assert unknown == 8 and seconds == pytest.approx(0.32e-3)


def test_a_frame_takes_no_less_than_the_chips_peaks_allow():
    assert ROW.least_seconds == pytest.approx(500e6 / 819e9)
    assert ROW.ms_a_frame == pytest.approx(0.8 / 16)
    unknown = Compiled("small", 1, 1, "bfloat16", 1.97e9, 1.0, 1, 1e-6, 3)
    assert unknown.ms_a_frame == pytest.approx(0.01)


def test_the_table_compares_with_the_paper_and_marks_what_is_unknown():
    unknown = Compiled("small", 1, 1, "bfloat16", 1.5e9, 160e6, 17 * 2**30, 0.25e-3, 2)
    console = Console(width=200, file=io.StringIO(), force_terminal=True)
    show(console, tpu.table([ROW, unknown], TpuReportConfig()))
    text = console.file.getvalue()
    assert "1000 times" in text and "0.250*" in text and "17408: too much" in text


def test_a_machine_without_libtpu_is_told_what_to_install(monkeypatch, capsys):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(tpu, "find_spec", lambda name: None)
    assert main(["tpu-report", "--worlds", "tiny"]) == 1
    assert 'pip install "neural-env[tpu]"' in capsys.readouterr().err


def test_a_library_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("TPU_LIBRARY_PATH", "/nowhere/libtpu.so")
    with pytest.raises(ImportError, match=r"names no file: /nowhere/libtpu\.so"):
        tpu.require_libtpu()


@pytest.fixture
def fake_compiler(monkeypatch, tmp_path):
    """Another program in the compiler's place."""

    def place(script):
        library, program = tmp_path / "libtpu.so", tmp_path / "python"
        library.touch()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("TPU_LIBRARY_PATH", str(library))
        monkeypatch.setattr(sys, "executable", str(program))

    return place


def test_a_compiler_that_fails_is_quoted(fake_compiler):
    fake_compiler("echo 'F0000 out of chips' >&2; exit 134")
    with pytest.raises(CompilerFailed, match="status 134 on tiny: F0000 out of chips"):
        list(compiled("tiny", TpuReportConfig()))


def test_a_compiler_that_takes_too_long_is_ended(fake_compiler):
    fake_compiler("exec sleep 60")
    with pytest.raises(CompilerFailed, match=r"compiling tiny took over timeout=0\.2 s"):
        list(compiled("tiny", TpuReportConfig(timeout=0.2)))


def test_a_world_that_does_not_exist_is_named_before_anything_is_compiled(fake_compiler, capsys):
    fake_compiler("exit 1")
    assert main(["tpu-report", "--worlds", "teeny"]) == 1
    assert "there is no folder of that name" in capsys.readouterr().err


def test_a_preset_whose_patches_do_not_divide_the_frames_is_compiled_at_the_larger_size():
    small, base = (tpu.shape_of(name, (120, 160))[1].resolution for name in ("small", "base"))
    assert small == (120, 160) and base == (240, 320)
    assert [tpu.label_of(name, (120, 160)) for name in ("small", "base")] == ["small", "base, 320x240"]
    assert tpu.label_of("base", (240, 320)) == "base"


def test_what_can_not_be_compiled_is_found_before_anything_is(fake_compiler, monkeypatch):
    fake_compiler("exit 134")
    odd = replace(PRESETS["tiny"], autoencoder=replace(PRESETS["tiny"].autoencoder, patch=7))
    monkeypatch.setitem(PRESETS, "odd", odd)
    with pytest.raises(ValueError, match=r"no screen of .* is a multiple of the patch size 7 of the preset 'odd'"):
        tpu.tpu_report(TpuReportConfig(worlds=("tiny", "odd")))


def test_further_denoising_steps_cost_as_much_as_the_network():
    first, network = tpu.Cost(10.0, 100.0, 1.0, 1), tpu.Cost(8.0, 70.0, 0.5, 2)
    assert first.plus(network, 3) == tpu.Cost(34.0, 310.0, 2.5, 7)


@pytest.mark.parametrize("wrong", [{"batches": (0,)}, {"batches": ()}, {"num_steps": 0}])
def test_numbers_below_one_are_refused(wrong):
    with pytest.raises(ValueError, match="must be at least 1"):
        TpuReportConfig(**wrong)


def test_presets_and_bundled_worlds_are_reported_unless_others_are_named():
    assert {"tiny", "small", "take_cover"} <= set(tpu.every_world())
