import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from neural_env.envs.real_doom import RealDoom
from neural_env.evaluation.frames import PSNR_MAX, psnr
from neural_env.wrappers import ShadowMode, real_past

CONTEXT = 4
ACTIONS = [1, 2, 0, 1, 1, 2, 0]


@pytest.fixture(scope="module")
def dream(tiny_world_folder):
    env = gym.make("neural_env:NeuralDoom-v0", checkpoint=str(tiny_world_folder))
    yield env
    env.close()


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


class FakeReal:
    """A real game that counts its steps on the screen, and ends when it is told to."""

    ends = None  # step, counted from the reset, and whether it terminates

    def __init__(self, scenario, resolution, frame_skip):
        self.observation_space = gym.spaces.Box(0, 255, (*resolution, 3), np.uint8)
        self.made_with = scenario, resolution, frame_skip
        self.closed = False

    def reset(self, *, seed=None, options=None):
        self.seed, self.time, self.actions = seed, 0, []
        return self._screen(), {"variables": {"health": 100.0}}

    def step(self, action):
        self.time += 1
        self.actions.append(int(action))
        ended, terminates = (self.ends or (None, False))[0] == self.time, bool(self.ends and self.ends[1])
        return self._screen(), 2.5, ended and terminates, ended and not terminates, {"variables": {"health": 1.0}}

    def close(self):
        self.closed = True

    def _screen(self):
        return np.full(self.observation_space.shape, 10 * self.time, np.uint8)


@pytest.fixture
def fake(monkeypatch):
    class Fake(FakeReal):
        pass

    monkeypatch.setattr(real_past, "RealDoom", Fake)
    return Fake


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
        assert with_shadow[4]["variables"] == without[4]["variables"]


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
    assert env._past.real.seed == 7 and env._past.real.actions == [0, 0, 0, *ACTIONS]


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


def test_a_specification_goes_through_json_and_rebuilds_the_stack(dream, tiny_world_folder):
    env = ShadowMode(dream, sync=8)
    spec = EnvSpec.from_json(env.spec.to_json())
    again = gym.make(spec)
    assert isinstance(again, ShadowMode) and again.spec == env.spec
    assert again._saved_kwargs["sync"] == 8
    assert again.unwrapped.spec.kwargs["checkpoint"] == str(tiny_world_folder)
    again.close()
