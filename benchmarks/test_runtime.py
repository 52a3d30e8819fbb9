"""Runtime against runtime: the same dream by XLA and by OpenVINO, in turn in one run, end to end and below.

    python -m pytest benchmarks/test_runtime.py --benchmark-enable

`extra_info` of each: milliseconds of both runtimes (medians of alternating calls), how many times OpenVINO is faster,
the share of a large matrix product's speed that its step reaches in float32 and bfloat16, and what all else adds to
the graph: randomness, copies, Python, Gymnasium. With `-s` that is printed. Run nothing beside it.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from neural_env.bench.clock import in_turns

ov = pytest.importorskip("openvino")

ID = "neural_env:NeuralDoom-v0"


def alternating(*runs):
    """Median seconds of each, in turn."""
    return np.median(in_turns(*runs), axis=(0, 2))


def matmul_peak(precision, side=2048):
    """FLOP/s of a large matrix product by OpenVINO, on all cores."""
    left = ov.opset13.parameter([side, side], ov.Type.f32)
    right = ov.opset13.constant(np.ones((side, side), np.float32))
    model = ov.Model([ov.opset13.matmul(left, right, False, False).output(0)], [left], "product")
    request = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision}).create_infer_request()
    matrix = np.ones((side, side), np.float32)
    return 2 * side**3 / float(alternating(lambda: request.infer([matrix], share_inputs=True))[0])


def flops_of_a_step(dream, num_steps):
    """As XLA counts them before it optimises."""
    import jax

    from neural_env.bench.parts import flops_of, further_flops
    from neural_env.envs import core
    from neural_env.envs.dials import Dials
    from neural_env.envs.dream import carry_of

    carry, world = carry_of(dream.begin(np.random.default_rng(0), None)), dream.world
    once = flops_of(jax.jit(lambda carry: core.advance(world, carry, 0, Dials())).lower(carry))
    return once + further_flops(world, num_steps)


@pytest.mark.parametrize("precision", ["f32", "auto"])
@pytest.mark.parametrize("num_steps", [1, 4])
def test_one_dream(benchmark, monkeypatch, num_steps, precision):
    monkeypatch.setenv("NEURAL_ENV_PRECISION", precision)
    envs = {name: gym.make(ID, runtime=name, num_steps=num_steps, termination="never") for name in ("xla", "openvino")}
    for env in envs.values():
        env.reset(seed=0)
        env.step(1)
    runs = [lambda env=env: env.step(1) for env in envs.values()]
    xla, openvino = alternating(*runs)
    inner = envs["openvino"].unwrapped
    (program,) = inner._dream._openvino.steps
    graph = program._requests[0]._request  # its inputs are still those of the last step
    below, whole = alternating(graph.infer, runs[1])
    speed = flops_of_a_step(inner._dream, num_steps) / below
    report = {
        "xla_ms": 1e3 * xla,
        "openvino_ms": 1e3 * openvino,
        "times_faster": xla / openvino,
        "precision": program.precision,
        "of_f32_matmul": speed / matmul_peak("f32"),
        "of_bf16_matmul": speed / matmul_peak("bf16"),
        "share_of_all_else": 1 - below / whole,
    }
    benchmark.extra_info.update(report)
    print(
        "", *(f"{name} {value:.3g}" if name != "precision" else f"precision {value}" for name, value in report.items())
    )
    benchmark.pedantic(runs[1], rounds=40)
    assert min(xla, openvino) > 0
    for env in envs.values():
        env.close()


@pytest.mark.parametrize("size", [4, 16])
def test_many_dreams(benchmark, size):
    envs = [gym.make_vec(ID, size, runtime=runtime, termination="never") for runtime in ("xla", "openvino")]
    actions = np.ones(size, np.int64)
    for env in envs:
        env.reset(seed=0)
    runs = [lambda env=env: env.step(actions) for env in envs]
    xla, openvino = alternating(*runs)
    report = {"xla_per_s": size / xla, "openvino_per_s": size / openvino, "times_faster": xla / openvino}
    benchmark.extra_info.update(report)
    print("", *(f"{name} {value:.3g}" for name, value in report.items()))
    benchmark.pedantic(runs[1], rounds=10)
    assert min(xla, openvino) > 0
    for env in envs:
        env.close()
