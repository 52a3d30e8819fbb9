import subprocess
import sys

import gymnasium as gym
import pytest

import neural_env.runtime
from neural_env.runtime import available, chosen


@pytest.fixture
def without_openvino(monkeypatch):
    monkeypatch.setattr(neural_env.runtime, "find_spec", lambda name: None)


@pytest.fixture
def with_openvino(monkeypatch):
    monkeypatch.setattr(neural_env.runtime, "find_spec", lambda name: object())


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv("NEURAL_ENV_RUNTIME", raising=False)


def test_auto_is_openvino_on_a_cpu_where_it_is_installed(with_openvino):
    assert chosen("auto", "cpu") == "openvino"


def test_auto_is_xla_on_a_gpu(with_openvino):
    assert chosen("auto", "gpu") == "xla"


def test_auto_is_xla_without_openvino(without_openvino):
    assert chosen("auto", "cpu") == "xla"


def test_what_is_available_depends_on_device_and_package(monkeypatch, with_openvino):
    assert available("cpu") == ("xla", "openvino") and available("gpu") == ("xla",)
    monkeypatch.setattr(neural_env.runtime, "find_spec", lambda name: None)
    assert available("cpu") == ("xla",)


def test_xla_is_always_there(without_openvino):
    assert chosen("xla", "tpu") == "xla"


def test_openvino_that_is_missing_names_the_extra(without_openvino):
    with pytest.raises(ImportError, match=r"neural-env\[cpu\]"):
        chosen("openvino", "cpu")


def test_openvino_on_a_gpu_is_refused(with_openvino):
    with pytest.raises(ValueError, match="runs on a CPU, the device is 'gpu'"):
        chosen("openvino", "gpu")


def test_the_variable_says_what_auto_means(monkeypatch, with_openvino):
    monkeypatch.setenv("NEURAL_ENV_RUNTIME", "xla")
    assert chosen("auto", "cpu") == "xla"
    assert chosen("openvino", "cpu") == "openvino"


def test_a_variable_that_names_no_runtime_is_refused(monkeypatch):
    monkeypatch.setenv("NEURAL_ENV_RUNTIME", "onnx")
    with pytest.raises(ValueError, match="must be one of auto, xla, openvino, got 'onnx'"):
        chosen("auto", "cpu")


def test_an_unknown_runtime_is_refused_when_the_environment_is_made(tiny_world_folder):
    with pytest.raises(ValueError, match="runtime must be one of 'auto', 'xla', 'openvino', got 'torch'"):
        gym.make("neural_env:NeuralDoom-v0", checkpoint=str(tiny_world_folder), runtime="torch")


def test_making_an_environment_imports_no_openvino(tiny_world_folder):
    code = """
import sys, gymnasium as gym
gym.make("neural_env:NeuralDoom-v0", checkpoint=sys.argv[1])
print("openvino" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_world_folder)], capture_output=True, text=True, timeout=200
    )
    assert done.stdout.strip() == "False", done.stderr


def test_openvino_is_imported_without_reporting_it_over_the_network():
    pytest.importorskip("openvino")
    code = """
import sys, neural_env.runtime.openvino
print("openvino.tools.ovc.telemetry_stub" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.stdout.strip() == "True", done.stderr
