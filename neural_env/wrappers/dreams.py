"""What a wrapper may expect of the environment that it is put around."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from neural_env.envs.neural_doom import NeuralDoom


def dream_of(env: gym.Env[Any, Any], wrapper: str) -> NeuralDoom:
    """The dream inside `env`; raises `TypeError` if there is none."""
    if not isinstance(env.unwrapped, NeuralDoom):
        raise TypeError(f"{wrapper} wraps a NeuralDoom, got {type(env.unwrapped).__name__}: wrap the dream itself")
    return env.unwrapped


def require_own_actions(env: gym.Env[Any, Any], wrapper: str) -> None:
    """Raises `ValueError` if actions are still translated on their way from `wrapper` to the dream."""
    layer = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, gym.ActionWrapper):
            raise ValueError(
                f"{wrapper} needs the dream's own actions: put {type(layer).__name__} around it, not inside"
            )
        layer = layer.env
