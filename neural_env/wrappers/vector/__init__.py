"""The same wrappers for vector environments, by the same names, as in `gymnasium.wrappers.vector`."""

from neural_env.wrappers.vector.action_mapping import ActionMapping

__all__ = ["ActionMapping"]
