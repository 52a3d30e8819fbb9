"""A line on stderr when the user has to wait."""

from __future__ import annotations

import sys
import threading
from types import TracebackType


class Note:
    """Says what is being done, and that it happens once, if it takes longer than two seconds."""

    def __init__(self, what: str, after_s: float = 2.0):
        self._timer = threading.Timer(after_s, self._say, (what,))
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    @staticmethod
    def _say(what: str) -> None:
        print(f"neural_env: {what}; kept for the next start", file=sys.stderr, flush=True)
