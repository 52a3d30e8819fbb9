"""One loop for every stage: batches in, a trained module out, whatever interrupts it in between.

A batch is a function of the step, a key is folded from it, and so a run that was killed and started again computes the
same next loss as one that was never interrupted. Threads make the next batches while the device computes; as each is a
function of its step alone, it doesn't matter which thread makes it or when.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from neural_env.arrays import Key
from neural_env.training.devices import DataParallel
from neural_env.training.optimisers import OPTIMISERS, SCHEDULES, OptimiserName
from neural_env.training.precision import Precision, computing_in
from neural_env.training.state import StateStore, TrainState, initial_state
from neural_env.world.parameters import parameters, replaced

M = TypeVar("M", bound=nnx.Module)
Trained = TypeVar("Trained", bound=nnx.Module, contravariant=True)
Batch = dict[str, np.ndarray]
DeviceBatch = dict[str, jax.Array]
Logs = dict[str, jax.Array]


@dataclass(frozen=True)
class LoopConfig:
    """How a stage is trained."""

    steps: int = 10_000  # updates in all
    batch: int = 32  # items an update
    optimiser: OptimiserName = "adamw"  # see `training.optimisers`
    learning_rate: float = 1e-3  # at its highest, after warm-up
    schedule: Literal["cosine", "constant"] = "cosine"  # after warm-up: down to zero over the steps, or as it is
    warmup: int = 200  # steps of rising learning rate
    weight_decay: float = 1e-4  # of any optimiser
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.999  # decay of the averaged weights
    precision: Precision = "auto"  # of convolutions and dense layers; auto: bfloat16 on accelerators, float32 on CPUs
    prefetch: int = 2  # batches made ahead of the device, each by a thread of its own; 0: none, batches wait their turn
    seed: int = 0  # of initialisation, batches and noise
    max_minutes: float | None = None  # stop after so long, leaving a usable model; run again to go on
    checkpoint_minutes: float = 3.0  # save this often
    validate_minutes: float = 5.0  # validate this often
    log_every: int = 50  # steps between two lines of metrics.jsonl

    def __post_init__(self) -> None:
        for name, least in {"steps": 0, "batch": 1, "warmup": 0, "prefetch": 0, "log_every": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


class Stage(Protocol[Trained]):
    """What a stage of training is to the loop."""

    name: str

    def loss(self, module: Trained, batch: DeviceBatch, key: Key) -> tuple[jax.Array, Logs]:
        """The loss to minimise and scalars to log; traced."""
        ...

    def batch(self, step: int, size: int) -> Batch:
        """The batch of that step, the same at every call."""
        ...

    def validate(self, module: Trained) -> dict[str, float]:
        """Scores on validation data."""
        ...


class NonFiniteLoss(RuntimeError):
    """Training diverged; the message says where and where the last good state is."""


def optimiser(config: LoopConfig) -> optax.GradientTransformation:
    """The optimiser of that name, on that schedule, with clipping."""
    rate = SCHEDULES[config.schedule](config.learning_rate, config.warmup, config.steps)
    return optax.chain(
        optax.clip_by_global_norm(config.clip), OPTIMISERS[config.optimiser].transform(rate, config.weight_decay)
    )


def train(stage: Stage[M], module: M, config: LoopConfig, folder: Path) -> tuple[M, TrainState]:
    """Trains `module` on `stage`, going on from `folder` if there is a state in it.

    Returns the module with averaged weights and the last state. Metrics go to `folder/metrics.jsonl` and TensorBoard.

    Raises:
        NonFiniteLoss: the loss became NaN or infinite.
        TrainingStateError: the saved state is damaged.
        ValueError: the devices don't divide the batch.
    """
    devices = DataParallel(config.batch)
    folder.mkdir(parents=True, exist_ok=True)
    transform = optimiser(config)
    update = _compiled_update(stage, transform, config)
    store = StateStore(folder / "state")
    try:
        state = initial_state(parameters(module), transform)
        module, state = devices.replicate((module, store.restore(state) or state))
        with Metrics(folder) as metrics, _progress(stage.name, config) as report:
            state = _run(stage, module, config, state, devices, update, store, metrics, report)
    finally:
        store.close()
    return replaced(module, state.ema), state


def finished(state: TrainState, config: LoopConfig) -> bool:
    """Whether all steps were made (and not just the time allowed)."""
    return int(state.step) >= config.steps


def _compiled_update(stage: Stage[M], transform: optax.GradientTransformation, config: LoopConfig) -> Any:
    """The module's own precision is left alone: what is validated and handed over computes as it did."""

    @partial(jax.jit, donate_argnums=1)
    def update(module: M, state: TrainState, batch: DeviceBatch) -> tuple[TrainState, Logs]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)

        def loss(params: dict[str, jax.Array]) -> tuple[jax.Array, Logs]:
            return stage.loss(computing_in(replaced(module, params), config.precision), batch, key)

        (value, logs), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, optimizer = transform.update(gradient, state.optimizer, state.params)
        params: dict[str, jax.Array] = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(config.ema, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, params)
        logs = {"loss": value, "gradient_norm": optax.global_norm(gradient), **logs}
        return TrainState(state.step + 1, params, ema, optimizer), logs

    return update


def _run(
    stage: Stage[M],
    module: M,
    config: LoopConfig,
    state: TrainState,
    devices: DataParallel,
    update: Any,
    store: StateStore,
    metrics: Metrics,
    report: Any,
) -> TrainState:
    clock = _Clock(config)
    first = int(state.step)
    for step, batch in _batches(stage, config, first):
        state, logs = update(module, state, devices.spread(batch))
        if (step + 1) % config.log_every == 0 or step == first:
            _check_finite(logs, step, store)
            scalars = {name: float(value) for name, value in logs.items()}
            scalars["samples_per_second"] = config.batch * (step + 1 - first) / clock.elapsed
            metrics.write(step + 1, "train", scalars)
            report(step + 1, scalars)
        if clock.due("checkpoint"):
            _check_finite(logs, step, store)
            store.save(state)
        if clock.due("validate"):
            metrics.write(step + 1, "validation", stage.validate(replaced(module, state.ema)))
        if clock.over:
            break
    if int(state.step) > first:
        _check_finite(logs, step, store)
        store.save(state)
        metrics.write(int(state.step), "validation", stage.validate(replaced(module, state.ema)))
    return state


def _batches(stage: Stage[M], config: LoopConfig, first: int) -> Iterator[tuple[int, Batch]]:
    """Steps and their batches, `prefetch` of them being made at any time."""
    steps = iter(range(first, config.steps))
    if not config.prefetch:
        yield from ((step, stage.batch(step, config.batch)) for step in steps)
        return
    made: deque[tuple[int, Future[Batch]]] = deque()
    with ThreadPoolExecutor(config.prefetch, "batch") as threads:
        try:
            for step in steps:
                made.append((step, threads.submit(stage.batch, step, config.batch)))
                if len(made) > config.prefetch:
                    done, future = made.popleft()
                    yield done, future.result()
            while made:
                done, future = made.popleft()
                yield done, future.result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


def _check_finite(logs: Logs, step: int, store: StateStore) -> None:
    """The gradient too: where it alone is NaN, the loss is finite for the last time and the new weights are lost."""
    loss, norm = float(logs["loss"]), float(logs["gradient_norm"])
    if not np.isfinite([loss, norm]).all():
        raise NonFiniteLoss(
            f"the loss is {loss}, the gradient's norm {norm} at step {step + 1}; the last good state is in "
            f"{store.folder}: lower the learning rate and run again"
        )


class _Clock:
    """Says when something is due; time never enters the computation itself."""

    def __init__(self, config: LoopConfig):
        self._start = time.monotonic()
        self._limit = float("inf") if config.max_minutes is None else 60 * config.max_minutes
        self._period = {"checkpoint": 60 * config.checkpoint_minutes, "validate": 60 * config.validate_minutes}
        self._last = dict.fromkeys(self._period, self._start)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    @property
    def over(self) -> bool:
        """Whether the time allowed is used up."""
        return self.elapsed > self._limit

    def due(self, what: str) -> bool:
        """Whether the period of `what` has passed since it was last due."""
        now = time.monotonic()
        if now - self._last[what] < self._period[what]:
            return False
        self._last[what] = now
        return True


class Metrics:
    """metrics.jsonl and TensorBoard, side by side."""

    def __init__(self, folder: Path):
        self._folder = folder

    def __enter__(self) -> Metrics:
        self._file = (self._folder / "metrics.jsonl").open("a")
        self._board = SummaryWriter(str(self._folder / "tensorboard"))
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._board.close()

    def write(self, step: int, split: str, scalars: dict[str, float]) -> None:
        """Appends one line; a killed run loses none before it."""
        self._file.write(json.dumps({"step": step, "split": split, "time": round(time.time(), 3), **scalars}) + "\n")
        self._file.flush()
        for name, value in scalars.items():
            self._board.add_scalar(f"{split}/{name}", value, step)


@contextmanager
def _progress(name: str, config: LoopConfig) -> Iterator[Any]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(name, total=config.steps, note="compiling")

        def report(step: int, scalars: dict[str, float]) -> None:
            note = f"loss {scalars['loss']:.4f}  {scalars['samples_per_second']:.1f} samples/s"
            bar.update(task, completed=step, note=note)

        yield report
