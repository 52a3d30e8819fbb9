"""How long the first frame takes, and what a process with one dream holds in memory.

    python -m neural_env.bench.startup '{"checkpoint": "take_cover"}'

prints both as JSON. The clock runs from the first line of this file on: what Python itself takes to start, a tenth of a
second at most, is added by nobody.
"""

import time

_BEGAN = time.perf_counter()

import json  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402


def startup(**arguments: Any) -> dict[str, float]:
    """Seconds and MiB of a fresh process that makes `NeuralDoom-v0` with these arguments and steps it once.

    Raises:
        RuntimeError: it failed; its last words are in the message.
    """
    command = [sys.executable, "-m", "neural_env.bench.startup", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"a fresh process ended with status {done.returncode}: {done.stderr.strip()[-300:]}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _begin(arguments: dict[str, Any]) -> dict[str, float]:
    import gymnasium as gym

    seconds = {}
    env = gym.make("neural_env:NeuralDoom-v0", **arguments)
    seconds["import and make"] = time.perf_counter() - _BEGAN
    env.reset(seed=0)
    seconds["first reset"] = time.perf_counter() - _BEGAN
    env.step(env.action_space.sample())
    seconds["first step"] = time.perf_counter() - _BEGAN
    env.close()
    return {**seconds, "resident MiB": _peak_mib()}


def _peak_mib() -> float:
    """The most that this process has held in memory."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on a Mac, KiB elsewhere
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    print(json.dumps(_begin(json.loads(sys.argv[1]))))
