"""Convolutions in 8-bit integers: which, how near, and who decides."""

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("openvino")
pytest.importorskip("flatbuffers")

import openvino as ov
from openvino import opset13 as ops

from neural_env.runtime import openvino as runtime
from neural_env.runtime.quantise import LEAST, peak_to_noise, quantised

ID = "neural_env:NeuralDoom-v0"


def picture(seed, channels=LEAST):
    return np.random.default_rng(seed).standard_normal((1, channels, 6, 5)).astype(np.float32)


def model(channels=LEAST, size=3):
    """Two convolutions with a rectifier between them."""
    rng, given = np.random.default_rng(0), ops.parameter([1, channels, 6, 5], ov.Type.f32)
    x = given
    for _ in range(2):
        kernel = rng.standard_normal((channels, channels, size, size)) / np.sqrt(channels * size**2)
        edge = [size // 2] * 2
        x = ops.relu(ops.convolution(x, ops.constant(kernel.astype(np.float32)), [1, 1], edge, edge, [1, 1]))
    return ov.Model([x.output(0)], [given], "two")


def results(graph, inputs):
    request = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    return [np.array(next(iter(request.infer([row]).values()))) for row in inputs]


def kinds(graph):
    return [node.get_type_name() for node in graph.get_ordered_ops()]


def test_integers_are_near_floats():
    graph = model()
    rounded = quantised(graph, [[picture(seed)] for seed in range(8)])
    unseen = [picture(seed) for seed in range(100, 104)]
    assert 35 < peak_to_noise(results(graph, unseen), results(rounded, unseen)) < 80


def test_pictures_and_kernels_of_large_convolutions_are_rounded_and_the_given_graph_is_not():
    graph = model()
    assert kinds(quantised(graph, [[picture(0)]])).count("FakeQuantize") == 4
    assert "FakeQuantize" not in kinds(graph)


@pytest.mark.parametrize(("channels", "size"), [(LEAST - 1, 3), (LEAST, 1)])
def test_small_convolutions_stay_in_floats(channels, size):
    assert quantised(model(channels, size), [[picture(0, channels)]]) is None


def test_what_was_fitted_to_too_small_numbers_is_found_out():
    graph = model()
    rounded = quantised(graph, [[picture(0) / 100]])
    unseen = [picture(100)]
    assert peak_to_noise(results(graph, unseen), results(rounded, unseen)) < 20


def test_peak_to_noise_of_frames_is_psnr():
    frames = np.array([[0, 255], [10, 20]], np.uint8)
    assert peak_to_noise(list(frames), list(frames.astype(float) + 2)) == pytest.approx(20 * np.log10(255 / 2))


def test_a_precision_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setenv("NEURAL_ENV_PRECISION", "int4")
    with pytest.raises(ValueError, match=r"\$NEURAL_ENV_PRECISION must be one of auto, f32, bf16, i8, got 'int4'"):
        runtime.asked_precision()


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [1, 2])
def test_the_bundled_world_in_integers_is_above_40_db(monkeypatch, num_steps):
    """Also where dreams have gone that integers weren't fitted to."""
    envs = []
    for precision in ("f32", "i8"):
        monkeypatch.setenv("NEURAL_ENV_PRECISION", precision)
        envs.append(gym.make(ID, runtime="openvino", num_steps=num_steps, termination="never"))
        envs[-1].reset(seed=3)
        envs[-1].step(0)  # the graph is made here
    floats, integers = envs
    worst = []
    for step in range(60):
        integers.unwrapped.set_state(floats.unwrapped.get_state())
        one, other = (env.step(step // 7 % 3)[0] for env in envs)
        worst.append(peak_to_noise([one], [other]))
    assert 40 < min(worst) < 90  # not the same, or nothing was rounded
    for env in envs:
        env.close()


def test_steps_that_were_drawn_ahead_are_those_that_would_be_drawn(tiny_world_folder):
    """A dream that is set back, or whose temperature is turned, must not show what was drawn for another."""
    env = gym.make(ID, checkpoint=str(tiny_world_folder), runtime="openvino")
    env.reset(seed=0)
    env.step(1)
    before = env.unwrapped.get_state()
    straight = [env.step(action)[0] for action in (1, 2)]
    env.unwrapped.set_state(before)
    again = [env.step(action)[0] for action in (1, 2)]
    env.unwrapped.set_state(before)
    env.unwrapped.temperature = 0.1
    cooler = env.step(1)[0]
    env.close()
    np.testing.assert_array_equal(straight, again)
    assert not np.array_equal(straight[0], cooler)
