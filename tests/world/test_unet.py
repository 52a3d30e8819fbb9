import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural_env.world.conditioning import CrossAttention
from neural_env.world.diffusion import precondition
from neural_env.world.unet import UNet, UNetConfig

CONFIG = UNetConfig(context=4, widths=(8, 16), blocks=1, embedding=16)
GRID = (3, 5)  # odd, so that halving and doubling must be undone with care


ATTENDING = UNetConfig(context=4, widths=(8, 16), blocks=1, embedding=16, conditioning=CrossAttention(heads=2))


@pytest.fixture(scope="module", params=(CONFIG, ATTENDING), ids=lambda config: config.conditioning.kind)
def fresh(request):
    return UNet(request.param, GRID, 4, 3, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def unet(fresh, perturbed):
    return perturbed(fresh)


@pytest.fixture
def inputs():
    keys = jax.random.split(jax.random.key(0))
    return {
        "x": jax.random.normal(keys[0], (2, *GRID, 4)),
        "c_noise": jnp.array([0.1, 0.1]),
        "context": jax.random.normal(keys[1], (2, 4, *GRID, 4)),
        "actions": jnp.array([[0, 1, 2, 1], [0, 1, 2, 1]], jnp.int32),
        "levels": jnp.zeros((2, 4)),
    }


def changed(unet, inputs, **changes):
    """The largest change of the first and of the second item's output when the first item's inputs change."""
    difference = jnp.abs(unet(**{**inputs, **changes}) - unet(**inputs)).max(axis=(1, 2, 3))
    return float(difference[0]), float(difference[1])


def test_the_output_has_the_shape_of_a_latent(unet, inputs):
    assert unet(**inputs).shape == (2, *GRID, 4)


def test_it_starts_as_a_copy_of_the_last_frame(fresh, inputs):
    assert (fresh(**inputs) == inputs["context"][:, -1]).all()


def test_at_high_noise_the_fresh_denoiser_predicts_the_last_frame(fresh, inputs):
    denoise = precondition(fresh.bound(*(inputs[name] for name in ("context", "actions", "levels"))))
    np.testing.assert_allclose(denoise(20 * inputs["x"], jnp.full(2, 20.0)), inputs["context"][:, -1], atol=0.25)


@pytest.mark.parametrize("age", range(4))
def test_every_action_of_the_past_changes_the_prediction(unet, inputs, age):
    first, second = changed(unet, inputs, actions=inputs["actions"].at[0, age].set(0 if age else 2))
    assert first > 1e-3 and second == 0


@pytest.mark.parametrize("age", range(4))
def test_the_order_of_the_context_matters(unet, inputs, age):
    rolled = inputs["context"].at[0, age].set(inputs["context"][0, (age + 1) % 4])
    first, second = changed(unet, inputs, context=rolled)
    assert first > 1e-3 and second == 0
    swapped = inputs["context"][:, jnp.array([1, 0, 2, 3])]
    assert min(changed(unet, inputs, context=swapped)) > 1e-3


def test_the_network_is_told_the_noise_of_the_sample_and_of_each_context_frame(unet, inputs):
    assert changed(unet, inputs, c_noise=jnp.array([0.6, 0.1]))[0] > 1e-3
    for age in range(4):
        assert changed(unet, inputs, levels=inputs["levels"].at[0, age].set(0.5))[0] > 1e-3


def test_position_on_the_screen_matters(unet, inputs):
    """A constant picture is not predicted to be constant away from the border, as a plain convolution would."""
    wide = UNet(CONFIG, (24, 24), 4, 3, rngs=nnx.Rngs(0))
    flat = {**inputs, "x": jnp.ones((2, 24, 24, 4)), "context": jnp.ones((2, 4, 24, 24, 4))}
    stem = wide.stem(jnp.ones((1, 24, 24, 20)))
    inner = wide.position(stem)[0, 8:16, 8:16]
    assert jnp.ptp(stem[0, 8:16, 8:16], axis=(0, 1)).max() < 1e-5 < jnp.ptp(inner, axis=(0, 1)).min()
    assert wide(**flat).shape == (2, 24, 24, 4)


def test_called_with_fewer_items_a_bound_network_takes_the_conditions_of_the_first(unet, inputs):
    bound = unet.bound(*(inputs[name] for name in ("context", "actions", "levels")))
    both = bound(inputs["x"], inputs["c_noise"])
    np.testing.assert_allclose(both, unet(**inputs), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(bound(inputs["x"][:1], inputs["c_noise"][:1]), both[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("conditioning", [CrossAttention(heads=2), CONFIG.conditioning], ids=lambda kind: kind.kind)
@pytest.mark.parametrize("context", [1, 64])
def test_a_past_may_have_1_to_64_frames(context, conditioning):
    config = UNetConfig(context=context, widths=(8, 16), blocks=1, embedding=16, conditioning=conditioning)
    unet = UNet(config, GRID, 4, 3, rngs=nnx.Rngs(0))
    frames = jax.random.normal(jax.random.key(0), (2, context, *GRID, 4))
    out = unet(frames[:, 0], jnp.zeros(2), frames, jnp.zeros((2, context), jnp.int32), jnp.zeros((2, context)))
    assert (out == frames[:, -1]).all()  # fresh


@pytest.mark.parametrize("context", [0, 65])
def test_other_lengths_of_the_past_are_refused(context):
    with pytest.raises(ValueError, match=f"a world sees 1 to 64 past frames, got context {context}"):
        UNetConfig(context=context)
