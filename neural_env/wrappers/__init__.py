"""Wrappers around dreams, one behaviour a file."""

from neural_env.wrappers.gamengen_reward import GameNGenReward
from neural_env.wrappers.shadow_mode import ShadowMode

__all__ = ["GameNGenReward", "ShadowMode"]
