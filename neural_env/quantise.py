"""`neural-env quantise`: a world that takes three fifths of the room, to ship or to send."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from neural_env import checkpoint as checkpoints


@dataclass(frozen=True, kw_only=True)
class QuantiseConfig:
    """Keep a world's denoiser and decoder in 8 bits."""

    checkpoint: str  # bundled world, a checkpoint folder, or hf://owner/name
    out: Path  # checkpoint folder to write


def quantise(config: QuantiseConfig) -> None:
    """Writes the world anew, with kernels in 8 bits and without scores: those were of other weights.

    What it costs is measured by ``neural-env evaluate compare``, new scores by ``neural-env evaluate world --write``.

    Raises:
        CheckpointError: an unusable world.
    """
    world = checkpoints.load(config.checkpoint)
    origin = {"quantised_from": checkpoints.fingerprint(config.checkpoint).hex()}
    before = _size(checkpoints.resolve(config.checkpoint))
    checkpoints.save(replace(world, provenance=world.provenance | origin, scores={}), config.out, kept_in="int8")
    said = f"{config.out}: {_size(config.out) / 1e6:.1f} MB instead of {before / 1e6:.1f}"
    Console().print(f"{said}; next: neural-env evaluate world --checkpoint {config.out} --write", soft_wrap=True)


def _size(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in checkpoints.FILES)
