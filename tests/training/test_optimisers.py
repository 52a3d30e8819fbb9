import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from neural_env.training.loop import LoopConfig, optimiser
from neural_env.training.optimisers import OPTIMISERS, constant, cosine


def test_cosine_rises_to_its_peak_and_falls_to_zero():
    rate = cosine(0.1, 10, 100)
    values = np.array([rate(step) for step in (0, 5, 10, 55, 100)])
    np.testing.assert_allclose(values, [0, 0.05, 0.1, 0.05, 0], atol=1e-7)


def test_constant_rises_to_its_peak_and_stays_there_however_many_steps_there_are():
    rate = constant(0.1, 10, 20)
    np.testing.assert_allclose([rate(step) for step in (0, 5, 10, 19, 10_000)], [0, 0.05, 0.1, 0.1, 0.1], atol=1e-7)


def minimised(name, **changes):
    """Where 300 steps come to, in a bowl around 1; matrices are large enough to be factored."""
    config = LoopConfig(
        **{
            "optimiser": name,
            "schedule": "constant",
            "learning_rate": 0.02,
            "warmup": 0,
            "weight_decay": 0.0,
            **changes,
        }
    )
    transform = optimiser(config)
    # What is alike everywhere has one direction, in which Muon moves no further than in any other.
    matrix = 1 + jax.random.normal(jax.random.key(0), (128, 130)) if name == "muon" else jnp.full((128, 130), 3.0)
    params = {"matrix.kernel": matrix, "vector": jnp.full(4, 3.0)}
    state = transform.init(params)

    @jax.jit  # else Muon's loop would be compiled anew every time
    def step(params, state):
        gradient = {name: 2 * (array - 1) for name, array in params.items()}
        updates, state = transform.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(300):
        params, state = step(params, state)
    return params, state


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_finds_the_bottom_of_a_bowl(name):
    params, _ = minimised(name, learning_rate=0.05 if name == "muon" else 0.02)  # Muon's step is a fifth of its rate
    assert all(jnp.abs(array - 1).max() < 0.1 for array in params.values())


@pytest.mark.parametrize("name", OPTIMISERS)
def test_weight_decay_pulls_towards_zero_alike_in_every_optimiser(name):
    params, _ = minimised(name, learning_rate=0.01, weight_decay=0.5)
    plain, _ = minimised(name, learning_rate=0.01)
    assert (params["vector"] < plain["vector"]).all()
    assert jnp.linalg.norm(params["matrix.kernel"]) < jnp.linalg.norm(plain["matrix.kernel"])


def test_adafactor_remembers_far_less_than_adamw():
    sizes = {name: sum(np.size(x) for x in jax.tree.leaves(minimised(name)[1])) for name in OPTIMISERS}
    assert sizes["adafactor"] < sizes["adamw"] / 20


def test_the_papers_setting_moves_a_weight_by_its_learning_rate_a_step():
    transform = optimiser(LoopConfig(optimiser="adafactor", schedule="constant", learning_rate=2e-5, warmup=0))
    params = {"vector": jnp.full(4, 3.0)}
    updates, _ = transform.update({"vector": jnp.full(4, 0.1)}, transform.init(params), params)
    np.testing.assert_allclose(updates["vector"], -2e-5, rtol=0.01)


def test_muon_moves_a_kernel_alike_in_every_direction_and_leaves_embeddings_to_adamw():
    transform = optimiser(LoopConfig(optimiser="muon", schedule="constant", learning_rate=0.1, warmup=0, clip=1e9))
    left, right = (jnp.linalg.qr(jax.random.normal(jax.random.key(n), (n, 8)))[0] for n in (36, 8))
    slopes = jnp.array([1.0, *[0.01] * 7])  # one direction of the gradient is a hundred times the others
    gradient = {"a.kernel": (left * slopes @ right.T).reshape(3, 3, 4, 8), "b.embedding": jnp.ones((4, 8))}
    params = jax.tree.map(jnp.zeros_like, gradient)
    updates, _ = transform.update(gradient, transform.init(params), params)
    moved = jnp.linalg.svd(updates["a.kernel"].reshape(36, 8), compute_uv=False)
    assert moved.min() > 0.5 * moved.max()
    assert 0.5 < jnp.sqrt(jnp.square(updates["a.kernel"]).mean()) / (0.1 * 0.2) < 1.5
    np.testing.assert_allclose(updates["b.embedding"], -0.1 * (1 + 0.9 / 1.9), rtol=1e-3)  # Nesterov's first step
