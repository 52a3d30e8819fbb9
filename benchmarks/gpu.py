"""Environment steps a second on an accelerator, against the number of dreams; the real engine on the same machine.

    python benchmarks/gpu.py --out out/gpu             # unattended, no network; ten minutes on a data-centre GPU
    python benchmarks/gpu.py --out out/gpu --smoke     # a minute on two cores: does it run?

Needs the package's own requirements and a JAX that sees the accelerator. Every row is one compiled program: N dreams, T
steps, one `lax.scan`; sampler, heads and decoder are inside, every frame is computed and looked at, and nothing leaves
the device but two sums. The past of the dreams is donated: it is overwritten in place from call to call.

OUT/gpu.json and OUT/gpu.md are written anew after each row, so a run that is cut short leaves what it has measured. A
sweep ends early where the device's memory does.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro
from flax import nnx

from neural_env.bench.clock import CORES, in_turn, matmul_peaks
from neural_env.bench.engine import engine_rate
from neural_env.bench.parts import done, flops_of, further_flops
from neural_env.bench.run import machine
from neural_env.bench.table import Table
from neural_env.envs import core
from neural_env.envs.dials import Dials
from neural_env.tpu import shape_of
from neural_env.world.model import WorldModel
from neural_env.world.precision import in_bfloat16

Precision = Literal["bfloat16", "float32"]


@dataclass(frozen=True, kw_only=True)
class GpuConfig:
    """Sweep the number of dreams and write a table."""

    out: Path  # folder of gpu.json and gpu.md
    worlds: tuple[str, ...] = ("small",)  # presets (random weights), bundled worlds or checkpoint folders
    sizes: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096)  # dreams stepped together
    precisions: tuple[Precision, ...] = ("bfloat16", "float32")
    num_steps: tuple[int, ...] = (1, 4)  # denoising steps a frame; above the first in the first precision only
    observe: tuple[Literal["screen", "latent"], ...] = ("screen", "latent")  # latents in the first of both only
    length: int = 16  # steps of one roll-out
    seconds: float = 2.0  # that each row is measured for, after its compilation
    minutes: float = 8.0  # no new row is begun after so long
    matmul: int = 8192  # side of the square matrices that the peak is measured with
    smoke: bool = False  # tiny sizes, to see whether it runs


SMOKE: dict[str, Any] = {
    "worlds": ("tiny",),
    "sizes": (2,),
    "num_steps": (1,),
    "length": 2,
    "seconds": 0.02,
    "matmul": 128,
}


@dataclass(frozen=True)
class Row:
    """One program."""

    world: str
    precision: str
    num_steps: int
    observe: str
    dreams: int
    steps_per_s: float  # environment steps
    tflops: float  # a second
    of_peak: float  # share of the matrix product's rate in the same precision
    mib_a_dream: float  # of device memory beyond the weights: state, temporaries
    compile_s: float


def main(config: GpuConfig) -> list[Row]:
    """Measures, and writes after each row."""
    began = time.monotonic()
    config = replace(config, **SMOKE) if config.smoke else config
    config.out.mkdir(parents=True, exist_ok=True)
    peaks = matmul_peaks(config.seconds, config.matmul)
    engine = real_engine(config)
    rows: list[Row] = []
    for row in sweep(config, peaks):
        rows.append(row)
        write(config, peaks, engine, rows)
        print(" | ".join(cells(row)), flush=True)
        if time.monotonic() - began > 60 * config.minutes:
            print(f"{config.minutes:g} minutes are over: the rest is left out")
            break
    return rows


def real_engine(config: GpuConfig) -> dict[str, float] | str:
    """Steps a second of ViZDoom at 160x120, one game and one on every core; or why it couldn't be measured."""
    try:
        return {str(games): engine_rate("take_cover", games, 2 * config.seconds) for games in sorted({1, CORES})}
    except RuntimeError as error:  # a machine without what the engine needs still measures the dream
        return str(error)


def sweep(config: GpuConfig, peaks: dict[str, float]) -> Iterator[Row]:
    """The rows; the likeliest to be quoted come first."""
    kinds = [
        *((precision, config.num_steps[0], config.observe[0]) for precision in config.precisions),
        *((config.precisions[0], steps, config.observe[0]) for steps in config.num_steps[1:]),
        *((config.precisions[0], config.num_steps[0], observe) for observe in config.observe[1:]),
    ]
    for world in config.worlds:
        for precision, num_steps, observe in kinds:
            for dreams in config.sizes:
                try:
                    yield measured(config, peaks, world, precision, num_steps, observe, dreams)
                except jax.errors.JaxRuntimeError as error:
                    if "RESOURCE_EXHAUSTED" not in str(error):
                        raise
                    print(f"{dreams} dreams of {world} in {precision} are more than the device's memory holds")
                    break


def measured(
    config: GpuConfig,
    peaks: dict[str, float],
    name: str,
    precision: Precision,
    num_steps: int,
    observe: str,
    dreams: int,
) -> Row:
    """One program, compiled and timed."""
    world = world_named(name, precision)
    carries, actions = beginning(world, dreams), jnp.zeros((config.length, dreams), jnp.int32)
    dials, show = Dials(num_steps=num_steps), {"screen": core.screen, "latent": core.latent}[observe]

    def play(world: WorldModel, carries: core.Carry, actions: jax.Array) -> tuple[core.Carry, jax.Array]:
        return roll_out(world, carries, actions, dials, show)

    began = time.perf_counter()
    lowered = jax.jit(play, donate_argnums=1).lower(world, carries, actions)
    program = lowered.compile()
    compile_s = time.perf_counter() - began
    one_step = jax.jit(play).lower(world, carries, actions[:1])  # a scan's body is counted once, whatever its length
    seconds = in_turn({"": repeated(program, world, carries, actions)}, config.seconds)[""]
    flops = (flops_of(one_step) + further_flops(world, num_steps, dreams)) * config.length
    return Row(
        world=name,
        precision=precision,
        num_steps=num_steps,
        observe=observe,
        dreams=dreams,
        steps_per_s=dreams * config.length / seconds,
        tflops=flops / seconds / 1e12,
        of_peak=flops / seconds / peaks[precision],
        mib_a_dream=memory_beyond_weights(program, world) / dreams / 2**20,
        compile_s=compile_s,
    )


def roll_out(
    world: WorldModel, carries: core.Carry, actions: jax.Array, dials: Dials, observe: core.Observe
) -> tuple[core.Carry, jax.Array]:
    """Steps all dreams along `actions` [t, n]; of what they show and pay only two sums are kept, as an agent would."""

    def one(carries: core.Carry, row: jax.Array) -> tuple[core.Carry, jax.Array]:
        after = jax.vmap(lambda carry, action: core.advance(world, carry, action, dials, observe))(carries, row)
        return after.state, jnp.stack([after.observation.astype(jnp.float32).mean(), after.reward.mean()])

    return jax.lax.scan(one, carries, actions)


def repeated(program: Any, world: WorldModel, carries: core.Carry, actions: jax.Array) -> Callable[[], None]:
    """A call that goes on where the last one ended: each uses up the carry of the one before."""
    held = [carries]

    def run() -> None:
        held[0], _ = done(program(world, held[0], actions))

    return run


def world_named(name: str, precision: Precision) -> WorldModel:
    """A preset with random weights, or a saved world, on the device."""
    from neural_env import checkpoint
    from neural_env.world.model import PRESETS

    if name in PRESETS:
        model, game = shape_of(name, (120, 160))
        world = jax.jit(lambda: WorldModel(model, game, rngs=nnx.Rngs(0)))()
    else:
        world = jax.device_put(checkpoint.load(name).world)
    return in_bfloat16(world) if precision == "bfloat16" else world


def beginning(world: WorldModel, dreams: int) -> core.Carry:
    """Dreams that begin in noise: what they show costs the same."""
    key, n = jax.random.key(0), world.context
    state = core.DreamState(
        jax.random.normal(key, (dreams, n, *world.latent_shape)), jnp.zeros((dreams, n - 1), jnp.int32)
    )
    return core.Carry(jax.random.key_data(jax.random.split(key, dreams)), state)


def memory_beyond_weights(program: Any, world: WorldModel) -> float:
    """Bytes that a program needs on the device, its weights not counted; what is overwritten in place counts once."""
    memory = program.memory_analysis()
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(world))
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return held + memory.temp_size_in_bytes - weights


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    return (
        *(row.world, row.precision, str(row.num_steps), row.observe, str(row.dreams), f"{row.steps_per_s:.0f}"),
        *(f"{row.tflops:.2f}", f"{row.of_peak:.1%}", f"{row.mib_a_dream:.2f}", f"{row.compile_s:.1f}"),
    )


def write(config: GpuConfig, peaks: dict[str, float], engine: dict[str, float] | str, rows: list[Row]) -> None:
    """Both files, whole or not at all."""
    here = {**machine(), "xla_flags": os.environ.get("XLA_FLAGS", "")}
    document = {"machine": here, "peaks": peaks, "engine_steps_per_s": engine, "rows": [asdict(row) for row in rows]}
    _replace(config.out / "gpu.json", json.dumps(document, indent=2) + "\n")
    columns = (
        *("world", "precision", "denoising steps", "shows", "dreams", "env-steps/s", "TFLOP/s", "of the peak"),
        *("MiB a dream", "compilation, s"),
    )
    table = Table("", columns, tuple(map(cells, rows)))
    products = ", ".join(f"{kind} {peak / 1e12:.1f} TFLOP/s" for kind, peak in peaks.items())
    games = engine if isinstance(engine, str) else ", ".join(f"{n} at once: {r:.0f}/s" for n, r in engine.items())
    head = f"{here['device']}, {here['cores']} cores of {here['processor']}, JAX {here['jax']}"
    lines = [head, "", f"Matrix product of {config.matmul}: {products}.", f"The real engine, games {games}.", "", ""]
    _replace(config.out / "gpu.md", "\n".join(lines) + table.markdown() + "\n")


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)


if __name__ == "__main__":
    main(tyro.cli(GpuConfig))
