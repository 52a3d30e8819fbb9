"""Dreams by OpenVINO: what the environment promises, and how near they are to those by XLA."""

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("openvino")
pytest.importorskip("flatbuffers")

from neural_env.runtime import Untranslatable, cache

ID = "neural_env:NeuralDoom-v0"
ACTIONS = [1, 2, 0, 1, 1, 2]


@pytest.fixture
def make(tiny_world_folder):
    """Makes environments of the tiny world, and closes them."""
    made = []

    def make(runtime="openvino", checkpoint=tiny_world_folder, **arguments):
        made.append(gym.make(ID, checkpoint=str(checkpoint), runtime=runtime, **arguments))
        return made[-1]

    yield make
    for env in made:
        env.close()


@pytest.fixture
def make_many(tiny_world_folder):
    made = []

    def make(size=3, runtime="openvino", **arguments):
        made.append(gym.make_vec(ID, size, checkpoint=str(tiny_world_folder), runtime=runtime, **arguments))
        return made[-1]

    yield make
    for envs in made:
        envs.close()


def played(env, actions=ACTIONS, seed=0):
    """Observations, rewards and terminations."""
    first, _ = env.reset(seed=seed)
    steps = [env.step(action)[:3] for action in actions]
    return [first, *(step[0] for step in steps)], [step[1] for step in steps], [step[2] for step in steps]


def psnr(one, other):
    error = np.mean((np.float64(one) - np.float64(other)) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-6))


@pytest.mark.parametrize("dials", [{}, {"num_steps": 3}, {"context_noise": 0.3}, {"temperature": 0.0}])
def test_one_step_from_equal_contexts_is_above_40_db(make, dials):
    """Whatever the dials, and rewards, variables and luck too."""
    ours, theirs = make(**dials), make("xla", **dials)
    ours.reset(seed=3)
    theirs.reset(seed=3)
    theirs.unwrapped.set_state(ours.unwrapped.get_state())
    for action in (1, 2):
        a, b = ours.step(action), theirs.step(action)
        assert psnr(a[0], b[0]) > 40
        assert a[1] == pytest.approx(b[1], abs=0.05)
        assert a[2] == b[2]
        assert a[4]["health"] == pytest.approx(b[4]["health"], abs=0.1)
        np.testing.assert_array_equal(ours.unwrapped.get_state().key, theirs.unwrapped.get_state().key)
        theirs.unwrapped.set_state(ours.unwrapped.get_state())


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [1, 4])
def test_one_step_of_the_bundled_world_is_above_40_db(num_steps):
    envs = [gym.make(ID, runtime=runtime, num_steps=num_steps, temperature=0.5) for runtime in ("openvino", "xla")]
    for seed in (1, 11):
        frames = []
        for env in envs:
            env.reset(seed=seed)
            env.unwrapped.set_state(envs[0].unwrapped.get_state())
        frames = [env.step(1)[0] for env in envs]
        assert psnr(*frames) > 40


def test_equal_seeds_have_equal_dreams(make):
    for one, other in zip(played(make()), played(make()), strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_seeds_have_other_dreams(make):
    env = make()
    assert not np.array_equal(played(env, seed=0)[0], played(env, seed=1)[0])


def test_observations_are_the_callers_own(make):
    env = make()
    env.reset(seed=0)
    first = env.step(1)[0]
    kept = first.copy()
    env.step(2)
    np.testing.assert_array_equal(first, kept)
    assert first.flags.writeable


def test_a_moment_is_restored_exactly(make):
    env = make(context_noise=0.2).unwrapped
    env.reset(seed=0)
    env.step(1)
    snapshot = env.get_state()
    future = [env.step(action)[0] for action in ACTIONS]
    env.set_state(snapshot)
    np.testing.assert_array_equal(future, [env.step(action)[0] for action in ACTIONS])


def test_branches_are_the_futures_that_steps_would_show(make):
    env = make().unwrapped
    env.reset(seed=0)
    env.step(1)
    snapshot = env.get_state()
    branches = env.branch(snapshot, [[0, 1], [2, 2]])
    for row, actions in enumerate([[0, 1], [2, 2]]):
        env.set_state(snapshot)
        steps = [env.step(action) for action in actions]
        np.testing.assert_array_equal(branches.frames[row], [step[0] for step in steps])
        np.testing.assert_allclose(branches.rewards[row], [step[1] for step in steps])
    assert branches.snapshots[1].elapsed_steps == 3


def test_latents_are_decoded_only_when_looked_at(make):
    latents, frames = make(observation="latent", render_mode="rgb_array"), make()
    latents.reset(seed=0)
    frames.reset(seed=0)
    for action in ACTIONS:
        latent, frame = latents.step(action)[0], frames.step(action)[0]
        assert latent.shape == latents.observation_space.shape and latent.dtype == np.float32
    assert psnr(latents.render(), frame) > 45


def test_given_frames_are_a_beginning(make):
    env = make().unwrapped
    frames = np.random.default_rng(0).integers(256, size=(env.context_length, 120, 160, 3), dtype=np.uint8)
    actions = np.zeros(env.context_length - 1, np.int32)
    env.reset(options={"context": frames, "actions": actions})
    dreamt = env.step(1)[0]
    assert dreamt.shape == (120, 160, 3)
    assert env.set_context(frames, actions).shape == (120, 160, 3)


def test_dials_are_turned_between_steps(make):
    env, never = make(termination="never").unwrapped, make(termination="never").unwrapped
    for one in (env, never):
        one.reset(seed=0)
    env.context_noise = 0.5
    assert not np.array_equal(env.step(1)[0], never.step(1)[0])
    env.set_state(never.get_state())
    env.context_noise = 0.0
    np.testing.assert_array_equal(env.step(1)[0], never.step(1)[0])


def test_guidance_above_one_is_xlas(make, save_world, make_guided_world, tmp_path):
    """Both runtimes then do the same, from equal moments."""
    folder = save_world(make_guided_world(), tmp_path / "guided")
    ours = make(checkpoint=folder, guidance=2.0).unwrapped
    theirs = make("xla", checkpoint=folder, guidance=2.0).unwrapped
    ours.reset(seed=0)
    theirs.reset(seed=0)
    theirs.set_state(ours.get_state())
    np.testing.assert_array_equal(ours.step(1)[0], theirs.step(1)[0])
    ours.guidance = 1.0
    assert ours.step(1)[0].dtype == np.uint8


def test_deaths_are_drawn_with_the_same_luck(make, mortal_world_folder):
    def deaths(runtime):
        env = make(runtime, checkpoint=mortal_world_folder)
        return [played_until_over(env, seed) for seed in range(5)]

    assert deaths("openvino") == deaths("xla")


def played_until_over(env, seed):
    env.reset(seed=seed)
    for step in range(50):
        if env.step(0)[2]:
            return step
    return None


@pytest.mark.parametrize("arguments", [{}, {"observation": "latent"}, {"context_noise": [0.0, 0.3, 0.0]}])
def test_each_of_many_dreams_is_what_it_would_be_alone(make, make_many, arguments):
    envs = make_many(**arguments)
    envs.reset(seed=5)
    together = [envs.step(np.full(3, action))[0] for action in ACTIONS[:3]]
    for row in range(3):
        noise = np.broadcast_to(arguments.get("context_noise", 0.0), 3)[row]
        alone = played(make(**{**arguments, "context_noise": float(noise)}), ACTIONS[:3], seed=5 + row)[0][1:]
        np.testing.assert_allclose(
            np.float64([step[row] for step in together]), np.float64(alone), atol=1 if not arguments else 1e-3 + 1
        )


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_many_dreams_begin_anew(make_many, mortal_world_folder, mode):
    envs = gym.make_vec(ID, 2, checkpoint=str(mortal_world_folder), runtime="openvino", autoreset_mode=mode)
    envs.reset(seed=0)
    ended = sum(envs.step(np.zeros(2, np.int64))[2].sum() for _ in range(20))
    snapshots = envs.get_state()
    envs.reset(options={"state": list(snapshots[::-1])}) if not any(s.ended for s in snapshots) else envs.reset()
    envs.close()
    assert ended > 1


def test_guidance_of_many_is_xlas_too(save_world, make_guided_world, tmp_path):
    folder = str(save_world(make_guided_world(), tmp_path / "guided"))
    envs = gym.make_vec(ID, 2, checkpoint=folder, runtime="openvino", guidance=1.5)
    envs.reset(seed=0)
    observations, rewards, *_ = envs.step(np.zeros(2, np.int64))
    assert observations.shape == (2, 120, 160, 3) and rewards.shape == (2,)
    envs.close()


def test_a_program_that_was_kept_is_not_made_again(make, monkeypatch):
    first = played(make(), ACTIONS[:2])
    monkeypatch.setattr("neural_env.runtime.openvino.split", None)
    monkeypatch.setattr("neural_env.checkpoint.load", None)  # nor are the weights read
    again = played(make(), ACTIONS[:2])
    np.testing.assert_array_equal(first[0], again[0])


def test_a_damaged_program_is_made_again(make, monkeypatch, tmp_path):
    monkeypatch.setenv("NEURAL_ENV_CACHE", str(tmp_path))
    first = played(make(), ACTIONS[:1])
    for entry in cache.folder().glob("*.openvino"):
        entry.write_bytes(entry.read_bytes()[:-100])
    again = played(make(), ACTIONS[:1])
    np.testing.assert_array_equal(first[0], again[0])
    assert all(cache.read(path.name) for path in tmp_path.iterdir())


def test_another_world_has_other_programs(make, save_world, make_world, tmp_path):
    other = save_world(make_world(seed=1), tmp_path / "other")
    ours, others = make(), make(checkpoint=other)
    snapshot_frames = []
    for env in (ours, others):
        env.reset(seed=0)
        snapshot_frames.append(env.step(1)[0])
    assert not np.array_equal(*snapshot_frames)


@pytest.fixture
def untranslatable(monkeypatch, tmp_path):
    """No function of the world has a translation."""

    def refuse(*_):
        raise Untranslatable("there is no translation of 'sort'")

    monkeypatch.setattr("neural_env.runtime.openvino.split", refuse)
    monkeypatch.setenv("NEURAL_ENV_CACHE", str(tmp_path))
    monkeypatch.delenv("NEURAL_ENV_RUNTIME")


def test_a_world_without_a_translation_is_run_by_xla_unless_openvino_is_asked_for(untranslatable, make, make_many):
    for found, expected in zip(played(make("auto")), played(make("xla")), strict=True):
        np.testing.assert_array_equal(found, expected)
    branched = make("auto")
    branched.reset(seed=0)
    assert branched.unwrapped.branch(branched.unwrapped.get_state(), [0, 1]).frames.shape == (2, 120, 160, 3)
    auto, xla = make_many(runtime="auto"), make_many(runtime="xla")
    for envs in (auto, xla):
        envs.reset(seed=1)
    steps = [envs.step(np.array([0, 1, 2])) for envs in (auto, xla)]
    assert np.abs(steps[0][0].astype(int) - steps[1][0]).max() <= 1  # rows one by one, and rows together
    with pytest.raises(Untranslatable, match="no translation of 'sort'"):
        make("openvino").reset(seed=0)
