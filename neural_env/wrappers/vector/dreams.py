"""What a vector wrapper may expect of the environments that it is put around."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np

from neural_env.envs.neural_doom import NeuralDoom
from neural_env.envs.vector import NeuralDoomVector


def dreams_of(env: gym.vector.VectorEnv[Any, Any, Any], wrapper: str) -> NeuralDoomVector:
    """The dreams inside `env`; raises `TypeError` if there are none."""
    if not isinstance(env.unwrapped, NeuralDoomVector):
        raise TypeError(
            f"{wrapper} wraps a NeuralDoomVector, got {type(env.unwrapped).__name__}: make one by "
            'gym.make_vec("NeuralDoom-v0", num_envs=N), or wrap each environment in the single form'
        )
    return env.unwrapped


def require_own_actions(env: gym.vector.VectorEnv[Any, Any, Any], wrapper: str) -> None:
    """Raises `ValueError` if actions are still translated on their way from `wrapper` to the dreams."""
    layer = env
    while isinstance(layer, gym.vector.VectorWrapper):
        if isinstance(layer, gym.vector.VectorActionWrapper):
            raise ValueError(
                f"{wrapper} needs the dreams' own actions: put {type(layer).__name__} around it, not inside"
            )
        layer = layer.env


def single_of(dreams: NeuralDoomVector) -> NeuralDoom:
    """A single environment of the same world, to branch with."""
    return NeuralDoom(
        checkpoint=dreams.world.checkpoint,
        num_steps=dreams.num_steps,
        termination=dreams.termination,
        device=dreams.device,
        runtime=dreams.runtime,
    )


def set_dials(single: NeuralDoom, dreams: NeuralDoomVector, row: int) -> None:
    """Turn the dials of a single environment to those of one of the dreams."""
    single.guidance = dreams.guidance
    for name in ("context_noise", "temperature"):
        setattr(single, name, float(np.broadcast_to(getattr(dreams, name), dreams.num_envs)[row]))


def set_contexts(dreams: NeuralDoomVector, contexts: Mapping[int, dict[str, Any]]) -> None:
    """Replace the pasts of these dreams by real frames; their episodes, luck and clocks go on."""
    if not contexts:
        return
    batch, states = dreams._loaded_batch(), dreams.get_state()
    scenes = {i: batch.dream.encode(context["context"], context["actions"]) for i, context in contexts.items()}
    batch.place({i: replace(states[i], **scene._asdict()) for i, scene in scenes.items()})
