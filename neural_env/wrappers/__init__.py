"""Wrappers around dreams, one behaviour a file; `neural_env.wrappers.vector` holds those for vector environments."""

from neural_env.wrappers.action_mapping import ActionMapping
from neural_env.wrappers.disagreement import Disagreement
from neural_env.wrappers.gamengen_reward import GameNGenReward
from neural_env.wrappers.noise_augmented_context import NoiseAugmentedContext
from neural_env.wrappers.real_starts import RealStarts
from neural_env.wrappers.shadow_mode import ShadowMode

__all__ = ["ActionMapping", "Disagreement", "GameNGenReward", "NoiseAugmentedContext", "RealStarts", "ShadowMode"]
