"""WAD files: what maps and colours one has, read from its directory. An IWAD is a whole game, a PWAD adds to one."""

from __future__ import annotations

import re
import struct
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np

_HEADER = struct.Struct("<4sii")  # magic, number of lumps, offset of the directory
_ENTRY = struct.Struct("<ii8s")  # offset, size, name
_MAP_STARTS = ("THINGS", "TEXTMAP")  # a map's marker is followed by one of these
_PALETTE_BYTES = 3 * 256
_KINDS = {b"IWAD": True, b"PWAD": False}

BUNDLED = ("freedoom1", "freedoom2")
"""The games that come with ViZDoom, by name."""


def bundled(name: str) -> Path:
    """The WAD of a game in `BUNDLED`; ViZDoom isn't imported for it."""
    spec = find_spec("vizdoom")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / f"{name}.wad"


def is_game(path: Path) -> bool:
    """Whether it is an IWAD; raises `ValueError` if it is missing or no WAD."""
    return _read(path)[0]


def maps_of(path: Path) -> tuple[str, ...]:
    """The names of its maps, in order; raises `ValueError` if it is missing or no WAD."""
    names = [name for _, _, name in _read(path)[1]]
    return tuple(name for name, after in pairwise(names) if after in _MAP_STARTS)


def checked_map(path: Path, name: str) -> str:
    """The map's name, in capitals; raises `ValueError` with the maps there are."""
    maps = maps_of(path)
    if name.upper() not in maps:
        raise ValueError(f"{path} has no map {name!r}; choose one of {', '.join(maps) or 'none: it has no maps'}")
    return name.upper()


def palette_of(path: Path) -> np.ndarray | None:
    """The colours that the game draws with, uint8 [256, 3], read-only: its PLAYPAL; None if it has none of its own.

    Raises `ValueError` if the file is missing or no WAD.
    """
    for offset, size, name in reversed(_read(path)[1]):
        if name == "PLAYPAL" and size >= _PALETTE_BYTES:
            with path.open("rb") as file:
                file.seek(offset)
                return np.frombuffer(file.read(_PALETTE_BYTES), np.uint8).reshape(256, 3)
    return None


def game_for(map_name: str) -> Path:
    """The bundled game that an added map of that name belongs to: ExMy to the first, MAPxx to the second."""
    return bundled("freedoom1" if re.fullmatch(r"E\dM\d", map_name) else "freedoom2")


def _read(path: Path) -> tuple[bool, list[tuple[int, int, str]]]:
    """Whether it is an IWAD, and offset, size and name of each of its lumps."""
    if not path.is_file():
        raise ValueError(f"there is no WAD {path}: give the file's path, or one of {', '.join(BUNDLED)}")
    try:
        with path.open("rb") as file:
            magic, count, offset = _HEADER.unpack(file.read(_HEADER.size))
            file.seek(offset)
            entries = _ENTRY.iter_unpack(file.read(count * _ENTRY.size))
            return _KINDS[magic], [(at, size, name.split(b"\0")[0].decode("ascii")) for at, size, name in entries]
    except (struct.error, KeyError, OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path} is no WAD ({type(error).__name__}: {error}): give one, or copy it again") from error
