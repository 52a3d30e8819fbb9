"""Where XLA spends the time of one step: every convolution and matrix product, and all the rest.

    python benchmarks/layers.py --checkpoint take_cover         # Markdown; a minute

The step's program is read equation by equation; each kind of product, with its shapes, is compiled alone and timed in
turn with the others. What remains of the whole step multiplies nothing: norms, activations, sums, concatenations, the
sampler. `of the product` is the share of a large float32 matrix product's rate in the same run, which a convolution can
at best come near to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from neural_env import checkpoint
from neural_env.bench.clock import in_turn, matmul_peaks
from neural_env.bench.parts import done, flops_of, parts_of
from neural_env.bench.table import Table
from neural_env.envs import core
from neural_env.world.model import WorldModel

PRODUCTS = {"conv_general_dilated": "convolution", "dot_general": "matrix product"}


@dataclass(frozen=True)
class LayersConfig:
    """Profile one step of one dream."""

    checkpoint: str = "take_cover"  # bundled world, or a checkpoint folder
    seconds: float = 0.3  # that each product is measured for
    top: int = 15  # products listed by themselves


@dataclass(frozen=True)
class Layer:
    """All products of one kind and shape in a step."""

    what: str
    calls: int
    seconds: float
    flops: float


def main(config: LayersConfig) -> list[Layer]:
    """Prints the table; returns all products, the dearest first."""
    world = checkpoint.load(config.checkpoint).world
    peak = matmul_peaks(1.0)["float32"]
    whole = in_turn({"": parts_of(world)["the whole step"].run}, 5 * config.seconds)[""]
    layers = profile(world, config.seconds)
    known, flops = sum(layer.seconds for layer in layers), sum(layer.flops for layer in layers)
    others = layers[config.top :]
    rest = Layer(
        "other products",
        sum(layer.calls for layer in others),
        sum(layer.seconds for layer in others),
        sum(layer.flops for layer in others),
    )
    calls = sum(layer.calls for layer in layers)
    listed = [
        *(*layers[: config.top], rest),
        Layer("all products", calls, known, flops),
        Layer("what multiplies nothing", 0, max(whole - known, 0.0), 0.0),
        Layer("the whole step, one program", 1, whole, flops),
    ]
    print(f"float32 matrix product: {peak / 1e9:.0f} GFLOP/s\n")
    columns = ("what", "calls", "ms", "of the step", "GFLOP", "of the product")
    print(Table("", columns, tuple(_cells(layer, whole, peak) for layer in listed)).markdown())
    return layers


def profile(world: WorldModel, seconds: float) -> list[Layer]:
    """The products of a step, each measured alone; the dearest first."""
    state = core.DreamState(jnp.zeros((world.context, *world.latent_shape)), jnp.zeros(world.context - 1, jnp.int32))
    program = jax.make_jaxpr(core.advance)(world, core.carry_from(jax.random.key(0), state), jnp.int32(0))
    found: dict[str, Any] = {}
    counted: Counter[str] = Counter()
    for equation in equations(program.jaxpr):
        if equation.primitive.name in PRODUCTS:
            name = _title(equation)
            found[name] = equation
            counted[name] += 1
    calls, flops = {}, {}
    for name, equation in found.items():
        arguments = [jnp.ones(variable.aval.shape, variable.aval.dtype) for variable in equation.invars]
        alone = jax.jit(lambda *args, equation=equation: equation.primitive.bind(*args, **equation.params))
        flops[name] = flops_of(alone.lower(*arguments))
        calls[name] = lambda alone=alone, arguments=arguments: done(alone(*arguments))
    layers = [
        Layer(name, counted[name], counted[name] * alone, counted[name] * flops[name])
        for name, alone in in_turn(calls, seconds).items()
    ]
    return sorted(layers, key=lambda layer: -layer.seconds)


def equations(program: Any) -> Iterator[Any]:
    """All of a program, those of the programs within included."""
    for equation in program.eqns:
        within = list(jax.core.jaxprs_in_params(equation.params))
        for inner in within:
            yield from equations(inner)
        if not within:
            yield equation


def _title(equation: Any) -> str:
    """For example `convolution 1x15x20x96 by 3x3x96x96`, and the stride where there is one."""
    sizes = " by ".join("x".join(map(str, variable.aval.shape)) for variable in equation.invars)
    strides = set(equation.params.get("window_strides", (1,))) - {1}
    return f"{PRODUCTS[equation.primitive.name]} {sizes}" + "".join(f", stride {stride}" for stride in strides)


def _cells(layer: Layer, whole: float, peak: float) -> tuple[str, ...]:
    share = f"{layer.flops / layer.seconds / peak:.0%}" if layer.flops and layer.seconds else ""
    numbers = f"{1e3 * layer.seconds:.2f}", f"{layer.seconds / whole:.0%}", f"{layer.flops / 1e9:.3f}", share
    return (layer.what, str(layer.calls or ""), *numbers)


if __name__ == "__main__":
    main(tyro.cli(LayersConfig))
