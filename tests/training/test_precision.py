import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env.training.loop import LoopConfig, train
from neural_env.training.precision import computing_in
from neural_env.world.parameters import all_arrays, parameters, replaced


@pytest.fixture(scope="module")
def inputs(tiny_world):
    keys = jax.random.split(jax.random.key(0))
    context = jax.random.normal(keys[0], (2, tiny_world.context, *tiny_world.latent_shape))
    return (
        context,
        jnp.ones((2, tiny_world.context), jnp.int32),
        jax.random.normal(keys[1], context.shape[:1] + context.shape[2:]),
    )


@pytest.fixture(scope="module")
def model(tiny_world, perturbed):
    return perturbed(tiny_world.outcome)


def hazard(model, inputs):
    return model(*inputs).termination_logit.sum()


def test_convolutions_and_dense_layers_compute_in_bfloat16_with_nearly_the_same_result(model, inputs):
    convolutions = []
    for precision in ("float32", "bfloat16"):
        program = jax.jit(hazard).lower(computing_in(model, precision), inputs).as_text()
        lines = [line for line in program.splitlines() if "stablehlo.convolution" in line]
        convolutions.append(["bf16" in line for line in lines])
    assert convolutions[0] and not any(convolutions[0]) and all(convolutions[1])
    exact, rough = (hazard(computing_in(model, precision), inputs) for precision in ("float32", "bfloat16"))
    assert exact != rough and abs(exact - rough) < 0.02 * abs(exact)


def test_weights_and_gradients_stay_in_float32(model, inputs):

    def loss(params):
        return hazard(computing_in(replaced(model, params), "bfloat16"), inputs)

    gradient = jax.grad(loss)(parameters(model))
    assert all(array.dtype == jnp.float32 for array in gradient.values())
    assert all(array.dtype == jnp.float32 for array in all_arrays(computing_in(model, "bfloat16")).values())


def test_a_cpu_computes_in_float32_unless_told_otherwise(tiny_world):
    assert computing_in(tiny_world.outcome, "auto") is tiny_world.outcome
    assert computing_in(tiny_world.outcome, "bfloat16") is not tiny_world.outcome


class Bowl:
    """The outcome model's log-odds are to be 0."""

    name = "bowl"

    def __init__(self, inputs):
        self.inputs = inputs

    def loss(self, module, batch, key):
        return jnp.square(module(*self.inputs).termination_logit).mean() + 0 * batch["rows"].sum(), {}

    def batch(self, step, size):
        return {"rows": np.zeros(size, np.float32)}

    def validate(self, module):
        return {}


def test_a_module_trained_in_bfloat16_comes_back_as_precise_as_it_went_in(tiny_world, inputs, tmp_path):
    config = LoopConfig(steps=3, batch=2, warmup=1, precision="bfloat16")
    module, state = train(Bowl(inputs), tiny_world.outcome, config, tmp_path)
    assert all(array.dtype == jnp.float32 for array in state.params.values())
    assert module.hazard.out.dtype == tiny_world.outcome.hazard.out.dtype != jnp.bfloat16
