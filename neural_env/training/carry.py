"""A folder as a row of files small enough to be carried one by one, and back.

The files are a tar archive, cut; `carry.json` comes last and says what they must be.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from neural_env.data.shards import write_whole

PART_BYTES = 16_000_000
_INDEX = "carry.json"


def pack(folder: Path, carry: Path, *, left_out: Sequence[str] = ()) -> None:
    """Writes `folder` into `carry`, but for the paths `left_out` in it, unfinished files and TensorBoard's."""
    carry.mkdir(parents=True, exist_ok=True)
    archive = carry / "whole.tmp"
    with tarfile.open(archive, "w") as tar:
        for path in _files(folder, left_out):
            tar.add(path, path.relative_to(folder).as_posix(), recursive=False)
    parts = []
    (carry / _INDEX).unlink(missing_ok=True)  # the old index is of other parts
    with archive.open("rb") as file:
        for number, content in enumerate(iter(lambda: file.read(PART_BYTES), b"")):
            name = f"carry-{number:03d}"
            write_whole(carry / name, content)
            parts.append({"name": name, "sha256": hashlib.sha256(content).hexdigest()})
    archive.unlink()
    for old in set(carry.glob("carry-*")) - {carry / part["name"] for part in parts}:
        old.unlink()
    write_whole(carry / _INDEX, (json.dumps(parts, indent=1) + "\n").encode())


def unpack(carry: Path, folder: Path) -> None:
    """Brings back what `pack` wrote; nothing, if nothing was carried yet.

    Raises:
        ValueError: a part is missing or isn't what the index says.
    """
    if not (carry / _INDEX).is_file():
        return
    parts = json.loads((carry / _INDEX).read_text())
    for part in parts:
        path = carry / part["name"]
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != part["sha256"]:
            raise ValueError(f"{path} is missing or damaged: carry all files that {carry / _INDEX} names")
    whole = folder / "carried.tmp"
    with whole.open("wb") as file:
        _join([carry / part["name"] for part in parts], file)
    with tarfile.open(whole) as tar:
        tar.extractall(folder, filter="data")
    whole.unlink()


def _join(parts: Sequence[Path], file: BinaryIO) -> None:
    for part in parts:
        file.write(part.read_bytes())


def _files(folder: Path, left_out: Sequence[str]) -> Iterator[Path]:
    out = [folder / path for path in left_out]
    for path in sorted(folder.rglob("*")):
        unwanted = any(path.is_relative_to(other) for other in out) or "tensorboard" in path.parts
        if path.is_file() and not unwanted and not path.name.endswith(".tmp"):
            yield path
