"""`neural-env bench`: one table of how fast this package is on the machine that it is on, in two minutes.

    neural-env bench                   # a table; Markdown if it is piped; --json FILE for programs

Rows of one block are measured in turn, so that what else the machine does falls on all of them; run nothing beside it
all the same. `benchmarks/` asks more questions, for those who work on the package.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from rich.console import Console

from neural_env.bench.clock import CORES, in_turn, matmul_peaks
from neural_env.bench.engine import engine_rate
from neural_env.bench.startup import startup
from neural_env.bench.table import Table, show
from neural_env.runtime import available

ID = "neural_env:NeuralDoom-v0"


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measure how fast a world is on this machine, beside the real game; two minutes. Raises `ValueError`."""

    checkpoint: str = "take_cover"  # bundled world, a checkpoint folder, or hf://owner/name
    num_steps: tuple[int, ...] = (1, 4)  # denoising steps a frame, as far as the world can make them
    sizes: tuple[int, ...] = (1, 4, 16)  # dreams in one vector environment
    seconds: float = 2.0  # that each row is measured for
    json: Path | None = None  # also write the rows here

    def __post_init__(self) -> None:
        for name, values in (("num_steps", self.num_steps), ("sizes", self.sizes)):
            if not values or min(values) < 1:
                raise ValueError(f"{name} must be at least 1, got {values}")
        if self.seconds <= 0:
            raise ValueError(f"seconds must be above 0, got {self.seconds}")


@dataclass(frozen=True)
class Row:
    """What one thing costs; None: the question doesn't arise."""

    what: str
    ms: float | None = None  # of one run
    steps_per_s: float | None = None  # environment steps
    gflop: float | None = None  # of one run
    of_peak: float | None = None  # share of the float32 matrix product's rate
    mib: float | None = None


def bench(config: BenchConfig) -> None:
    """Measures and prints the table; with `config.json` writes the rows as well.

    Raises:
        CheckpointError: an unusable checkpoint.
        RuntimeError: a game or a fresh process failed.
    """
    console, rows = Console(), []
    with console.status("measuring; run nothing else"):
        for block in blocks(config):
            rows += block
    show(console, table(rows, config))
    if config.json is not None:
        document = {"machine": machine(), "checkpoint": config.checkpoint, "rows": [asdict(row) for row in rows]}
        temporary = config.json.with_name(config.json.name + ".tmp")
        temporary.write_text(json.dumps(document, indent=2) + "\n")
        temporary.replace(config.json)


def blocks(config: BenchConfig) -> Iterator[list[Row]]:
    """The rows, block by block."""
    from neural_env import checkpoint

    scenario = checkpoint.read_game(config.checkpoint).scenario
    yield start_rows(config)
    peaks = matmul_peaks(config.seconds)
    yield [Row(f"{kind} matrix product, {peak / 1e9:.0f} GFLOP/s") for kind, peak in peaks.items()]
    yield part_rows(config, peaks["float32"])
    yield single_rows(config)
    yield vector_rows(config)
    yield [
        Row(f"the real game, raw, {games} at once", steps_per_s=engine_rate(scenario, games, 2 * config.seconds))
        for games in sorted({1, CORES})
    ]


def runtimes() -> tuple[str, ...]:
    """What can run a compiled step here; none is left to "auto", so that a row says what it measured."""
    import jax

    return available(jax.devices()[0].platform)


def start_rows(config: BenchConfig) -> list[Row]:
    """A fresh process, from its first line to the end of each phase; caches on disk as they are."""
    rows = []
    for runtime in runtimes():
        measured = startup(checkpoint=config.checkpoint, runtime=runtime)
        mib = measured.pop("resident MiB")
        last = len(measured) - 1
        rows += [
            Row(f"start-up, {runtime}, until: {phase}", 1e3 * seconds, mib=mib if i == last else None)
            for i, (phase, seconds) in enumerate(measured.items())
        ]
    return rows


def part_rows(config: BenchConfig, peak: float) -> list[Row]:
    """A step in its parts, at one denoising step."""
    from neural_env import checkpoint
    from neural_env.bench.parts import parts_of

    parts = parts_of(checkpoint.load(config.checkpoint).world)
    medians = in_turn({name: part.run for name, part in parts.items()}, config.seconds)
    return [
        Row(f"part: {name}", 1e3 * seconds, gflop=parts[name].flops / 1e9, of_peak=parts[name].flops / seconds / peak)
        for name, seconds in medians.items()
    ]


def single_rows(config: BenchConfig) -> list[Row]:
    """`env.step` as a user calls it, by runtime and number of denoising steps."""
    from neural_env import checkpoint

    most = checkpoint.read_model(config.checkpoint).objective.most_steps
    calls, close = {}, []
    for runtime in runtimes():
        for steps in (steps for steps in config.num_steps if most is None or steps <= most):
            env = gym.make(ID, checkpoint=config.checkpoint, num_steps=steps, termination="never", runtime=runtime)
            calls[f"env.step, {runtime}, {steps} denoising step{'s' * (steps > 1)}"] = stepper(env)
            close.append(env)
    medians = in_turn(calls, config.seconds)
    for env in close:
        env.close()
    return [Row(name, 1e3 * seconds, 1 / seconds) for name, seconds in medians.items()]


def vector_rows(config: BenchConfig) -> list[Row]:
    """`envs.step` of N dreams, by runtime."""
    all_envs = {
        f"make_vec, {runtime}, {size}": gym.make_vec(
            ID, num_envs=size, checkpoint=config.checkpoint, termination="never", runtime=runtime
        )
        for runtime in runtimes()
        for size in config.sizes
    }
    medians = in_turn({name: vector_stepper(envs) for name, envs in all_envs.items()}, config.seconds)
    for envs in all_envs.values():
        envs.close()
    return [Row(name, 1e3 * seconds, all_envs[name].num_envs / seconds) for name, seconds in medians.items()]


def stepper(env: gym.Env[Any, Any]) -> Callable[[], Any]:
    """A call that steps an environment, beginning anew where an episode ends."""
    env.reset(seed=0)
    action = np.int64(0)

    def step() -> None:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()

    return step


def vector_stepper(envs: gym.vector.VectorEnv[Any, Any, Any]) -> Callable[[], Any]:
    """A call that steps all dreams."""
    envs.reset(seed=0)
    actions = np.zeros(envs.num_envs, np.int64)
    return lambda: envs.step(actions)


def machine() -> dict[str, Any]:
    """Where the rows were measured."""
    import jax

    return {
        "processor": processor(),
        "cores": CORES,
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "neural-env", "vizdoom")},
    }


def processor() -> str:
    """Its name, as Linux tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def table(rows: list[Row], config: BenchConfig) -> Table:
    """The rows in one table."""
    here = machine()
    title = (
        f"{config.checkpoint} on {here['cores']} cores of {here['processor']}, JAX {here['jax']} on {here['device']}"
    )
    columns = ("what", "ms", "env-steps/s", "GFLOP", "of the f32 product", "MiB")
    return Table(title, columns, tuple(map(_cells, rows)))


def _cells(row: Row) -> tuple[str, ...]:
    def cell(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    numbers = cell(row.ms, ".2f"), cell(row.steps_per_s, ".1f"), cell(row.gflop, ".3f")
    return (row.what, *numbers, cell(row.of_peak, ".0%"), cell(row.mib, ".0f"))
