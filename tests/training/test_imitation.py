from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env.agents.dreams import Beginnings
from neural_env.agents.player import new_policy
from neural_env.agents.policy import PolicyConfig
from neural_env.envs.core import DreamState
from neural_env.training.imitation import Lesson, held_out_of, imitate, lesson_of, planned

SMALL = PolicyConfig(
    picture_channels=4, stack=2, past_actions=2, convolutions=((8, 3, 2),), features=16, action_features=4, hidden=()
)
EYES = SimpleNamespace(grid=lambda resolution: (15, 20))


@pytest.fixture(scope="module")
def places():
    """600 contexts whose last frame shows, by the sign of channel 0, on which side the danger is."""
    rng = np.random.default_rng(0)
    contexts = rng.standard_normal((600, 4, 15, 20, 4)).astype(np.float32)
    contexts[..., 0] += np.where(rng.random(600) < 0.5, 2, -2)[:, None, None, None]
    actions = rng.integers(0, 3, (600, 3)).astype(np.int32)
    return Beginnings(DreamState(contexts, actions), np.zeros((600, 15, 20, 4), np.uint8), np.zeros((600, 1)))


@pytest.fixture(scope="module")
def outlooks(places):
    right = places.states.context[:, -1, ..., 0].mean(axis=(1, 2)) > 0
    return np.where(right[:, None], [0.0, 10.0, -10.0], [0.0, -10.0, 10.0]).astype(np.float32)


class Recorded:
    """A planner that answers from a table."""

    def __init__(self, table):
        self.table, self.asked = table, 0

    def outlooks(self, places, key):
        self.asked += 1
        return self.table[: len(places.variables)]


def test_what_is_planned_already_is_not_dreamed_again(places, outlooks, tmp_path):
    planner = Recorded(outlooks)
    first, seconds = planned(planner, places, 0, tmp_path)
    assert first.shape == (600, 3) and planner.asked == 3  # 256 at a time
    (tmp_path / "1.safetensors").write_bytes(b"cut short")
    again, in_all = planned(planner, places, 0, tmp_path)
    assert seconds > 0 and in_all > 0
    np.testing.assert_array_equal(first, again)
    assert planner.asked == 4


def test_the_agent_learns_to_choose_what_promises_most(places, outlooks, game):
    policy = new_policy(SMALL, game, eyes=EYES)
    lesson, told = lesson_of(policy, places, outlooks), []
    learned = imitate(policy, lesson, 2.0, 150, 0, lambda epoch, scalars: told.append(scalars["regret_held_out"]))
    logits, _ = learned(lesson.frames, lesson.past_actions)
    assert (np.asarray(logits).argmax(axis=1) == outlooks.argmax(axis=1)).mean() > 0.95
    assert len(told) == 150 and min(told) < 1 < 9 < told[0]  # by chance 10


@pytest.mark.parametrize("count", [2, 3, 8, 9, 16, 64, 100, 1000, 18_688])
def test_what_is_held_out_are_whole_stretches_of_an_eighth(count):
    held_out = held_out_of(count)
    stretches = 1 + np.count_nonzero(np.diff(held_out.astype(int)) > 0)  # the first moment begins one
    assert held_out[0] and not held_out.all()
    assert stretches == -(-min(count, 64) // 8)
    assert count < 64 or held_out.mean() == pytest.approx(1 / 8, abs=0.04)


def test_it_is_left_as_it_regretted_least(places, outlooks, game):
    """What is held out contradicts the rest, so learning makes it worse there."""
    contrary, held_out = outlooks.copy(), held_out_of(len(outlooks))
    contrary[held_out] *= -1
    policy = new_policy(SMALL, game, eyes=EYES)
    lesson, told = lesson_of(policy, places, contrary), []
    learned = imitate(policy, lesson, 2.0, 40, 0, lambda epoch, scalars: told.append(scalars["regret_held_out"]))
    assert told[-1] > min(told)
    logits, _ = learned(lesson.frames[:, held_out], lesson.past_actions[held_out])
    chosen = np.asarray(jax.nn.softmax(logits))
    regret = (contrary[held_out].max(axis=1) - (chosen * contrary[held_out]).sum(axis=1)).mean()
    assert regret == pytest.approx(min(told), rel=1e-3)


def test_an_agent_that_remembers_more_than_a_context_is_refused(places, outlooks, game):
    far = PolicyConfig(picture_channels=4, stack=2, past_actions=8, convolutions=((8, 3, 2),), features=16)
    with pytest.raises(ValueError, match="sees 2 frames and 8 actions, a context holds 4 frames and 3 actions"):
        lesson_of(new_policy(far, game, eyes=EYES), places, outlooks)


def test_the_lesson_shows_what_the_agent_sees_in_play(places, outlooks, game):
    lesson = lesson_of(new_policy(SMALL, game, eyes=EYES), places, outlooks)
    assert (
        isinstance(lesson, Lesson) and lesson.frames.shape == (2, 600, 15, 20, 4) and lesson.frames.dtype == jnp.uint8
    )
    np.testing.assert_array_equal(lesson.past_actions, places.states.actions[:, 1:])
