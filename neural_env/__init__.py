"""Neural Doom: Gymnasium environments whose dynamics are a diffusion world model.

Importing registers `NeuralDoom-v0` (the dream), an id for each scenario with a bundled world (`NeuralDoomTakeCover-v0`)
and `RealDoom-v0` (the engine); it imports no JAX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym

from neural_env.bundled import scenarios
from neural_env.version import __version__

if TYPE_CHECKING:
    from neural_env.checkpoint import load as load

__all__ = ["__version__", "load"]

_DREAM = {  # no max_episode_steps: the dream keeps its time itself, see `NeuralDoom`
    "entry_point": "neural_env.envs.neural_doom:NeuralDoom",
    "vector_entry_point": "neural_env.envs.vector:NeuralDoomVector",
}
_IDS: dict[str, dict[str, Any]] = {
    "NeuralDoom-v0": _DREAM,
    # 2100 tics at frame skip 4: the cap of World Models' take_cover score
    "RealDoom-v0": {"entry_point": "neural_env.envs.real_doom:RealDoom", "max_episode_steps": 525},
    **{
        f"NeuralDoom{name.title().replace('_', '')}-v0": {**_DREAM, "kwargs": {"scenario": name}}
        for name in scenarios()
    },
}

for _id, _arguments in _IDS.items():
    if _id not in gym.registry:  # a module reload must not warn
        gym.register(_id, **_arguments)


def __getattr__(name: str) -> Any:
    if name == "load":
        from neural_env.checkpoint import load

        return load
    raise AttributeError(f"module 'neural_env' has no attribute {name!r}")
