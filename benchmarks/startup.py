"""Seconds from the start of Python to the first frames, with an empty cache and with a full one.

    python benchmarks/startup.py

Each line is a process of its own: import, make, first reset, first step; wall clock and processor time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import tyro

_CODE = """
import sys, time
import gymnasium as gym
env = gym.make("neural_env:NeuralDoom-v0", checkpoint=sys.argv[1], runtime=sys.argv[2])
made = time.time()
env.reset(seed=0)
begun = time.time()
env.step(0)
print(made, begun, time.time(), time.process_time())
"""


@dataclass(frozen=True)
class StartupConfig:
    """Measure the first frames of a process."""

    checkpoint: str = "take_cover"  # bundled world, or a checkpoint folder
    runtimes: tuple[str, ...] = ("openvino", "xla")
    rounds: int = 3  # processes with a full cache; the fastest counts


def main(config: StartupConfig) -> None:
    """Prints the table."""
    print("| runtime | cache | made | first frame | first step | processor |\n|---|---|---|---|---|---|")
    for runtime in config.runtimes:
        with tempfile.TemporaryDirectory() as folder:
            show(runtime, "empty", started(config.checkpoint, runtime, folder))
            full = min(
                (started(config.checkpoint, runtime, folder) for _ in range(config.rounds)), key=lambda row: row[2]
            )
            show(runtime, "full", full)


def started(checkpoint: str, runtime: str, folder: str) -> list[float]:
    """Seconds until made, first frame, first step; processor seconds."""
    environment = {**os.environ, "NEURAL_ENV_CACHE": folder, "JAX_PLATFORMS": "cpu"}
    began = time.time()
    command = [sys.executable, "-c", _CODE, checkpoint, runtime]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    *moments, processor = map(float, done.stdout.split())
    return [*(moment - began for moment in moments), processor]


def show(runtime: str, cache: str, row: list[float]) -> None:
    """Prints a row."""
    print(f"| {runtime} | {cache} | " + " | ".join(f"{value:.2f}" for value in row) + " |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(StartupConfig))
