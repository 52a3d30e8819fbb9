"""Which worlds ship with the package; read without JAX, so that importing can register their ids."""

from __future__ import annotations

import json
from pathlib import Path

BUNDLED = Path(__file__).parent / "checkpoints"
CONFIG = "config.json"


def scenarios() -> dict[str, str]:
    """The scenarios that have a bundled world, and its name.

    Of several worlds of one scenario it is the one called like the scenario, else the first by name.
    """
    worlds: dict[str, str] = {}
    for path in sorted(BUNDLED.glob(f"*/{CONFIG}")):
        scenario, name = json.loads(path.read_text())["game"]["scenario"], path.parent.name
        if scenario not in worlds or name == scenario:
            worlds[scenario] = name
    return worlds
