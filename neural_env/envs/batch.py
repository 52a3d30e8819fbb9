"""N dreams of one world that step as one program, their rows spread over the local devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from neural_env.envs import core
from neural_env.envs.core import Carry, Step
from neural_env.envs.dials import Dials
from neural_env.envs.dream import Beginning, Dream, carry_of
from neural_env.envs.snapshot import Snapshot
from neural_env.runtime import usable_cores

# Dreams that a CPU steps together, one such group after another: the activations of more don't fit its cache, and the
# step gets slower the more there are (docs/vector_throughput.md). Accelerators take all at once.
_TOGETHER = 4
_CHUNK = 8  # rows that one call of the second program replaces: fixed, so that it is compiled once


class Transition(NamedTuple):
    """What a step of N dreams brings, on the host and its own to write to."""

    observations: npt.NDArray[Any]  # [N, H, W, 3] uint8 frames, or [N, h, w, c] float32 latents
    rewards: npt.NDArray[np.float32]  # [N] the scenario's own
    terminated: npt.NDArray[np.bool_]  # [N]
    variables: npt.NDArray[np.float32]  # [N, v]


class Batch:
    """The device's half of `NeuralDoomVector`: two programs, whatever the autoreset mode.

    Each device steps its own rows with a copy of the world; nothing passes between them. All of the dream's devices
    take part if they divide the number of dreams, else one does.

    Args:
        dream: the world.
        size: N.
    """

    def __init__(self, dream: Dream, size: int):
        devices = _devices(dream, size)
        mesh = Mesh(devices, ("dream",))
        together = _TOGETHER if devices[0].platform == "cpu" else None
        by_row, whole = PartitionSpec("dream"), PartitionSpec()  # type: ignore[no-untyped-call]
        world = jax.device_put(dream.world, NamedSharding(mesh, whole))
        self.dream = dream
        self.size = size
        self._rows = NamedSharding(mesh, by_row)

        def advance_all(world: Any, carries: Carry, actions: Any, dials: Dials) -> Step:
            guidance = None if dials.guidance is None else whole
            split = replace(dials, context_noise=by_row, temperature=by_row, guidance=guidance)
            advance = partial(_advance_rows, observe=dream.observe, together=together)
            specs = (whole, by_row, by_row, split)
            after: Step = jax.shard_map(advance, mesh=mesh, in_specs=specs, out_specs=by_row)(
                world, carries, actions, dials
            )
            return after

        self._step = core.bind(advance_all, world, donate_argnums=1)
        self._screens = core.bind(_screens, world)
        self._replace = jax.jit(_replaced, out_shardings=self._rows, donate_argnums=0)
        self._carries: Carry | None = None

    @property
    def carries(self) -> Carry:
        """Where the dreams are; every leaf `[N, ...]`."""
        assert self._carries is not None, "place all dreams first"
        return self._carries

    def place(self, moments: Mapping[int, Beginning | Snapshot]) -> None:
        """Puts the dreams of these rows somewhere else; the first time, all of them."""
        if len(moments) == self.size:
            carries = [carry_of(moments[i]) for i in range(self.size)]
            self._carries = jax.device_put(_stacked(carries), self._rows)
            return
        rows = list(moments)
        for start in range(0, len(rows), _CHUNK):
            chosen = rows[start : start + _CHUNK]
            fresh = [carry_of(moments[i]) for i in chosen]
            missing = _CHUNK - len(chosen)  # filled up with rows that aren't there, which are dropped
            indices = np.array(chosen + [self.size] * missing)
            self._carries = self._replace(self.carries, indices, _stacked(fresh + fresh[:1] * missing))

    def step(self, actions: npt.NDArray[np.int32], dials: Dials) -> Transition:
        """One transition of each dream; context noise and temperature are one number for all, or `[N]`."""
        noise, temperature = (np.broadcast_to(dial, self.size) for dial in (dials.context_noise, dials.temperature))
        rows = replace(dials, context_noise=noise, temperature=temperature).on_host()
        carries, self._carries = self.carries, None  # the step uses them up
        after = self._step(carries, actions, rows)
        self._carries = after.state
        result = (after.observation, after.reward, after.terminated, after.info.variables)
        return Transition(*map(np.array, result))

    def screens(self) -> npt.NDArray[np.uint8]:
        """The present frames, decoded."""
        return np.array(self._screens(self.carries.state))


class HostBatch:
    """`Batch` with OpenVINO: the dreams are on the host, and as many are stepped beside each other as there are cores.

    One core a dream, not all cores for a batch: nothing waits at the end of each layer.

    Args:
        dream: the world, with as many streams as rows are to be stepped at a time.
        size: N.
    """

    def __init__(self, dream: Dream, size: int):
        self.dream = dream
        self.size = size
        self._rows: list[Carry] = []

    @property
    def carries(self) -> Carry:
        """Where the dreams are; every leaf `[N, ...]`."""
        assert self._rows, "place all dreams first"
        return _stacked(self._rows)

    def place(self, moments: Mapping[int, Beginning | Snapshot]) -> None:
        """Puts the dreams of these rows somewhere else; the first time, all of them."""
        placed = {i: self.dream.place(moment) for i, moment in moments.items()}
        self._rows = [placed[i] if i in placed else self._rows[i] for i in range(self.size)]

    def step(self, actions: npt.NDArray[np.int32], dials: Dials) -> Transition:
        """One transition of each dream; context noise and temperature are one number for all, or `[N]`."""
        numbers = (np.broadcast_to(dial, self.size) for dial in (dials.context_noise, dials.temperature))
        rows = [replace(dials, context_noise=noise, temperature=warmth) for noise, warmth in zip(*numbers, strict=True)]
        steps = self.dream.advance_rows(self._rows, actions.tolist(), rows)
        self._rows = [step.state for step in steps]
        result = [(step.observation, step.reward, step.terminated, step.info.variables) for step in steps]
        return Transition(*(np.stack(column) for column in zip(*result, strict=True)))

    def screens(self) -> npt.NDArray[np.uint8]:
        """The present frames, decoded."""
        return np.stack([self.dream.screen(carry.state) for carry in self._rows])


def batch_of(checkpoint: str, decodes: bool, device: str | None, runtime: str, size: int) -> Batch | HostBatch:
    """N dreams of a world, where and by what they are to be run; the arguments are those of `Dream`."""
    dream = Dream(checkpoint, decodes, device, runtime, streams=min(size, usable_cores()))
    return HostBatch(dream, size) if dream.runtime == "openvino" else Batch(dream, size)


def _devices(dream: Dream, size: int) -> npt.NDArray[Any]:
    devices = dream.devices
    return np.array(devices if size % len(devices) == 0 else devices[:1])


def _advance_rows(
    world: Any, carries: Carry, actions: Any, dials: Dials, *, observe: core.Observe, together: int | None
) -> Step:
    """`core.advance` of every row. Guidance stays one number, so that whether there is any stays one decision."""

    def one(carry: Carry, action: Any, context_noise: Any, temperature: Any) -> Step:
        row = replace(dials, context_noise=context_noise, temperature=temperature)
        return core.advance(world, carry, action, row, observe)

    rows = (carries, actions, dials.context_noise, dials.temperature)
    after: Step
    if together is None or len(actions) <= together:
        after = jax.vmap(one)(*rows)
    else:
        after = jax.lax.map(lambda row: one(*row), rows, batch_size=together)
    return after


def _screens(world: Any, states: core.DreamState) -> jax.Array:
    return jax.vmap(lambda state: core.screen(world, state))(states)


def _replaced(carries: Carry, indices: Any, fresh: Carry) -> Carry:
    """`fresh` in the rows of these indices; those out of range are dropped."""
    replaced: Carry = jax.tree.map(lambda old, new: old.at[indices].set(new, mode="drop"), carries, fresh)
    return replaced


def _stacked(carries: Sequence[Carry]) -> Carry:
    stacked: Carry = jax.tree.map(lambda *rows: np.stack(rows), *carries)
    return stacked
