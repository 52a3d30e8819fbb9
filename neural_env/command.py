"""The command line that does the same again: what reports, datasets and checkpoints say of their making."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from typing import Any


def command_line(
    verb: str, settings: Mapping[str, Any], *, usual: Mapping[str, Any] | None = None, left_out: Collection[str] = ()
) -> str:
    """`verb --setting value ...`, quoted for a shell.

    Args:
        verb: the program and what it is to do.
        settings: by name, as dataclasses have them; None and empty texts say nothing.
        usual: defaults; what is as usual is left out.
        left_out: settings that change nothing of what comes of it.
    """
    words = [verb]
    for name, value in settings.items():
        said = value is not None and value != "" and name not in left_out
        if said and (usual is None or name not in usual or value != usual[name]):
            words.append(_option(name.replace("_", "-"), value))
    return " ".join(words)


def _option(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {shlex.join(map(str, value if isinstance(value, tuple) else (value,)))}"
