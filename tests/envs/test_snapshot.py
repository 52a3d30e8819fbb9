"""Moments kept: in memory, in files, and gone on from once or many times."""

import copy
import os
import pickle
from dataclasses import fields, replace

import gymnasium as gym
import numpy as np
import pytest
from safetensors.numpy import save_file

from neural_env.envs.neural_doom import NeuralDoom
from neural_env.envs.snapshot import Snapshot, SnapshotError
from neural_env.game import GameConfig


@pytest.fixture(scope="module")
def shared(tiny_world_folder):
    env = NeuralDoom(checkpoint=str(tiny_world_folder), context_noise=0.1)
    yield env
    env.close()


@pytest.fixture
def env(shared):
    """Two steps into an episode."""
    shared.reset(seed=0)
    shared.step(1)
    shared.step(2)
    return shared


@pytest.fixture
def mortal(mortal_world_folder):
    env = NeuralDoom(checkpoint=str(mortal_world_folder))
    yield env
    env.close()


def play(env, actions=(0, 1, 2, 2)):
    return [env.step(action) for action in actions]


def same(first, second):
    return all(np.array_equal(a[0], b[0]) and a[1:] == b[1:] for a, b in zip(first, second, strict=True))


def equal(one, other):
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Snapshot)]
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


def test_the_same_actions_bring_the_same_frames_bit_for_bit(env):
    state = env.get_state()
    ahead = play(env)
    env.step(0)
    assert np.array_equal(env.set_state(state), state.frame)
    assert same(play(env), ahead)
    env.reset(seed=9)
    env.set_state(state)
    assert same(play(env), ahead)


def test_a_reset_begins_from_a_state(env):
    state = env.get_state()
    ahead = play(env)
    frame, info = env.reset(seed=3, options={"state": state})
    assert np.array_equal(frame, state.frame) and info == {"health": float(state.variables[0])}
    assert same(play(env), ahead)


def test_a_state_that_a_reset_is_given_does_not_shift_the_stream(env):
    state = env.get_state()
    env.reset(seed=3, options={"state": state})
    following = env.reset()[0]
    env.reset(seed=3)
    assert np.array_equal(env.reset()[0], following)


def test_another_environment_goes_on_the_same(env, tiny_world_folder):
    state = env.get_state()
    other = NeuralDoom(checkpoint=str(tiny_world_folder), context_noise=0.1)
    other.set_state(state)
    assert same(play(other), play(env))
    other.close()


def test_stepping_leaves_a_kept_state_as_it_was(env):
    state = env.get_state()
    before = copy.deepcopy(state)
    play(env)
    env.set_state(state)[:] = 0
    play(env)
    assert equal(state, before)
    env.set_state(state)
    assert equal(env.get_state(), before)


def test_a_state_holds_what_was_shown_last(env):
    frame, *_, info = env.step(1)
    state = env.get_state()
    assert np.array_equal(state.frame, frame) and state.variables.tolist() == list(info.values())
    assert (state.elapsed_steps, state.ended, state.actions[-1]) == (3, False, 1)
    with pytest.raises(ValueError, match="read-only"):
        state.context[:] = 0


def test_real_frames_in_the_middle_keep_the_place_in_the_episode(env):
    before = env.get_state()
    frames = np.random.default_rng(0).integers(256, size=(4, 120, 160, 3), dtype=np.uint8)
    env.set_context(frames, np.array([0, 1, 2]))
    after = env.get_state()
    assert after.elapsed_steps == before.elapsed_steps and np.array_equal(after.key, before.key)
    assert after.actions.tolist() == [0, 1, 2] and not np.array_equal(after.context, before.context)


def test_what_is_over_stays_over(mortal):
    mortal.reset(seed=0)
    while not mortal.step(0)[2]:
        pass
    state = mortal.get_state()
    assert state.ended
    mortal.reset()
    mortal.set_state(state)
    with pytest.raises(gym.error.ResetNeeded):
        mortal.step(0)
    with pytest.raises(SnapshotError, match="has ended"):
        mortal.reset(options={"state": state})


def test_there_is_no_state_before_the_reset(tiny_world_folder):
    env = NeuralDoom(checkpoint=str(tiny_world_folder))
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) first"):
        env.get_state()
    env.close()
    with pytest.raises(gym.error.ClosedEnvironmentError):
        env.get_state()


def test_what_is_no_snapshot_is_refused(env):
    with pytest.raises(TypeError, match="must be a Snapshot"):
        env.reset(options={"state": "state.safetensors"})
    with pytest.raises(ValueError, match="'state' alone"):
        env.reset(options={"state": env.get_state(), "actions": [0, 0, 0]})


def test_a_file_brings_everything_back(env, tmp_path):
    state = env.get_state()
    state.save(tmp_path / "state.safetensors")
    again = Snapshot.load(tmp_path / "state.safetensors")
    assert equal(again, state)
    ahead = play(env)
    env.set_state(again)
    assert same(play(env), ahead)


def test_a_snapshot_can_be_pickled_and_copied(env):
    state = env.get_state()
    assert equal(pickle.loads(pickle.dumps(state)), state) and equal(copy.deepcopy(state), state)  # noqa: S301


def test_saving_replaces_the_whole_file_or_nothing(env, tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    state = env.get_state()
    state.save(path)
    env.step(0)

    def full_disk(arrays, file, metadata):
        file.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("neural_env.envs.snapshot.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        env.get_state().save(path)
    assert equal(Snapshot.load(path), state) and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "no usable snapshot"),
        (lambda path: path.write_bytes(b""), "no usable snapshot"),
        (lambda path: path.write_text("a save game"), "no usable snapshot"),
        (lambda path: save_file({"x": np.zeros(3)}, path), "its format is None"),
        (lambda path: save_file({}, path, {"format": "neural_env.snapshot/9"}), "snapshot/9.*reads.*snapshot/1"),
        (lambda path: save_file({}, path, {"format": "neural_env.snapshot/1", "about": "{"}), "no usable snapshot"),
        (lambda path: save_file({}, path, {"format": "neural_env.snapshot/1", "about": "[]"}), "no usable snapshot"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(env, tmp_path, damage, why):
    path = tmp_path / "state.safetensors"
    env.get_state().save(path)
    damage(path)
    with pytest.raises(SnapshotError, match=why) as caught:
        Snapshot.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        Snapshot.load(tmp_path / "none.safetensors")
    with pytest.raises(SnapshotError, match="no usable snapshot"):
        Snapshot.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("context", np.zeros((4, 15, 20, 4))),
        ("context", np.zeros((4, 15, 20), np.float32)),
        ("actions", np.zeros(4, np.int32)),
        ("actions", np.array([0, 1, 3], np.int32)),
        ("frame", np.zeros((120, 160), np.uint8)),
        ("variables", np.zeros(2, np.float32)),
        ("key", np.zeros(2, np.int32)),
        ("elapsed_steps", -1),
    ],
)
def test_arrays_that_do_not_fit_together_are_no_snapshot(env, name, value):
    with pytest.raises(SnapshotError, match=name):
        replace(env.get_state(), **{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("scenario", "basic"), ("frame_skip", 1), ("action_names", ("noop", "attack", "jump"))]
)
def test_another_games_snapshot_is_refused(env, name, value):
    foreign = replace(env.get_state(), game=replace(env.game, **{name: value}))
    for use in (env.set_state, lambda s: env.reset(options={"state": s}), lambda s: env.branch(s, [0])):
        with pytest.raises(SnapshotError, match=f"snapshot's {name} is .*use the world it was taken in"):
            use(foreign)


def test_a_world_of_another_shape_is_refused(env):
    game, state = env.game, env.get_state()
    longer = Snapshot(game, np.zeros((5, 15, 20, 4), np.float32), np.zeros(4, np.int32), *_rest(state))
    with pytest.raises(SnapshotError, match="context shape"):
        env.set_state(longer)
    large = GameConfig(game.scenario, game.action_names, game.variable_names, game.frame_skip, (240, 320))
    frame = np.zeros((240, 320, 3), np.uint8)
    with pytest.raises(SnapshotError, match="resolution"):
        env.set_state(replace(state, game=large, frame=frame))


def _rest(state):
    return state.key, state.frame, state.variables


def close(frames, others):
    return np.abs(np.asarray(frames).astype(int) - np.asarray(others).astype(int)).max() <= 1


def test_each_branch_is_what_a_step_would_show(env):
    state = env.get_state()
    branches = env.branch(state, [0, 1, 2])
    assert branches.frames.shape == (3, 120, 160, 3) and branches.variables.shape == (3, 1)
    for i in range(3):
        env.set_state(state)
        frame, reward, terminated, _, info = env.step(i)
        assert close(branches.frames[i], frame) and branches.terminated[i] == terminated
        np.testing.assert_allclose(branches.rewards[i], reward, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(branches.variables[i], list(info.values()), rtol=1e-4, atol=1e-4)


def test_rows_of_actions_are_followed_to_their_end(env):
    state = env.get_state()
    rows = np.array([[0, 1, 2], [2, 2, 2]])
    branches = env.branch(state, rows)
    assert branches.frames.shape == (2, 3, 120, 160, 3) and branches.rewards.shape == (2, 3)
    for i, row in enumerate(rows):
        env.set_state(state)
        frames = [env.step(action)[0] for action in row]
        assert close(branches.frames[i], frames)


def test_a_branch_can_be_gone_on_from(env):
    state = env.get_state()
    branches = env.branch(state, [[0, 1], [2, 2]])
    assert [s.elapsed_steps for s in branches.snapshots] == [state.elapsed_steps + 2] * 2
    for row, snapshot in zip([[0, 1], [2, 2]], branches.snapshots, strict=True):
        env.set_state(state)
        play(env, row)
        assert np.array_equal(env.get_state().key, snapshot.key)
        onward = env.step(1)[0]
        assert np.array_equal(env.set_state(snapshot), snapshot.frame)
        assert close(env.step(1)[0], onward)


def test_branching_leaves_the_environment_where_it_is(env):
    before = env.get_state()
    env.branch(before, [[0, 1, 2]], seed=1)
    assert equal(env.get_state(), before)


def test_branches_share_their_luck_unless_they_are_given_a_seed(env):
    state = env.get_state()
    shared, lucky, again = (env.branch(state, [1, 1], seed=seed).frames for seed in (None, 4, 4))
    assert np.array_equal(shared[0], shared[1]) and not np.array_equal(lucky[0], lucky[1])
    assert np.array_equal(lucky, again)


def test_branches_tell_where_they_end(mortal):
    mortal.reset(seed=0)
    branches = mortal.branch(mortal.get_state(), np.zeros((32, 3), int), seed=0)
    assert branches.terminated.any() and not branches.terminated.all()
    np.testing.assert_array_equal([s.ended for s in branches.snapshots], branches.terminated.any(axis=1))
    np.testing.assert_allclose(branches.termination_probability, 1 / (1 + np.e), rtol=0.2)


@pytest.mark.parametrize("actions", [[], [3], [-1], [0.0], 0, [[[0]]], ["noop"], np.zeros((2, 0), int)])
def test_what_is_no_row_of_actions_is_refused(env, actions):
    with pytest.raises(gym.error.InvalidAction, match=r"integers of 0\.\.2, \[N\] or \[N, t\]"):
        env.branch(env.get_state(), actions)
