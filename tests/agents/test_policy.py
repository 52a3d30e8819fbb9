from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural_env.agents.policy import (
    ActorCritic,
    Memory,
    PatchConv,
    PolicyConfig,
    act,
    begin,
    evaluate,
    observe,
    stacked,
)

SMALL = PolicyConfig(shrink=2, stack=3, past_actions=2, convolutions=((4, 3, 2),), features=8, hidden=(8,))


@pytest.fixture(scope="module")
def policy():
    return ActorCritic(SMALL, 3, (12, 16), rngs=nnx.Rngs(0))


def screens(value, n=2):
    return jnp.full((n, 12, 16, 3), value, jnp.uint8)


def test_a_view_is_the_mean_of_each_block(policy):
    frames = np.random.default_rng(0).integers(256, size=(2, 12, 16, 3), dtype=np.uint8)
    view = np.asarray(policy.view(jnp.asarray(frames)))
    assert view.shape == (2, 6, 8, 3) and view.dtype == np.uint8
    assert (view == frames.reshape(2, 6, 2, 8, 2, 3).mean(axis=(2, 4)).astype(np.uint8)).all()


def test_a_white_block_stays_white(policy):
    assert (np.asarray(policy.view(screens(255))) == 255).all()


@pytest.mark.parametrize(("size", "stride"), [(3, 2), (4, 4), (8, 4), (3, 1)])
def test_patches_are_a_convolution(size, stride):
    layer = PatchConv(5, 7, size, stride, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 13, 17, 5))
    kernel = layer.linear.kernel[...].reshape(size, size, 5, 7)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(layer(x), expected + layer.linear.bias[...], atol=1e-4)


def test_memory_keeps_the_last_frames_and_actions_in_order(policy):
    memory = begin(policy, screens(1))
    for value, action in ((2, 0), (3, 1), (4, 2)):
        memory = observe(policy, memory, screens(value), jnp.full(2, action), jnp.zeros(2, bool))
    assert memory.frames[:, 0, 0, 0, 0].tolist() == [2, 3, 4]
    assert memory.past_actions.tolist() == [[1, 2], [1, 2]] and memory.ages.tolist() == [3, 3]


def test_after_an_end_nothing_of_the_old_episode_is_seen(policy):
    memory = begin(policy, screens(1))
    memory = observe(policy, memory, screens(9), jnp.array([1, 1]), jnp.array([True, False]))
    assert stacked(memory)[:, 0, 0, 0, 0].tolist() == [9, 9, 9]  # the new episode's first frame, repeated
    assert stacked(memory)[:, 1, 0, 0, 0].tolist() == [1, 1, 9]
    assert memory.past_actions.tolist() == [[3, 3], [3, 1]]  # 3 stands for none
    memory = observe(policy, memory, screens(10), jnp.array([2, 2]), jnp.zeros(2, bool))
    assert stacked(memory)[:, 0, 0, 0, 0].tolist() == [9, 9, 10]


def test_every_stacked_frame_and_past_action_matters(policy):
    memory = begin(policy, screens(100, n=1))
    memory = Memory(memory.frames, jnp.array([5]), jnp.array([[0, 1]]))
    logits, value = evaluate(policy, memory)
    for i in range(3):
        changed = memory._replace(frames=memory.frames.at[i].add(50))
        assert not np.allclose(evaluate(policy, changed)[1], value, atol=1e-5)
    for i in range(2):
        changed = memory._replace(past_actions=memory.past_actions.at[0, i].set(2))
        assert not np.allclose(evaluate(policy, changed)[1], value, atol=1e-6)
    assert logits.shape == (1, 3) and value.shape == (1,)


def test_an_untrained_policy_is_nearly_uniform_and_says_how_likely_its_actions_are(policy):
    acted = act(policy, begin(policy, screens(100, n=300)), jax.random.key(0))
    np.testing.assert_allclose(acted.log_probs, np.log(1 / 3), atol=0.05)
    assert set(np.unique(acted.actions)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shrink": 5}, "shrink=5 must divide the resolution"),
        ({"stack": 0}, "stack must be at least 1, got 0"),
        ({"convolutions": ((4, 9, 4),)}, "leave nothing of a view of"),
    ],
)
def test_sizes_that_make_no_network_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ActorCritic(PolicyConfig(**{"shrink": 2, **changes}), 3, (12, 16), rngs=nnx.Rngs(0))


def test_the_papers_network_fits_the_games_screen():
    policy = nnx.eval_shape(lambda: ActorCritic(PolicyConfig(), 3, (120, 160), rngs=nnx.Rngs(0)))
    assert policy.picture.kernel.shape == (11 * 16 * 64, 512)  # 512 features of the picture
    assert len(policy.actor) == len(policy.critic) == 2 and policy.embedding.embedding.shape[0] == 4


def test_the_map_matters_as_the_screen_does():
    policy = ActorCritic(replace(SMALL, automap=True), 3, (12, 16), rngs=nnx.Rngs(0))
    both = np.random.default_rng(0).integers(256, size=(1, 12, 16, 6), dtype=np.uint8)
    value = evaluate(policy, begin(policy, jnp.asarray(both)))[1]
    for channels in (slice(0, 3), slice(3, 6)):
        changed = both.copy()
        changed[..., channels] ^= 128
        assert not np.allclose(evaluate(policy, begin(policy, jnp.asarray(changed)))[1], value, atol=1e-5)


def test_a_screen_without_its_map_is_refused():
    policy = ActorCritic(replace(SMALL, automap=True), 3, (12, 16), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="the agent sees screen and automap, 6 channels, got 3"):
        begin(policy, screens(1))
