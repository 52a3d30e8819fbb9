"""`neural-env quantise`: a world that takes less room, to ship or to send."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from neural_env import checkpoint as checkpoints


@dataclass(frozen=True, kw_only=True)
class QuantiseConfig:
    """Keep the kernels of a world's denoiser and decoder in 8 bits."""

    checkpoint: str  # bundled world, a checkpoint folder, or hf://owner/name
    out: Path  # checkpoint folder to write


def quantise(config: QuantiseConfig) -> None:
    """Writes the world anew, without scores: those were of other weights.

    What it costs is measured by ``neural-env evaluate compare``, new scores by ``neural-env evaluate world --write``.

    Raises:
        CheckpointError: an unusable world.
        ImportError: the Hub is asked for and huggingface_hub isn't installed.
        ValueError: the folder is the world's own, or its weights aren't finite.
    """
    world, folder = checkpoints.load(config.checkpoint), checkpoints.resolve(config.checkpoint)
    if config.out.resolve() == folder.resolve():
        raise ValueError(f"{config.out} is the world itself, whose finer weights would be lost: choose another folder")
    checkpoints.save(replace(world, scores={}, form="int8"), config.out)
    sizes = f"{_size(config.out):.1f} MB instead of {_size(folder):.1f}"
    following = f"neural-env evaluate world --checkpoint {config.out} --write"
    Console().print(f"{config.out}: {sizes}; next: {following}", soft_wrap=True)


def _size(folder: Path) -> float:
    """In MB."""
    return sum((folder / name).stat().st_size for name in checkpoints.FILES) / 1e6
