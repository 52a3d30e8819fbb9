"""Neural Doom: Gymnasium environments whose dynamics are a diffusion world model.

Importing registers `NeuralDoom-v0` (the dream) and `RealDoom-v0` (the engine); it imports no JAX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym

from neural_env.version import __version__

if TYPE_CHECKING:
    from neural_env.checkpoint import load as load

__all__ = ["__version__", "load"]

_MAX_STEPS = 525  # 2100 tics at frame skip 4: the cap of World Models' take_cover score

for _name, _entry, _vector_entry in (
    ("NeuralDoom-v0", "neural_env.envs.neural_doom:NeuralDoom", "neural_env.envs.vector:NeuralDoomVector"),
    ("RealDoom-v0", "neural_env.envs.real_doom:RealDoom", None),
):
    if _name not in gym.registry:  # a module reload must not warn
        gym.register(_name, entry_point=_entry, vector_entry_point=_vector_entry, max_episode_steps=_MAX_STEPS)


def __getattr__(name: str) -> Any:
    if name == "load":
        from neural_env.checkpoint import load

        return load
    raise AttributeError(f"module 'neural_env' has no attribute {name!r}")
