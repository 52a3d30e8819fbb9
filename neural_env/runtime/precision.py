"""What this CPU computes fastest: measured once for a machine, so that all graphs of a world say the same.

On one thread and by processor time, and kept in the cache folder: what else runs while a graph is made must not decide.
There are CPUs that have the instructions for a smaller format and are slower by them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from functools import cache
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from neural_env.runtime import cache as files
from neural_env.runtime.quantise import quantised

PRECISIONS = ("auto", "f32", "bf16", "i8")
_WORTH_IT = 0.75  # of the time in float32: a smaller format that takes longer isn't used


def asked() -> str:
    """What `$NEURAL_ENV_PRECISION` asks for: one of `PRECISIONS`.

    Raises:
        ValueError: it is something else.
    """
    found = os.environ.get("NEURAL_ENV_PRECISION") or "auto"
    if found not in PRECISIONS:
        raise ValueError(f"$NEURAL_ENV_PRECISION must be one of {', '.join(PRECISIONS)}, got {found!r}")
    return found


def floats() -> str:
    """What products of floats are computed in: "bf16" where that is faster, else "f32"."""
    taken = _times()
    return "bf16" if taken["bf16"] < _WORTH_IT * taken["f32"] else "f32"


def integers_are_faster() -> bool:
    """Whether convolutions in 8 bits are."""
    taken = _times()
    return taken["i8"] < _WORTH_IT * taken["f32"]


def machine() -> str:
    """CPU and the version of OpenVINO, on which all of this depends."""
    name = ov.Core().get_property("CPU", "FULL_DEVICE_NAME")
    return repr((name, platform.machine(), os.cpu_count(), ov.__version__))


@cache
def _times() -> dict[str, float]:
    """Relative seconds of one convolution in "f32", "bf16" and "i8"."""
    entry = hashlib.sha256(machine().encode() + Path(__file__).read_bytes()).hexdigest()[:32] + ".openvino"
    if (kept := files.read(entry)) is not None:
        found: dict[str, float] = json.loads(kept[0])
        return found
    measured = _measured()
    files.write(entry, [json.dumps(measured).encode()])
    return measured


def _measured(channels: int = 128, rounds: int = 7) -> dict[str, float]:
    """Of a stack of convolutions as a small world has them; those that there are no instructions for take for ever."""
    rng = np.random.default_rng(0)
    given = ops.parameter([1, channels, 15, 20], ov.Type.f32)
    picture = rng.standard_normal((1, channels, 15, 20)).astype(np.float32)
    x = given
    for _ in range(4):
        kernel = rng.standard_normal((channels, channels, 3, 3)).astype(np.float32) / np.float32(3 * channels**0.5)
        x = ops.relu(ops.convolution(x, ops.constant(kernel), [1, 1], [1, 1], [1, 1], [1, 1]))
    model = ov.Model([x.output(0)], [given], "convolutions")
    integers = quantised(model, [[picture]])
    assert integers is not None, "these convolutions are large"
    core = ov.Core()
    graphs = {"f32": (model, "f32"), "i8": (integers, "f32"), "bf16": (model, "bf16")}
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        del graphs["bf16"]
    requests = {}
    for name, (graph, hint) in graphs.items():
        options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
        requests[name] = core.compile_model(graph, "CPU", options).create_infer_request()
    taken: dict[str, list[float]] = {name: [] for name in requests}
    for _ in range(rounds):  # in turn, so that what else the machine does falls on all
        for name, request in requests.items():
            began = time.process_time()
            request.infer([picture])
            taken[name].append(time.process_time() - began)
    return {"bf16": float("inf"), **{name: min(seconds) for name, seconds in taken.items()}}
