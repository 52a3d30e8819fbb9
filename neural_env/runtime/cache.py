"""Compiled programs in the user's cache folder: one file each, named by what went into it, checked when read.

The folder is `$NEURAL_ENV_CACHE`, or `neural_env` in `$XDG_CACHE_HOME`, or in `~/.cache`. It may be deleted any time. A
file that is damaged, or that can't be written, costs a compilation and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_MAGIC = b"neural_env.programs/1\n"


def folder() -> Path:
    """Where compiled programs are kept; need not exist."""
    if named := os.environ.get("NEURAL_ENV_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neural_env"


def keep_xlas_programs() -> None:
    """Lets XLA keep what it compiles in the same folder, unless the user has named another one."""
    import jax

    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is None:
        settings.update("jax_compilation_cache_dir", str(folder() / "xla"))
        settings.update("jax_persistent_cache_min_compile_time_secs", 0.05)


def read(name: str) -> list[bytes] | None:
    """The parts of an entry; None if there is none, or none that is whole."""
    try:
        content = (folder() / name).read_bytes()
        head, sizes, rest = content.split(b"\n", 2)
        digest, *lengths = json.loads(sizes)
    except (OSError, ValueError):
        return None
    if head + b"\n" != _MAGIC or hashlib.sha256(rest).hexdigest() != digest or sum(lengths) != len(rest):
        return None
    parts, start = [], 0
    for length in lengths:
        parts.append(rest[start : start + length])
        start += length
    return parts


def write(name: str, parts: Sequence[bytes]) -> None:
    """Keeps an entry, whole or not at all; a folder that can't be written to is no error."""
    rest = b"".join(parts)
    head = json.dumps([hashlib.sha256(rest).hexdigest(), *map(len, parts)]).encode()
    temporary = folder() / f"{name}.{os.getpid()}.tmp"
    with contextlib.suppress(OSError):
        temporary.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(_MAGIC + head + b"\n" + rest)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(temporary.with_name(name))
        return
    with contextlib.suppress(OSError):
        temporary.unlink()
