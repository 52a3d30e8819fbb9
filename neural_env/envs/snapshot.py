"""A moment of a dream, kept: in memory, in a file, as the root of branches.

A snapshot holds copies on the host, so that no later step can change it, and says which game it is of, so that no other
game's world goes on from it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from neural_env.game import GameConfig

FORMAT = "neural_env.snapshot/1"
_ARRAYS = ("context", "actions", "key", "frame", "variables")


class SnapshotError(ValueError):
    """A snapshot can't be used; the message says why."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All that an episode needs to go on; the arrays are read-only copies.

    Raises:
        SnapshotError: arrays of other shapes or types than `game` and each other allow.
    """

    game: GameConfig
    context: npt.NDArray[np.float32]  # [n, h, w, c] latents, oldest first; the last is the present frame's
    actions: npt.NDArray[np.int32]  # [n - 1] the actions between them
    key: npt.NDArray[np.uint32]  # [k] the randomness of what follows (`jax.random.key_data`)
    frame: npt.NDArray[np.uint8]  # [H, W, 3] the present screen
    variables: npt.NDArray[np.float32]  # [v] the present game variables
    elapsed_steps: int = 0  # steps of the episode so far
    ended: bool = False  # whether the step that led here was the episode's last

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            array = np.array(getattr(self, name))  # a copy: the caller's array may live on
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        _check(self)

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file, at once or not at all."""
        path = Path(path)
        about = {"game": asdict(self.game), "elapsed_steps": self.elapsed_steps, "ended": self.ended}
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            arrays = {name: getattr(self, name) for name in _ARRAYS}
            save_file(arrays, temporary, metadata={"format": FORMAT, "about": json.dumps(about)})
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Snapshot:
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            SnapshotError: a damaged file, or one of another kind or version.
        """
        try:
            about, arrays = _read(Path(path))
            return cls(_game(about["game"]), **arrays, elapsed_steps=about["elapsed_steps"], ended=about["ended"])
        except FileNotFoundError:
            raise
        except (SafetensorError, ValueError, TypeError, KeyError, OSError) as error:
            raise SnapshotError(f"{path} is no usable snapshot ({error}): save a new one") from error

    def require(self, game: GameConfig, context_shape: tuple[int, ...]) -> Snapshot:
        """The snapshot itself, if it is of this game and its latents of this shape.

        Raises:
            SnapshotError: it is of another game, or of a world of another shape.
        """
        theirs = {**asdict(self.game), "context shape": self.context.shape}
        ours = {**asdict(game), "context shape": context_shape}
        for name, value in ours.items():
            if theirs[name] != value:
                raise SnapshotError(
                    f"the snapshot's {name} is {theirs[name]}, this world's is {value}: use the world it was taken in"
                )
        return self


def _read(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise SnapshotError(f"its format is {metadata.get('format')!r}, this version reads {FORMAT!r}")
        about: dict[str, Any] = json.loads(metadata["about"])
        return about, {name: file.get_tensor(name) for name in _ARRAYS}


def _game(values: dict[str, Any]) -> GameConfig:
    known = {field.name: values[field.name] for field in fields(GameConfig)}
    tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}  # JSON has lists
    return GameConfig(**tuples)


def _check(snapshot: Snapshot) -> None:
    game, n = snapshot.game, len(snapshot.context)
    expected: dict[str, tuple[str, tuple[int | None, ...]]] = {  # None: any length
        "context": ("float32", (n, None, None, None)),
        "actions": ("int32", (n - 1,)),
        "key": ("uint32", (None,)),
        "frame": ("uint8", (*game.resolution, 3)),
        "variables": ("float32", (len(game.variable_names),)),
    }
    for name, (dtype, shape) in expected.items():
        array = getattr(snapshot, name)
        if array.dtype != dtype or not _fits(array.shape, shape):
            raise SnapshotError(f"{name} must be {dtype} {list(shape)}, it is {array.dtype} {list(array.shape)}")
    if not ((snapshot.actions >= 0) & (snapshot.actions < len(game.action_names))).all():
        raise SnapshotError(f"actions must be in 0..{len(game.action_names) - 1}, got {snapshot.actions.tolist()}")
    if not isinstance(snapshot.elapsed_steps, int) or snapshot.elapsed_steps < 0:
        raise SnapshotError(f"elapsed_steps must be an integer of at least 0, got {snapshot.elapsed_steps!r}")


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(b in (None, a) for a, b in zip(shape, expected, strict=True))
