"""What a world costs on a TPU, told by the TPU's own compiler, on any Linux machine and without a TPU.

    neural-env tpu-report              # a table; Markdown if it is piped; --json FILE for programs

libtpu compiles ahead of time for a chip that is only described. Here that is one chip of a TPU v5e, as GameNGen played
on one (arXiv 2408.14837, section 4.2): 20 frames a second at four steps, 50 ms a frame. What is compiled is the whole
step of N dreams, as on any accelerator: denoising steps, reward, termination, variables and decoder, the past donated.

Each world is compiled in a process of its own, with an environment of its own: libtpu reads where it runs from
variables, can end the process that it runs in, and makes a noise; none of that reaches the caller's JAX.

This module is also what that process runs: `python -m neural_env.tpu REQUEST` prints one line of JSON a program.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.console import Console

from neural_env.bench.table import Table, show

PAPER_MS = 50.0  # a frame: GameNGen's 20 frames a second on one TPU v5 (section 4.2)
CHIP = "TPU v5e"
MEMORY_GIB = 16.0  # of one chip, https://cloud.google.com/tpu/docs/v5e
PEAK_FLOPS = 197e12  # a second in bfloat16, same source
BANDWIDTH = 819e9  # bytes a second, same source


_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",  # what the process itself computes with
    "TPU_SKIP_MDS_QUERY": "1",  # ask no cloud where we are
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several may compile at once: none has the chip
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}


class CompilerFailed(RuntimeError):
    """libtpu ended with an error, or was too slow; the message has its last words."""


@dataclass(frozen=True, kw_only=True)
class TpuReportConfig:
    """Compile worlds for one chip of a TPU v5e, without one, and print what the compiler expects of them.

    Raises `ValueError` for numbers below 1.
    """

    worlds: tuple[str, ...] = ()  # presets, bundled worlds, checkpoint folders; none: every preset and bundled world
    batches: tuple[int, ...] = (1, 16, 128)  # dreams stepped together; compiling takes longer the more they are
    num_steps: int = 1  # denoising steps a frame
    precision: Literal["bfloat16", "float32"] = "bfloat16"  # that the layers compute in
    resolution: tuple[int, int] = (120, 160)  # height and width of presets; 240 320 for one that it doesn't suit
    json: Path | None = None  # also write the rows here
    timeout: float = 1800.0  # seconds that one world may take

    def __post_init__(self) -> None:
        for name, values in (("batches", self.batches), ("num_steps", (self.num_steps,))):
            if not values or min(values) < 1:
                raise ValueError(f"{name} must be at least 1, got {values}")


@dataclass(frozen=True)
class Compiled:
    """One program as the compiler sees it."""

    world: str
    batch: int
    num_steps: int
    precision: str
    flops: float  # of one step of all dreams, as executed: padding included
    bytes: float  # moved in it
    memory_bytes: int  # on the chip: arguments, results, temporaries, code; what is overwritten in place counts once
    seconds: float  # expected of one step of all dreams, by the compiler: of all operations that it has an estimate of
    unknown: int  # operations that it has none of

    @property
    def least_seconds(self) -> float:
        """What the chip's published peaks allow: arithmetic and memory, each at full speed and both at once."""
        return max(self.flops / PEAK_FLOPS, self.bytes / BANDWIDTH)

    @property
    def ms_a_frame(self) -> float:
        """Milliseconds a frame of one dream: no less than both estimates say."""
        return 1e3 * max(self.seconds, self.least_seconds) / self.batch

    @property
    def fits(self) -> bool:
        """Whether one chip holds it."""
        return self.memory_bytes < MEMORY_GIB * 2**30


def tpu_report(config: TpuReportConfig) -> None:
    """Compiles and prints the table; with `config.json` writes the rows as well.

    Raises:
        ImportError: libtpu isn't installed.
        CheckpointError: a name that is neither a preset nor a world.
        ValueError: a preset's patches divide neither the resolution nor 320x240.
        CompilerFailed: the compiler failed, or took longer than `config.timeout`.
    """
    console, rows = Console(), []
    worlds = config.worlds or tuple(every_world())
    for world in worlds:
        shape_of(world, config.resolution)  # what can't be compiled is found before hours are spent on the others
    for world in worlds:
        with console.status(f"compiling {world} for a {CHIP}"):
            rows += list(compiled(world, config))
    show(console, table(rows, config))
    if any(row.unknown for row in rows):
        console.print("\\* of those operations that the compiler gives a time for")
    if config.json is not None:
        document = {"chip": CHIP, "paper_ms": PAPER_MS, "rows": [as_json(row) for row in rows]}
        temporary = config.json.with_name(config.json.name + ".tmp")
        temporary.write_text(json.dumps(document, indent=2) + "\n")
        temporary.replace(config.json)


def every_world() -> list[str]:
    """The presets, then the bundled worlds."""
    from neural_env.checkpoint import bundled_names
    from neural_env.world.model import PRESETS

    return [*PRESETS, *bundled_names()]


def compiled(world: str, config: TpuReportConfig) -> Iterator[Compiled]:
    """The programs of one world, compiled in a process of their own; raises as `tpu_report`."""
    library = require_libtpu()
    request = {"world": world, **{k: v for k, v in asdict(config).items() if k not in ("worlds", "json", "timeout")}}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "neural_env.tpu", json.dumps(request)],
            env={**os.environ, **_ENVIRONMENT, "TPU_LIBRARY_PATH": library},
            capture_output=True,
            text=True,
            timeout=config.timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise CompilerFailed(
            f"compiling {world} took over timeout={config.timeout:g} s: raise it, or compile smaller batches"
        ) from error
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-3:])
        raise CompilerFailed(f"the compiler ended with status {done.returncode} on {world}: {last}")
    for line in done.stdout.splitlines():
        yield Compiled(**json.loads(line))


def require_libtpu() -> str:
    """Where libtpu.so is: what `TPU_LIBRARY_PATH` names, or the installed one; raises `ImportError`."""
    if path := os.environ.get("TPU_LIBRARY_PATH"):
        if not Path(path).is_file():
            raise ImportError(f"TPU_LIBRARY_PATH names no file: {path}")
        return str(Path(path).resolve())
    spec = find_spec("libtpu")
    if spec is None or spec.origin is None:
        raise ImportError('compiling for a TPU needs libtpu (Linux, x86-64): pip install "neural-env[tpu]"')
    return str(Path(spec.origin).with_name("libtpu.so"))


def table(rows: list[Compiled], config: TpuReportConfig) -> Table:
    """The rows beside the paper's 50 ms."""
    title = f"One {CHIP} chip, ahead of time: {config.num_steps} denoising step(s) a frame, {config.precision}"
    columns = ("world", "dreams", "MiB", "GFLOP", "MB moved", "ms a step", "ms a frame", f"{PAPER_MS:.0f} ms is")
    return Table(title, columns, tuple(map(_cells, rows)))


def _cells(row: Compiled) -> tuple[str, ...]:
    expected = f"{1e3 * max(row.seconds, row.least_seconds):.3f}" + ("*" if row.unknown else "")
    memory = f"{row.memory_bytes / 2**20:.0f}" + ("" if row.fits else ": too much")
    return (
        *(row.world, str(row.batch), memory, f"{row.flops / 1e9:.2f}", f"{row.bytes / 1e6:.0f}"),
        *(expected, f"{row.ms_a_frame:.4f}", f"{PAPER_MS / row.ms_a_frame:.0f} times"),
    )


def as_json(row: Compiled) -> dict[str, Any]:
    """A row with what is derived from it."""
    return {**asdict(row), "least_seconds": row.least_seconds, "ms_a_frame": row.ms_a_frame, "fits": row.fits}


def shape_of(world: str, resolution: tuple[int, int]) -> Any:
    """Model and game of a preset (a game like take_cover), bundled world or folder.

    A preset whose patches don't divide the resolution gets the game at the screen that it is made for.

    Raises:
        CheckpointError: there is no such world.
        ValueError: its patches divide no screen.
    """
    from neural_env import checkpoint
    from neural_env.game import GameConfig
    from neural_env.world.model import PRESETS, usual_screen

    if world in PRESETS:
        sizes = PRESETS[world].autoencoder
        fits = all(side % sizes.patch == 0 for side in resolution)
        screen = resolution if fits else usual_screen(world, PRESETS[world])
        game = GameConfig("take_cover", ("noop", "move_left", "move_right"), ("health",), 4, screen)
        return PRESETS[world], game
    return checkpoint.read_model(world), checkpoint.read_game(world)


def label_of(world: str, resolution: tuple[int, int]) -> str:
    """What its rows are called: with the resolution where a preset is compiled for another one than asked."""
    from neural_env.world.model import PRESETS

    height, width = shape_of(world, resolution)[1].resolution
    return f"{world}, {width}x{height}" if world in PRESETS and (height, width) != tuple(resolution) else world


class Cost(NamedTuple):
    """What the compiler expects of a program; the body of a loop counts once, however often it is run."""

    flops: float
    bytes: float
    seconds: float
    unknown: int  # operations that `seconds` leaves out

    @staticmethod
    def of(program: Any) -> Cost:
        """That of a compiled program."""
        found = program.cost_analysis()
        return Cost(found["flops"], found["bytes accessed"], *_estimate(found["optimal_seconds"]))

    def plus(self, other: Cost, times: int) -> Cost:
        """With so many runs of another program."""
        return Cost(
            self.flops + times * other.flops,
            self.bytes + times * other.bytes,
            self.seconds + times * other.seconds,
            self.unknown + times * other.unknown,
        )


def _estimate(optimal_seconds: float) -> tuple[float, int]:
    """Seconds of the operations with an estimate, and the number without: the compiler counts each of these as -1 s.

    A step takes milliseconds, so the two can be told apart.
    """
    unknown = max(0, math.ceil(-optimal_seconds))
    return optimal_seconds + unknown, unknown


def _compile(request: dict[str, Any]) -> Iterator[Compiled]:
    """What the other process does."""
    import jax
    import jax.numpy as jnp
    from flax import nnx
    from jax.experimental import topologies

    from neural_env.bench.parts import evaluate_network, network_arguments
    from neural_env.envs.core import Carry, DreamState, advance
    from neural_env.envs.dials import Dials
    from neural_env.world.model import WorldModel
    from neural_env.world.precision import in_bfloat16

    # One chip of a host: without the bounds the smallest that can be described are four.
    described = topologies.get_topology_desc(platform="tpu", topology_name="v5e:1x1", chips_per_host_bounds=(1, 1, 1))
    chip = jax.sharding.SingleDeviceSharding(described.devices[0])
    model, game = shape_of(request["world"], tuple(request["resolution"]))
    cast = in_bfloat16 if request["precision"] == "bfloat16" else lambda world: world
    world = nnx.eval_shape(lambda: cast(WorldModel(model, game, rngs=nnx.Rngs(0))))
    dials = Dials(num_steps=request["num_steps"])

    def step(world: WorldModel, carries: Carry, actions: jax.Array) -> Any:
        return jax.vmap(lambda carry, action: advance(world, carry, action, dials))(carries, actions)

    def there(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.update(sharding=chip), tree)

    def carries(batch: int) -> Carry:
        n = world.context
        state = DreamState(jnp.zeros((batch, n, *world.latent_shape)), jnp.zeros((batch, n - 1), jnp.int32))
        return Carry(jnp.zeros((batch, 2), jnp.uint32), state)

    for batch in request["batches"]:
        actions = jax.eval_shape(lambda n=batch: jnp.zeros(n, jnp.int32))
        arguments = there((world, jax.eval_shape(lambda n=batch: carries(n)), actions))
        program: Any = jax.jit(step, donate_argnums=1).lower(*arguments).compile()
        cost, memory = Cost.of(program), program.memory_analysis()
        if more := request["num_steps"] - 1:
            again = jax.jit(evaluate_network).lower(there(world), *there(network_arguments(world, batch))).compile()
            cost = cost.plus(Cost.of(again), more)
        yield Compiled(
            world=label_of(request["world"], tuple(request["resolution"])),
            batch=batch,
            num_steps=request["num_steps"],
            precision=request["precision"],
            flops=cost.flops,
            bytes=cost.bytes,
            memory_bytes=memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes
            + memory.generated_code_size_in_bytes,
            seconds=cost.seconds,
            unknown=cost.unknown,
        )


if __name__ == "__main__":
    for program in _compile(json.loads(sys.argv[1])):
        print(json.dumps(asdict(program)), flush=True)
