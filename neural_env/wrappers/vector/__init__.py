"""The same wrappers for vector environments, by the same names, as in `gymnasium.wrappers.vector`."""

from neural_env.wrappers.vector.action_mapping import ActionMapping
from neural_env.wrappers.vector.disagreement import Disagreement
from neural_env.wrappers.vector.noise_augmented_context import NoiseAugmentedContext
from neural_env.wrappers.vector.real_starts import RealStarts
from neural_env.wrappers.vector.shadow_mode import ShadowMode

__all__ = ["ActionMapping", "Disagreement", "NoiseAugmentedContext", "RealStarts", "ShadowMode"]
