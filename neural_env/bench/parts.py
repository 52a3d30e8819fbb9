"""A step of a dream in its parts, each compiled alone: where does the time of `env.step` go?

Together they do what one step does; compiled as one program they take less than their sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from neural_env.envs import core
from neural_env.envs.dials import Dials
from neural_env.world.model import WorldModel


@dataclass(frozen=True)
class Part:
    """Something that can be run again and again."""

    run: Callable[[], Any]  # returns when it is done
    flops: float  # of one run, as XLA counts them before it optimises


def parts_of(world: WorldModel, num_steps: int = 1) -> dict[str, Part]:
    """The parts of one dream's step, on JAX's default device, by name."""
    key = jax.random.key(0)
    context = jax.random.normal(key, (1, world.context, *world.latent_shape))
    actions, latent = jnp.zeros((1, world.context), jnp.int32), context[:, -1]

    def sampler(world: WorldModel, key: Any) -> Any:
        def halved(x: Any, *told: Any) -> Any:
            return x / 2

        return world.objective.sample(halved, key, (1, *world.latent_shape), num_steps, 1.0)

    return {
        "U-Net, once": part(evaluate_network, world, latent, context, actions),
        "sampler without its U-Net": part(sampler, world, key),
        "reward, end, variables": part(WorldModel.foretell, world, context, actions, latent),
        "decoder": part(WorldModel.decode, world, latent),
        "the whole step": _whole(world, context[0], num_steps),
    }


def evaluate_network(world: WorldModel, x: Any, context: Any, actions: Any) -> Any:
    """The U-Net on noised latents `x` [b, h, w, c] after a clean `context` [b, n, h, w, c] and `actions` [b, n]."""
    b = len(x)
    told = [jnp.ones(b)] * (1 + world.objective.tells_step)
    return world.network(context, actions, jnp.zeros(actions.shape))(x, *told)


def network_arguments(world: WorldModel, batch: int) -> tuple[Any, Any, Any]:
    """Shapes of the arguments of `evaluate_network` after the world."""
    shape, n = world.latent_shape, world.context
    shapes: tuple[Any, Any, Any] = jax.eval_shape(
        lambda: (jnp.zeros((batch, *shape)), jnp.zeros((batch, n, *shape)), jnp.zeros((batch, n), jnp.int32))
    )
    return shapes


def further_flops(world: WorldModel, num_steps: int, batch: int = 1) -> float:
    """Operations of all denoising steps but the first, of `batch` dreams: what XLA leaves out of its count of a step.

    It counts the body of a loop once, and the sampler is a loop over the denoising steps.
    """
    if num_steps == 1:
        return 0.0
    lowered = jax.jit(evaluate_network).lower(world, *network_arguments(world, batch))
    return (num_steps - 1) * flops_of(lowered)


def part(function: Callable[..., Any], world: Any, *arguments: Any) -> Part:
    """A function of a world, compiled."""
    lowered = jax.jit(function).lower(world, *arguments)
    bound = core.bind(function, world)
    return Part(lambda: done(bound(*arguments)), flops_of(lowered))


def done(result: Any) -> Any:
    """The result, once it is computed."""
    return jax.block_until_ready(result)  # type: ignore[no-untyped-call]


def flops_of(lowered: Any) -> float:
    """Floating-point operations of a program, as XLA counts them before it optimises; 0 where it doesn't count."""
    cost = lowered.cost_analysis() or {}
    return float(cost.get("flops", 0.0))


def _whole(world: WorldModel, context: Any, num_steps: int) -> Part:
    """As `envs.dream.Dream` compiles it: the carry is overwritten by the next."""
    state = core.DreamState(context, jnp.zeros(world.context - 1, jnp.int32))
    carry, action, dials = core.carry_from(jax.random.key(0), state), np.int32(0), Dials(num_steps=num_steps).on_host()
    lowered = jax.jit(core.advance).lower(world, carry, action, dials)
    advance = core.bind(core.advance, world, donate_argnums=1)
    held = [carry]

    def run() -> None:
        after = done(advance(held[0], action, dials))
        held[0] = after.state

    return Part(run, flops_of(lowered) + further_flops(world, num_steps))
