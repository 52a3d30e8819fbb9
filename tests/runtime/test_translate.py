"""Each kind of operation that a world is made of, against JAX itself."""

import numpy as np
import pytest

pytest.importorskip("openvino")

import jax
import jax.numpy as jnp
import openvino as ov
from flax import nnx

from neural_env.runtime import Untranslatable
from neural_env.runtime.translate import split

RNG = np.random.default_rng(0)
PICTURE = RNG.standard_normal((2, 5, 7, 6), np.float32)
KERNEL = RNG.standard_normal((3, 3, 6, 8), np.float32)
TABLE = RNG.standard_normal((4, 6), np.float32)
ROWS = RNG.standard_normal((5, 6, 9), np.float32)


def run(function, drawn, given):
    """The function's results, by its two programs."""
    found = split(function, drawn, given)
    draws = jax.jit(found.draws)(*jax.tree.leaves(drawn))
    leaves = jax.tree.leaves(given)
    request = ov.Core().compile_model(found.model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    inputs = [*draws[: found.noise], *(leaves[i] for i in found.inputs)]
    outputs = list(request.infer([np.asarray(value).reshape(np.shape(value) or (1,)) for value in inputs]).values())
    picked = [outputs[place] if place >= 0 else draws[-1 - place] for place in found.results]
    return [np.asarray(value).reshape(shape) for value, shape in zip(picked, found.shapes, strict=True)]


def convolve(x, stride=1, kernel=KERNEL, padding="SAME"):
    return jax.lax.conv_general_dilated(
        x, jnp.asarray(kernel), (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def norm(features, **options):
    module = nnx.RMSNorm(features, rngs=nnx.Rngs(0), **options)
    if module.scale is not None:
        module.scale[...] = jnp.linspace(0.5, 2.0, features)
    return module


NORM, NORM_OF_CONVOLUTION, BARE_NORM = norm(6), norm(8), norm(6, use_scale=False)


def loop(x):
    return jax.lax.scan(lambda x, rate: (jnp.tanh(rate * x), None), x, jnp.array([0.5, 0.9, 1.1]))[0]


FUNCTIONS = {
    "convolution": convolve,
    "convolution by twos": lambda x: convolve(x, stride=2),
    "convolution without a border": lambda x: convolve(x, padding="VALID"),
    "two convolutions": lambda x: convolve(jax.nn.silu(convolve(x)), kernel=KERNEL.swapaxes(2, 3)),
    "convolution plus a picture": lambda x: convolve(x, kernel=KERNEL[..., :6]) + x,
    "rms norm": NORM,
    "rms norm without a scale": BARE_NORM,
    "rms norm between convolutions": lambda x: NORM_OF_CONVOLUTION(convolve(x)),
    "mean square of itself": lambda x: jnp.mean(jnp.square(x), axis=-1),
    "a scale for every item": lambda x: convolve(x) * (1 + x[:, 0, 0, :1])[:, None, None] + 0.5,
    "doubled": lambda x: x.repeat(2, axis=1).repeat(2, axis=2)[:, :9],
    "doubled after a convolution": lambda x: convolve(x).repeat(2, axis=1).repeat(2, axis=2)[:, :9, :13],
    "concatenated": lambda x: jnp.concatenate([convolve(x), x], axis=-1),
    "split": lambda x: jnp.split(convolve(x), 2, axis=-1)[1],
    "flattened": lambda x: convolve(x).reshape(2, -1),
    "linear": lambda x: convolve(x)[:, 0, 0] @ TABLE[:, :3].repeat(2, 0),
    "a matrix for every row": lambda x: jnp.einsum("bhwc,hcp->bhwp", x, ROWS),
    "a matrix for every row of a convolution": lambda x: jnp.einsum("bhwc,hcp->bhwp", convolve(x)[..., :6], ROWS),
    "stacked in channels": lambda x: jnp.concatenate(jnp.moveaxis(x, 1, 0), axis=-1),
    "rows of a table": lambda x: jnp.asarray(TABLE)[(x[:, 0, 0, 0] > 0).astype(jnp.int32)],
    "one of many": lambda x: jax.nn.one_hot((x[:, 0, 0, 0] > 0).astype(jnp.int32), 3),
    "symexp": lambda x: jnp.sign(x) * jnp.expm1(jnp.abs(x)),
    "symlog": lambda x: jnp.sign(x) * jnp.log1p(jnp.abs(x)),
    "frames": lambda x: jnp.clip(jnp.round((x + 1.0) * 127.5), 0, 255).astype(jnp.uint8),
    "a scalar": lambda x: jax.nn.sigmoid(x[0, 0, 0, 0]) < 0.5,
    "a choice": lambda x: jnp.where(x > 0, x, convolve(x, kernel=KERNEL[..., :6])),
    "a loop": loop,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_graph_computes_what_jax_computes(name):
    function = FUNCTIONS[name]
    (found,) = run(lambda _, x: function(x), (), PICTURE)
    expected = np.asarray(function(PICTURE))
    assert found.shape == expected.shape and found.dtype == expected.dtype
    np.testing.assert_allclose(np.float64(found), np.float64(expected), rtol=2e-5, atol=2e-5)


def test_randomness_is_jaxs_own():
    def noisy(drawn, x):
        key, level = drawn
        key, key_noise = jax.random.split(jax.random.wrap_key_data(key))
        return jax.random.key_data(key), convolve(x + level * jax.random.normal(key_noise, x.shape))

    drawn = np.array([0, 7], np.uint32), np.float32(0.3)
    key, noised = run(noisy, drawn, PICTURE)
    expected_key, expected = noisy(drawn, PICTURE)
    np.testing.assert_array_equal(key, expected_key)
    np.testing.assert_allclose(noised, expected, rtol=2e-5, atol=2e-5)


def test_a_result_that_is_reshaped_and_read_on_stays_whole():
    """OpenVINO itself gets this wrong."""
    second = KERNEL.swapaxes(2, 3)

    def function(_, x):
        latent = convolve(jnp.tanh(convolve(x[:1])), kernel=second) + 0.5 * x[:1]
        return convolve(jax.nn.silu(convolve(latent)), kernel=second), latent[0]

    for found, expected in zip(run(function, (), PICTURE), function((), PICTURE), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_noise_of_level_zero_is_not_drawn():
    def quiet(key, x):
        return x + 0.0 * jax.random.normal(jax.random.wrap_key_data(key), x.shape)

    assert split(quiet, np.array([0, 7], np.uint32), PICTURE).noise == 0


def test_what_every_round_of_a_loop_has_in_common_is_in_the_graph_once():
    def steps(count):
        def function(_, x):
            def one(carry, rate):
                return rate * carry + convolve(x), None

            return jax.lax.scan(one, jnp.zeros((2, 5, 7, 8)), jnp.linspace(0.1, 0.9, count))[0]

        operations = split(function, (), PICTURE).model.get_ops()
        return sum(operation.get_type_name() == "Convolution" for operation in operations)

    assert steps(1) == steps(4) == 1


def test_a_norm_is_one_operation():
    operations = [op.get_type_name() for op in split(lambda _, x: NORM(x), (), PICTURE).model.get_ops()]
    assert operations.count("NormalizeL2") == 1 and "ReduceSum" not in operations


def test_an_operation_without_a_translation_is_named():
    with pytest.raises(Untranslatable, match="'sort'"):
        split(lambda _, x: jnp.sort(x), (), PICTURE)
