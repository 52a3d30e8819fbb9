"""The arguments that the dream's environments share, checked once, without starting JAX."""

from __future__ import annotations

from inspect import Parameter, signature
from typing import Any

from neural_env.game import GameConfig

CONTEXT_NOISE_MAX = 0.7  # the highest level that training shows (`world.conditioning`, not imported: it starts JAX)


def refuse_unknown(kind: type, unknown: dict[str, Any]) -> None:
    """Raises `TypeError`, with the arguments that there are, if any is unknown.

    In Python's own words, which TorchRL's `GymEnv` looks for: it tries every environment with `frameskip` first.
    """
    for name in unknown:
        known = [n for n, p in signature(kind).parameters.items() if p.kind is not Parameter.VAR_KEYWORD]
        raise TypeError(f"{kind.__name__} got an unexpected keyword argument {name!r}; it has {', '.join(known)}")


def read_world(
    scenario: str | None, checkpoint: str | None, num_steps: int, context_noise: float, frame_skip: int | None
) -> tuple[str, GameConfig]:
    """Name or folder of the checkpoint that is meant, and the game that its world dreams.

    Raises:
        CheckpointError: an unusable checkpoint.
        ValueError: an argument out of range, or at odds with the world.
    """
    from neural_env.checkpoint import read_game

    name = str(checkpoint or scenario or "take_cover")
    game = read_game(name)
    if scenario not in (None, game.scenario):
        raise ValueError(f"this world dreams {game.scenario!r}, not {scenario!r}: leave scenario out, or load another")
    if frame_skip not in (None, game.frame_skip):
        raise ValueError(f"this world was trained at frame_skip {game.frame_skip}, not {frame_skip}: leave it out")
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
        raise ValueError(f"num_steps must be an integer of at least 1, got {num_steps!r}")
    if not 0 <= context_noise <= CONTEXT_NOISE_MAX:
        raise ValueError(f"context_noise must be in [0, {CONTEXT_NOISE_MAX}], got {context_noise}")
    return name, game
