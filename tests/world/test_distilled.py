from itertools import pairwise

import jax
import jax.numpy as jnp
import pytest

from neural_env.world.diffusion import EDM
from neural_env.world.distilled import Distilled
from neural_env.world.shortcut import Shortcut
from neural_env.world.velocity import VPrediction

SHAPE = (2, 3, 3, 1)
TEACHERS = (EDM(eta=0.5), VPrediction(), Shortcut())


def network(x, c_noise, c_step=None):
    return jnp.tanh(x) + c_noise[:, None, None, None]


@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_student_draws_from_the_noise_that_its_teacher_begins_at(teacher):
    key = jax.random.key(0)
    drawn = Distilled(teacher=teacher).sample(network, key, SHAPE, 1)
    assert (drawn == teacher.sample(network, key, SHAPE, 1)).all()
    first = []
    spy = lambda x, *told: first.append(x) or network(x, *told)  # noqa: E731
    with jax.disable_jit():
        for steps in (1, 4):
            first.append(None)
            teacher.as_flow().sample(spy, key, SHAPE, steps)
    starts = [x for before, x in pairwise(first) if before is None]
    assert len(starts) == 2 and (starts[0] == starts[1]).all()


@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_student_takes_one_step_and_is_trained_by_its_teacher_alone(teacher):
    student = Distilled(teacher=teacher)
    assert student.tells_step == teacher.tells_step
    with pytest.raises(ValueError, match="distilled to one step and has unlearned more: num_steps is 2"):
        student.sample(network, jax.random.key(0), SHAPE, 2)
    with pytest.raises(ValueError, match="learns from its teacher alone"):
        student.loss(network, jax.random.key(0), jnp.zeros(SHAPE), jnp.ones(1))
