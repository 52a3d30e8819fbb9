"""Convolutions in 8-bit integers: which, how near, and who decides."""

from dataclasses import replace

import gymnasium as gym
import jax
import numpy as np
import pytest
from flax import nnx

pytest.importorskip("openvino")
pytest.importorskip("flatbuffers")

import openvino as ov
from openvino import opset13 as ops

from neural_env import checkpoint
from neural_env.runtime import precision
from neural_env.runtime.quantise import LEAST, peak_to_noise, quantised
from neural_env.world.model import PRESETS, WorldModel
from neural_env.world.unet import UNetConfig

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
        precision.asked()


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [1, 2])
def test_the_bundled_world_in_integers_is_above_40_db(monkeypatch, num_steps):
    """Also where dreams have gone that integers weren't fitted to."""
    envs = []
    for asked in ("f32", "i8"):
        monkeypatch.setenv("NEURAL_ENV_PRECISION", asked)
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


@pytest.fixture
def wide_world_folder(game, perturbed, tiny_starts, tmp_path):
    """A tiny world whose U-Net has convolutions that are worth rounding."""
    model = replace(PRESETS["tiny"], unet=UNetConfig(widths=(LEAST, LEAST), blocks=1, embedding=16))
    world = perturbed(jax.jit(lambda: WorldModel(model, game, rngs=nnx.Rngs(0)))(), scale=0.02)
    checkpoint.save(checkpoint.Checkpoint(world, model, game, tiny_starts, {"preset": "tiny"}, {}), tmp_path / "wide")
    return tmp_path / "wide"


@pytest.mark.parametrize(
    ("faster", "decibels", "expected"), [(True, 60.0, "i8"), (True, 30.0, "f32"), (False, 60.0, "f32")]
)
def test_integers_are_taken_where_they_are_faster_and_show_the_same(
    monkeypatch, tmp_path, wide_world_folder, faster, decibels, expected
):
    monkeypatch.setenv("NEURAL_ENV_CACHE", str(tmp_path / "programs"))
    monkeypatch.setattr(precision, "integers_are_faster", lambda: faster)
    monkeypatch.setattr(precision, "floats", lambda: "f32")
    monkeypatch.setattr("neural_env.runtime.openvino.peak_to_noise", lambda *_: decibels)
    for _ in range(2):  # the second reads what was kept
        env = gym.make(ID, checkpoint=str(wide_world_folder), runtime="openvino", termination="never")
        env.reset(seed=0)
        env.step(1)
        assert [program.precision for program in env.unwrapped._dream._openvino.steps] == [expected]
        env.close()
        monkeypatch.setattr("neural_env.runtime.openvino.split", None)


def test_hot_dreams_are_floats(monkeypatch, tmp_path, wide_world_folder):
    monkeypatch.setenv("NEURAL_ENV_CACHE", str(tmp_path / "programs"))
    monkeypatch.setenv("NEURAL_ENV_PRECISION", "i8")
    env = gym.make(ID, checkpoint=str(wide_world_folder), runtime="openvino", termination="never")
    env.reset(seed=0)
    found = []
    for temperature in (1.0, 1.31, 1.3):
        env.unwrapped.temperature = temperature
        env.step(1)
        found.append([program.precision for program in env.unwrapped._dream._openvino.steps])
    env.close()
    assert [kinds.count("i8") for kinds in found] == [1, 1, 1] and [len(kinds) for kinds in found] == [1, 2, 2]


def test_in_integers_a_dream_among_many_is_what_it_is_alone_whoever_asked_first(
    monkeypatch, tmp_path, wide_world_folder
):
    monkeypatch.setenv("NEURAL_ENV_PRECISION", "i8")
    shown = []
    for first, temperatures in enumerate(((0.0, 1.0), (1.3, 1.0))):  # the graph is made at the first
        monkeypatch.setenv("NEURAL_ENV_CACHE", str(tmp_path / str(first)))
        env = gym.make(ID, checkpoint=str(wide_world_folder), runtime="openvino", termination="never")
        for temperature in temperatures:
            env.unwrapped.temperature = temperature
            env.reset(seed=7)
            frame = env.step(1)[0]
        shown.append(frame)
        env.close()
    envs = gym.make_vec(ID, 3, checkpoint=str(wide_world_folder), runtime="openvino", termination="never")
    envs.reset(seed=[5, 6, 7])
    together = envs.step(np.ones(3, np.int64))[0]
    envs.close()
    np.testing.assert_array_equal(shown[0], shown[1])
    np.testing.assert_allclose(np.float64(together[2]), np.float64(shown[0]), atol=1)


@pytest.mark.parametrize(("dial", "value"), [("temperature", 0.1), ("context_noise", 0.3)])
def test_what_was_drawn_ahead_is_not_used_once_a_dial_is_turned(tiny_world_folder, dial, value):
    def made():
        env = gym.make(ID, checkpoint=str(tiny_world_folder), runtime="openvino")
        env.reset(seed=0)
        return env

    env, other = made(), made()
    env.step(1)
    moment = env.unwrapped.get_state()
    setattr(env.unwrapped, dial, value)
    setattr(other.unwrapped, dial, value)
    other.unwrapped.set_state(moment)  # it has drawn nothing ahead
    np.testing.assert_array_equal(env.step(2)[0], other.step(2)[0])
    for one in (env, other):
        one.close()


def test_a_dream_that_is_set_back_goes_on_as_it_did(tiny_world_folder):
    env = gym.make(ID, checkpoint=str(tiny_world_folder), runtime="openvino")
    env.reset(seed=0)
    env.step(1)
    before = env.unwrapped.get_state()
    straight = [env.step(action)[0] for action in (1, 2)]
    env.unwrapped.set_state(before)
    again = [env.step(action)[0] for action in (1, 2)]
    env.close()
    np.testing.assert_array_equal(straight, again)
