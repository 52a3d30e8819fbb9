import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural_env.training.loop import LoopConfig, NonFiniteLoss, finished, train
from neural_env.training.state import TrainingStateError

CONFIG = LoopConfig(steps=40, batch=4, learning_rate=0.2, warmup=4, ema=0.9, log_every=1)
REFUSED = 3  # how a run in a process of its own ends whose state can't be read
ALWAYS = replace(CONFIG, checkpoint_minutes=0.0)  # saves after every step


class Point(nnx.Module):
    """The least model there is."""

    def __init__(self, size=2):
        self.x = nnx.Param(jnp.full(size, 3.0))


class Quadratic:
    """A bowl around 1 that shakes with the key."""

    name = "quadratic"

    def loss(self, module, batch, key):
        target = batch["target"].mean(axis=0) + 0.1 * jax.random.normal(key, (2,))
        return jnp.square(module.x[...] - target).sum(), {"spread": batch["target"].std()}

    def batch(self, step, size):
        return {"target": np.random.default_rng(step).normal(1.0, 0.1, (size, 2)).astype(np.float32)}

    def validate(self, module):
        return {"distance": float(jnp.abs(module.x[...] - 1).max())}


class NaNAt(Quadratic):
    """Diverges at one step."""

    def __init__(self, step):
        self.step = step

    def batch(self, step, size):
        batch = super().batch(step, size)
        return {"target": batch["target"] * np.float32("nan")} if step == self.step else batch


class NaNGradientAt(Quadratic):
    """At one step the loss is finite and its gradient isn't."""

    def __init__(self, step):
        self.step = step

    def loss(self, module, batch, key):
        value, logs = super().loss(module, batch, key)
        return value + 0 * jnp.sqrt(jnp.square(module.x[...]) * (1 - batch["steep"])).sum(), logs

    def batch(self, step, size):
        # The slope of a square root is infinite at 0, and 0 times infinity is no number.
        return {**super().batch(step, size), "steep": np.float32(step == self.step)}


class Threads(Quadratic):
    """Notes which threads make its batches; later ones are made faster."""

    def __init__(self):
        self.seen = {}

    def batch(self, step, size):
        time.sleep(0.01 * (step % 3 == 0))
        self.seen[step] = threading.current_thread().name
        return super().batch(step, size)


class Broken(Quadratic):
    """Can't make the batch of one step."""

    def batch(self, step, size):
        if step == 7:
            raise OSError("the disk is gone")
        return super().batch(step, size)


class Slow(Quadratic):
    """Takes its time, so that there is some to kill it in."""

    def batch(self, step, size):
        time.sleep(0.05)
        return super().batch(step, size)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts: its folder, its module and its last state."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *train(Quadratic(), Point(), CONFIG, folder)


def metrics(folder, split="train"):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


def losses(folder):
    return {line["step"]: line["loss"] for line in metrics(folder)}


def same(first, second):
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), first, second)))


def steps_saved(folder):
    return sorted(int(path.name) for path in (folder / "state").iterdir() if path.name.isdigit())


def test_the_loss_falls_and_the_point_is_found(whole):
    folder, module, state = whole
    loss = losses(folder)
    assert loss[1] > 7 and np.mean([loss[i] for i in range(35, 41)]) < 0.1
    assert jnp.abs(module.x[...] - 1).max() < 0.3
    assert int(state.step) == 40 and finished(state, CONFIG)


def test_the_module_that_comes_back_has_the_averaged_weights(whole):
    _, module, state = whole
    assert (module.x[...] == state.ema["x"]).all() and not same(state.ema, state.params)


def test_the_module_that_went_in_can_still_be_used(tmp_path):
    point = Point()
    train(Quadratic(), point, replace(CONFIG, steps=3), tmp_path)
    assert point.x[...].tolist() == [3.0, 3.0]


def test_every_line_of_the_metrics_is_json_with_step_and_split(whole):
    lines = metrics(whole[0])
    assert [line["step"] for line in lines] == list(range(1, 41))
    assert all(line["samples_per_second"] > 0 and line["spread"] > 0 and line["time"] > 0 for line in lines)
    assert [line["step"] for line in metrics(whole[0], "validation")] == [40]
    assert metrics(whole[0], "validation")[0]["distance"] < 0.3


def test_every_step_has_a_batch_and_a_key_of_its_own(tmp_path):
    class Told(Quadratic):
        def loss(self, module, batch, key):
            value, _ = super().loss(module, batch, key)
            return value, {"drawn": jax.random.uniform(key), "first": batch["target"][0, 0]}

    train(Told(), Point(), replace(CONFIG, steps=6), tmp_path)
    assert len({line["drawn"] for line in metrics(tmp_path)}) == 6
    expected = [Quadratic().batch(step, 4)["target"][0, 0] for step in range(6)]
    np.testing.assert_allclose([line["first"] for line in metrics(tmp_path)], expected)


@pytest.mark.parametrize("prefetch", [0, 1, 5, 100])
def test_batches_made_ahead_by_threads_change_nothing(whole, tmp_path, prefetch):
    stage = Threads()
    _, state = train(stage, Point(), replace(CONFIG, prefetch=prefetch), tmp_path)
    assert same(state, whole[2]) and losses(tmp_path) == losses(whole[0])
    assert sorted(stage.seen) == list(range(40))
    here = threading.current_thread().name
    assert all((name == here) == (prefetch == 0) for name in stage.seen.values())


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_batch_that_cannot_be_made_ends_the_run_with_its_own_error(tmp_path, prefetch):
    with pytest.raises(OSError, match="the disk is gone"):
        train(Broken(), Point(), replace(CONFIG, prefetch=prefetch), tmp_path)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batch")]


@pytest.mark.parametrize(
    ("changes", "why"), [({"steps": -1}, "steps must be at least 0"), ({"batch": 0}, "batch must")]
)
def test_settings_that_make_no_training_are_refused(changes, why):
    with pytest.raises(ValueError, match=why):
        LoopConfig(**changes)


def test_lines_are_written_every_so_many_steps(tmp_path):
    train(Quadratic(), Point(), replace(CONFIG, steps=12, log_every=5), tmp_path)
    assert [line["step"] for line in metrics(tmp_path)] == [1, 5, 10]


def test_a_run_that_stopped_when_its_time_was_up_goes_on_as_if_it_had_not(whole, tmp_path):
    short = replace(CONFIG, max_minutes=0.0)  # one step a run
    for step in (1, 2, 3):
        _, state = train(Quadratic(), Point(), short, tmp_path)
        assert int(state.step) == step and not finished(state, short)
    module, state = train(Quadratic(), Point(), CONFIG, tmp_path)
    folder, expected, expected_state = whole
    assert same(state, expected_state) and same(module, expected)
    assert losses(tmp_path) == losses(folder)


class Plane(nnx.Module):
    """A model with a matrix, which Muon treats in a way of its own."""

    def __init__(self):
        self.kernel = nnx.Param(jnp.array([[3.0, 3.0], [3.0, -3.0]]))

    @property
    def x(self):
        return self.kernel


@pytest.mark.parametrize("optimiser", ["muon", "adafactor"])
def test_a_run_goes_on_with_every_optimisers_state(tmp_path, optimiser):
    config = replace(CONFIG, optimiser=optimiser, steps=6)
    _, whole = train(Quadratic(), Plane(), config, tmp_path / "whole")
    train(Quadratic(), Plane(), replace(config, max_minutes=0.0), tmp_path / "cut")
    assert steps_saved(tmp_path / "cut") == [1]
    _, state = train(Quadratic(), Plane(), config, tmp_path / "cut")
    assert same(state, whole)


def test_a_finished_run_is_left_as_it_is(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    module, state = train(NaNAt(0), Point(), CONFIG, tmp_path)
    assert same(module, whole[1]) and same(state, whole[2])
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_run_that_was_killed_goes_on_as_if_it_had_not(whole, tmp_path):
    command = [sys.executable, __file__, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: (tmp_path / "state").is_dir() and max(steps_saved(tmp_path), default=0) > 8)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and max(steps_saved(tmp_path)) < 40
    module, state = train(Quadratic(), Point(), CONFIG, tmp_path)
    assert same(state, whole[2]) and same(module, whole[1])


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


@pytest.mark.parametrize("diverging", [NaNAt(12), NaNGradientAt(12)])
def test_divergence_is_reported_with_its_step_and_the_saved_state_is_intact(whole, tmp_path, diverging):
    with pytest.raises(NonFiniteLoss, match=r"step 13.*lower the learning rate") as caught:
        train(diverging, Point(), ALWAYS, tmp_path)
    assert str(tmp_path / "state") in str(caught.value)
    assert steps_saved(tmp_path) == [11, 12]
    _, state = train(Quadratic(), Point(), CONFIG, tmp_path)
    assert same(state, whole[2])


@pytest.mark.parametrize("diverging", [NaNAt(12), NaNGradientAt(12)])
def test_a_divergence_between_two_lines_of_the_log_is_not_saved_either(tmp_path, diverging):
    with pytest.raises(NonFiniteLoss, match="step 13"):
        train(diverging, Point(), replace(CONFIG, steps=13, log_every=10), tmp_path)
    assert not steps_saved(tmp_path)


def damage(folder):
    """Cuts short every file of the folder that holds numbers."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name == "d"]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def refused(folder, size=2):
    """The error that a run in a process of its own ends with: orbax leaves reads behind that warn when they die."""
    done = subprocess.run([sys.executable, __file__, str(folder), str(size)], capture_output=True, text=True)
    assert done.returncode == REFUSED, done.stderr
    return done.stdout


def test_a_damaged_state_is_reported_with_a_cure_that_works(whole, tmp_path):
    train(Quadratic(), Point(), replace(ALWAYS, steps=40, max_minutes=0.0), tmp_path)
    train(Quadratic(), Point(), replace(ALWAYS, max_minutes=0.0), tmp_path)
    assert steps_saved(tmp_path) == [1, 2]
    newest = tmp_path / "state" / "2"
    damage(newest)
    message = refused(tmp_path)
    assert str(newest) in message and "remove that folder to go on from step 1\n" in message
    shutil.rmtree(newest)
    _, state = train(Quadratic(), Point(), CONFIG, tmp_path)
    assert same(state, whole[2]) and losses(tmp_path) == losses(whole[0])


def test_when_no_older_state_is_left_the_cure_is_to_start_anew(whole, tmp_path):
    train(Quadratic(), Point(), replace(CONFIG, max_minutes=0.0), tmp_path)
    damage(tmp_path / "state" / "1")
    assert "remove it to start anew" in refused(tmp_path)
    shutil.rmtree(tmp_path / "state" / "1")
    _, state = train(Quadratic(), Point(), CONFIG, tmp_path)
    assert same(state, whole[2])


def test_the_state_of_another_model_is_refused(tmp_path):
    train(Quadratic(), Point(), replace(CONFIG, steps=2), tmp_path)

    message = refused(tmp_path, size=3)
    assert "damaged or of another model" in message and str(tmp_path / "state" / "2") in message


if __name__ == "__main__":  # the run that is killed, or refused
    try:
        train(Slow(), Point(int((*sys.argv, 2)[2])), ALWAYS, Path(sys.argv[1]))
    except TrainingStateError as error:  # said where orbax's threads don't write
        print(error)
        sys.exit(REFUSED)
