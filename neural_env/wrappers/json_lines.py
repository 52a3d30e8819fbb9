"""A log of JSON lines: each is appended by one write, so that a reader, or a second writer, never sees half of one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class JsonLines:
    """A file that grows by a line a record; opened at the first, closed by `close`, opened again if need be."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: int | None = None

    def write(self, **record: Any) -> None:
        """Append a record of plain values."""
        line = json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n"
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(self._file, line.encode())

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
