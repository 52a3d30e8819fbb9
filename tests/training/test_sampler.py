import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural_env.training.sampler import SamplerConfig, choice_of, energy_score, scored
from neural_env.world.velocity import VPrediction


def score(drawn_std, drawn_mean=0.0):
    """Of draws from N(drawn_mean, drawn_std^2) where the truth is N(0, 1)."""
    keys = jax.random.split(jax.random.key(0), 3)
    shape = (4000, 1, 1, 2)
    first, second = (drawn_mean + drawn_std * jax.random.normal(key, shape) for key in keys[:2])
    return float(energy_score(first, second, jax.random.normal(keys[2], shape), jnp.ones(2)).mean())


@pytest.mark.parametrize("wrong", [{"drawn_std": 0.0}, {"drawn_std": 0.5}, {"drawn_std": 1.6}])
def test_the_energy_score_is_lowest_for_the_true_distribution_and_not_for_its_mean(wrong):
    assert score(1.0) < score(**wrong)
    assert score(1.0) < score(1.0, drawn_mean=0.4)


class Few:
    def __init__(self, world):
        self.world = world

    def evenly(self, size, batches):
        rng = np.random.default_rng(0)
        past = rng.standard_normal((size, 4, *self.world.latent_shape), np.float32)
        return [{"context": past, "actions": np.zeros((size, 4), np.int32), "latent": past[:, -1]}] * batches


def test_everything_that_is_tried_is_scored_and_the_best_is_chosen(tiny_world):
    config = SamplerConfig(sigma_lasts=(0.02, 0.5), etas=(1.0,), windows=32)
    scores = scored(tiny_world, Few(tiny_world), config)
    assert {(s.sigma_last, s.eta) for s in scores} == {(0.02, 1.0), (0.5, 1.0)}
    energies = [s.energy for s in scores]
    assert energies == sorted(energies) and len(set(energies)) == 2
    chosen = choice_of(scores, config)
    assert (chosen["num_steps"], chosen["sigma_last"], chosen["eta"]) == (2, scores[0].sigma_last, scores[0].eta)
    assert len(chosen["tried"]) == 2


def test_a_world_of_another_objective_has_no_levels_to_choose(tiny_world):
    world = nnx.merge(*nnx.split(tiny_world))
    world.objective = VPrediction()
    with pytest.raises(ValueError, match="only EDM worlds have levels to choose, this one's objective is 'v'"):
        scored(world, Few(world), SamplerConfig())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"num_steps": 1}, "at least 2, got 1"), ({"windows": 8}, "at least 32, got 8"), ({"etas": ()}, "nothing to try")],
)
def test_a_choice_between_nothing_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        SamplerConfig(**wrong)
