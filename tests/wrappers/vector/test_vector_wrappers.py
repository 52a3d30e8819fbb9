"""The vector forms do row by row what the single forms do, in all three autoreset modes."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from neural_env import wrappers
from neural_env.evaluation.lpips import lpips
from neural_env.wrappers import vector
from neural_env.wrappers.vector.episodes import EpisodeWrapper

N = 2
CONTEXT = 4
ACTIONS = np.array([[0, 1], [1, 2], [2, 0], [0, 0], [1, 1], [2, 1], [0, 2]])


@pytest.fixture(scope="module")
def dreams(tiny_world_folder):
    """The dreams of each autoreset mode, made once; their dials are put back by `make`."""
    made = {}

    def get(mode="NextStep"):
        if mode not in made:
            made[mode] = gym.make_vec("NeuralDoom-v0", N, checkpoint=str(tiny_world_folder), autoreset_mode=mode)
        made[mode].context_noise = 0.0
        return made[mode]

    yield get
    for env in made.values():
        env.close()


@pytest.fixture(scope="module")
def ones(tiny_world_folder):
    """N single dreams, made once: each compiles for itself."""
    made = [gym.make("NeuralDoom-v0", checkpoint=str(tiny_world_folder)) for _ in range(N)]
    yield made
    for env in made:
        env.close()


@pytest.fixture
def singles(ones):
    """N single environments behind Gymnasium's own vector environment: what ours are to be like."""

    def make(wrap, mode="NextStep"):
        for env in ones:
            env.unwrapped.context_noise = 0.0
        return SyncVectorEnv([lambda env=env: wrap(env) for env in ones], autoreset_mode=AutoresetMode(mode))

    yield make


def play(env, seed=0, steps=None):
    """Everything shown; over episodes are begun anew by hand where nobody else does."""
    observations, infos = env.reset(seed=seed)
    shown = [(observations, None, None, None, infos)]
    for actions in ACTIONS[:steps]:
        shown.append(env.step(actions))
        over = shown[-1][2] | shown[-1][3]
        if env.metadata["autoreset_mode"] is AutoresetMode.DISABLED and over.any():
            observations, infos = env.reset(options={"reset_mask": over})
            shown.append((observations, None, None, None, infos))
    return shown


def alike(ours, theirs, dreamed=()):
    """Equal structure, types and masks; equal values too, but for what differs by rounding or luck."""
    assert set(ours) == set(theirs)
    for name in ours:
        if isinstance(ours[name], dict):
            alike(ours[name], theirs[name], dreamed)
            continue
        assert ours[name].shape == theirs[name].shape and ours[name].dtype == theirs[name].dtype, name
        if name.startswith("_") or name in dreamed or name == "final_obs":
            if name.startswith("_"):
                assert np.array_equal(ours[name], theirs[name]), name
            continue
        mask = theirs.get(f"_{name}", np.ones(N, bool))
        assert np.array_equal(ours[name][mask], theirs[name][mask]), name


DREAMED = (
    "psnr", "ssim", "mean_psnr", "min_psnr", "mean_ssim", "min_ssim", "reward_error", "reward_agreement", "health",
    "horizon", "diverged", "disagreement", "context_noise",
)  # fmt: skip


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_shadows_are_what_gymnasium_makes_of_single_ones(dreams, singles, fake, mode):
    fake.ends = (CONTEXT - 1 + 3, False)
    ours = play(vector.ShadowMode(dreams(mode), sync=2))
    theirs = play(singles(lambda env: wrappers.ShadowMode(env, sync=2), mode))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        alike(a[4], b[4], DREAMED)
        for i in (2, 3):
            assert np.array_equal(a[i], b[i])
    for a, b in zip(ours[:3], theirs[:3], strict=True):  # the first episode: luck is the same, sums are rounded
        assert np.abs(a[0].astype(int) - b[0]).max() <= 1
        assert a[4]["shadow"]["psnr"] == pytest.approx(b[4]["shadow"]["psnr"], abs=0.1)


def test_shadows_tell_lpips_row_by_row(dreams, fake):
    fake.ends = (CONTEXT - 1 + 3, False)
    for observations, _, _, _, infos in play(vector.ShadowMode(dreams(), metrics=["lpips"]))[:4]:
        np.testing.assert_allclose(
            infos["shadow"]["lpips"], lpips(observations, infos["shadow"]["real_obs"]), atol=1e-6
        )
    about = infos["episode_shadow"]
    assert (about["max_lpips"] > about["mean_lpips"]).all() and (about["mean_lpips"] > 0).all()


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_a_row_that_is_cut_begins_anew_and_the_others_go_on(dreams, mode):
    class Cut(EpisodeWrapper):
        def _begun(self, row, frame):
            return {"age": 0}

        def _after(self, row, action, frame, reward, terminated, ended):
            return {"age": 1}, row == 1

    env, alone = Cut(dreams(mode)), dreams(mode)
    env.reset(seed=0)
    _, _, _, truncated, infos = env.step(ACTIONS[0])
    assert truncated.tolist() == [False, True]
    if mode == "SameStep":
        assert infos["age"].tolist() == [1, 0] and infos["final_info"]["age"].tolist() == [0, 1]
        assert infos["_final_info"].tolist() == [False, True]
        assert infos["final_obs"][0] is None and infos["final_obs"][1].shape == (120, 160, 3)
        assert alone.unwrapped._elapsed.tolist() == [1, 0]
        return
    assert infos["age"].tolist() == [1, 1]
    _, rewards, terminated, truncated, infos = env.step(ACTIONS[1])
    assert infos["age"].tolist() == [1, 0] and rewards[1] == 0.0
    assert not terminated.any() and not truncated.any()
    assert alone.unwrapped._elapsed.tolist() == [2, 0]


def test_in_mode_disabled_a_cut_row_must_be_reset(dreams):
    class Cut(EpisodeWrapper):
        def _after(self, row, action, frame, reward, terminated, ended):
            return {}, row == 1

    env = Cut(dreams("Disabled"))
    env.reset(seed=0)
    env.step(ACTIONS[0])
    with pytest.raises(gym.error.ResetNeeded, match=r"episodes of \[1\] are over"):
        env.step(ACTIONS[1])
    env.reset(options={"reset_mask": np.array([False, True])})
    env.step(ACTIONS[1])


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_real_starts_are_those_of_single_ones_after_autoresets_too(dreams, singles, fake, mode, monkeypatch):
    arguments = {"warmup": (0, 9)}
    env = vector.RealStarts(dreams(mode), **arguments)
    monkeypatch.setattr(dreams(mode).unwrapped, "max_episode_steps", 2)
    ours = play(env)
    one = lambda env: wrappers.RealStarts(gym.wrappers.TimeLimit(env, 2), **arguments)  # noqa: E731
    theirs = play(singles(one, mode))
    for a, b in zip(ours, theirs, strict=True):
        alike(a[4], b[4], DREAMED)
        begun = a[4].get("_real_start", np.zeros(N, bool))
        assert np.abs(a[0][begun].astype(int) - b[0][begun]).max(initial=0) <= 1
    assert sum("real_start" in step[4] for step in ours) >= 3


def test_noise_is_scheduled_for_each_dream(dreams, monkeypatch):
    env = vector.NoiseAugmentedContext(dreams(), schedule=[[0, 0.0], [4, 0.4]])
    env.reset(seed=0)
    told = [env.step(actions)[4]["context_noise"] for actions in ACTIONS[:2]]
    np.testing.assert_allclose(told, [[0.0, 0.0], [0.1, 0.1]])
    env.reset(options={"reset_mask": np.array([False, True])})
    np.testing.assert_allclose(env.unwrapped.context_noise, [0.2, 0.0])
    np.testing.assert_allclose(env.step(ACTIONS[2])[4]["context_noise"], [0.2, 0.0])


def test_drawn_levels_are_those_of_single_ones(dreams, singles):
    schedule = ["uniform", 0.1, 0.6, "step"]
    ours = play(vector.NoiseAugmentedContext(dreams(), schedule=schedule), seed=5, steps=4)
    theirs = play(singles(lambda env: wrappers.NoiseAugmentedContext(env, schedule=schedule)), seed=5, steps=4)
    for a, b in zip(ours, theirs, strict=True):
        alike(a[4], b[4], ("health",))
        assert np.abs(a[0].astype(int) - b[0]).max() <= 2
    assert len({tuple(step[4]["context_noise"]) for step in ours[1:]}) == 4


@pytest.mark.parametrize("kind", ["samples", "levels"])
def test_disagreement_is_that_of_single_ones_and_touches_nothing(dreams, singles, kind):
    alone = play(dreams(), steps=3)
    ours = play(vector.Disagreement(dreams(), samples=2, kind=kind), steps=3)
    for a, b in zip(alone, ours, strict=True):
        assert np.array_equal(a[0], b[0])
    theirs = play(singles(lambda env: wrappers.Disagreement(env, samples=2, kind=kind)), steps=3)
    for a, b in zip(ours, theirs, strict=True):
        alike(a[4], b[4], DREAMED)
        np.testing.assert_allclose(a[4]["disagreement"], b[4]["disagreement"], rtol=0.05)
    assert ours[-1][4]["disagreement"].min() > 0


def test_a_dream_that_is_too_unsure_is_truncated(dreams):
    values = play(vector.Disagreement(dreams(), samples=2), steps=1)[-1][4]["disagreement"]
    env = vector.Disagreement(dreams(), samples=2, truncate_above=float(values.mean()))
    env.reset(seed=0)
    assert env.step(ACTIONS[0])[3].tolist() == (values > values.mean()).tolist()


@pytest.mark.parametrize(
    ("arguments", "actions", "expected"),
    [
        ({"actions": ["move_right", "noop"]}, np.array([0, 1]), [2, 0]),
        ({"buttons": ["MOVE_LEFT", "MOVE_RIGHT"]}, np.array([[0, 1], [1, 0]], np.int8), [2, 1]),
        ({"groups": [["noop", "move_left"], ["noop"]]}, np.array([[1, 0], [0, 0]]), [1, 0]),
        ({"vizdoom": "take_cover"}, np.array([1, 2]), [2, 1]),
    ],
)
def test_actions_are_mapped_row_by_row(dreams, arguments, actions, expected):
    env = vector.ActionMapping(dreams(), **arguments)
    assert env.action_space.contains(actions) and env.action_space.contains(env.action_space.sample())
    assert env.actions(actions).tolist() == expected and env.actions(actions).dtype == np.int64
    for wrong in (actions[:1], actions + 9, None, 3):
        with pytest.raises(gym.error.InvalidAction):
            env.actions(wrong)


def test_all_compose(dreams, fake, tmp_path):
    path = tmp_path / "shadow.jsonl"
    fake.ends = (CONTEXT - 1 + 2, False)
    noisy = vector.NoiseAugmentedContext(dreams(), level=0.2)
    shadow = vector.ShadowMode(vector.Disagreement(noisy, samples=2), log=str(path))
    env = gym.wrappers.vector.RecordEpisodeStatistics(vector.ActionMapping(shadow, vizdoom="take_cover"))
    env.reset(seed=0)
    steps = [env.step(actions) for actions in ACTIONS[:3]]
    infos = steps[1][4]
    assert steps[1][3].all() and infos["episode"]["l"].tolist() == infos["episode_shadow"]["steps"].tolist() == [2, 2]
    assert infos["context_noise"].tolist() == [0.2, 0.2] and infos["disagreement"].min() > 0
    assert steps[2][4]["shadow"]["steps_since_sync"].tolist() == [0, 0]
    assert [past.real.actions for past in shadow._pasts] == [[0, 0, 0], [0, 0, 0]]
    assert len(path.read_text().splitlines()) == N * 3
    shadow._log.close()


def test_the_real_engines_play_beside_the_dreams(dreams):
    env = vector.ShadowMode(dreams(), metrics=[])
    _, infos = env.reset(seed=0)
    first = infos["shadow"]["real_obs"]
    for _ in range(3):
        frames = env.step(np.array([1, 2]))[4]["shadow"]["real_obs"]
    assert not np.array_equal(frames[0], frames[1])  # one went left, the other right
    assert not np.array_equal(frames[0], first[0]) and not np.array_equal(frames[1], first[1])
    for past in env._pasts:
        past.close()


@pytest.mark.parametrize("name", ["ShadowMode", "Disagreement", "NoiseAugmentedContext", "RealStarts"])
def test_the_vector_forms_wrap_dreams(name, singles):
    with pytest.raises(TypeError, match=f"{name} wraps a NeuralDoomVector, got SyncVectorEnv"):
        getattr(vector, name)(singles(lambda env: env))


def test_action_wrappers_belong_outside(dreams):
    mapped = vector.ActionMapping(dreams(), actions=["noop"])
    for kind in (vector.ShadowMode, vector.Disagreement):
        with pytest.raises(ValueError, match="put ActionMapping around it"):
            kind(mapped)


def test_options_are_refused_where_real_games_say_how_to_begin(dreams, fake):
    with pytest.raises(ValueError, match=r"no options but reset_mask, got \['state'\]"):
        vector.RealStarts(dreams()).reset(options={"state": None})
