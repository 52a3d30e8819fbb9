"""How a compiled step runs: by XLA, which is the reference and runs everywhere, or by OpenVINO on a CPU.

`chosen` decides; `envs.dream` holds the seam. `$NEURAL_ENV_RUNTIME` says what "auto" is to mean. The pure core
(`envs.core`), evaluation and training are XLA's alone, but for the dreams of agents (`agents.host_dreams`).
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import cast

RUNTIMES = ("auto", "xla", "openvino")

# OpenVINO's import would fork a process that tells its makers of it over the network. None stands for a package that
# can't be imported, and for that OpenVINO has a stub of its own. One that is imported already stays.
cast("dict[str, ModuleType | None]", sys.modules).setdefault("openvino_telemetry", None)


class Untranslatable(NotImplementedError):
    """The function uses an operation that has no translation for OpenVINO; XLA runs it."""


def chosen(runtime: str, platform: str) -> str:
    """The runtime that is meant: "auto" is OpenVINO on a CPU if it is installed, else XLA.

    Args:
        runtime: one of `RUNTIMES`.
        platform: of the device that the world is on, as JAX calls it.

    Raises:
        ImportError: OpenVINO is asked for and not installed.
        ValueError: OpenVINO is asked for on another device than a CPU, or the variable names no runtime.
    """
    if runtime == "auto":
        runtime = os.environ.get("NEURAL_ENV_RUNTIME") or "auto"
        if runtime not in RUNTIMES:
            raise ValueError(f"$NEURAL_ENV_RUNTIME must be one of {', '.join(RUNTIMES)}, got {runtime!r}")
    if runtime == "xla":
        return "xla"
    there = _openvino_is_installed()
    if runtime == "auto":
        return "openvino" if there and platform == "cpu" else "xla"
    if platform != "cpu":
        raise ValueError(f'runtime "openvino" runs on a CPU, the device is {platform!r}: choose "auto" or "xla"')
    if not there:
        raise ImportError('runtime "openvino" needs OpenVINO: pip install "neural-env[cpu]", or choose "xla"')
    return "openvino"


def available(platform: str) -> tuple[str, ...]:
    """The runtimes that run on a device of that platform here, XLA first."""
    return ("xla", "openvino") if platform == "cpu" and _openvino_is_installed() else ("xla",)


def _openvino_is_installed() -> bool:
    return find_spec("openvino") is not None and find_spec("flatbuffers") is not None


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
