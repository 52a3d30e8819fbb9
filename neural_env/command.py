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
        settings: by name, as dataclasses have them.
        usual: defaults; what is as usual is left out. None: what is None or an empty text is.
        left_out: settings that change nothing of what comes of it.

    Raises:
        TypeError: a setting is a dictionary.
    """
    words = [verb]
    for name, value in settings.items():
        as_usual = name in usual and value == usual[name] if usual is not None else value in (None, "")
        if not as_usual and name not in left_out:
            words += _option(name.replace("_", "-"), value)
    return " ".join(words)


def _option(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    values = value if isinstance(value, tuple) else (value,)
    if nested := [one for one in values if isinstance(one, dict)]:
        raise TypeError(f"{name} holds settings of its own, {nested[0]}: give them by their names")
    return [f"--{name}", *(shlex.quote(str(one)) for one in values)]
