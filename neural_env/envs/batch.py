"""N dreams of one world that step as one program, their rows spread over the local devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from neural_env.envs import core
from neural_env.envs.core import Carry
from neural_env.envs.dream import Dream, carry_of
from neural_env.envs.snapshot import Snapshot

_CHUNK = 8  # rows that one call of the second program replaces: fixed, so that it is compiled once


class Transition(NamedTuple):
    """What a step of N dreams brings, on the host and its own to write to."""

    frames: npt.NDArray[np.uint8]  # [N, H, W, 3]
    rewards: npt.NDArray[np.float32]  # [N] the scenario's own
    terminated: npt.NDArray[np.bool_]  # [N]
    variables: npt.NDArray[np.float32]  # [N, v]


class Batch:
    """The device's half of `NeuralDoomVector`: two programs, whatever the autoreset mode.

    Each device steps its own rows with a copy of the world; nothing passes between them. All devices take part if they
    divide the number of dreams, else one does.

    Args:
        dream: the world.
        size: N.
    """

    def __init__(self, dream: Dream, size: int):
        mesh = Mesh(_devices(size), ("dream",))
        by_row, whole = PartitionSpec("dream"), PartitionSpec()  # type: ignore[no-untyped-call]
        step = jax.shard_map(
            _advance_all(dream.num_steps),
            mesh=mesh,
            in_specs=(whole, by_row, by_row, whole),
            out_specs=by_row,
        )
        self.dream = dream
        self.size = size
        self._rows = NamedSharding(mesh, by_row)
        self._step = core.bind(step, jax.device_put(dream.world, NamedSharding(mesh, whole)), donate_argnums=1)
        self._replace = jax.jit(_replaced, out_shardings=self._rows, donate_argnums=0)
        self._carries: Carry | None = None

    @property
    def carries(self) -> Carry:
        """Where the dreams are; every leaf `[N, ...]`."""
        assert self._carries is not None, "place all dreams first"
        return self._carries

    def place(self, snapshots: Mapping[int, Snapshot]) -> None:
        """Puts the dreams of these rows somewhere else; the first time, all of them."""
        if len(snapshots) == self.size:
            carries = [carry_of(snapshots[i]) for i in range(self.size)]
            self._carries = jax.device_put(_stacked(carries), self._rows)
            return
        rows = list(snapshots)
        for start in range(0, len(rows), _CHUNK):
            chosen = rows[start : start + _CHUNK]
            fresh = [carry_of(snapshots[i]) for i in chosen]
            missing = _CHUNK - len(chosen)  # filled up with rows that aren't there, which are dropped
            indices = np.array(chosen + [self.size] * missing)
            self._carries = self._replace(self.carries, indices, _stacked(fresh + fresh[:1] * missing))

    def step(self, actions: npt.NDArray[np.int32], context_noise: float) -> Transition:
        """One transition of each dream."""
        carries, self._carries = self.carries, None  # the step uses them up
        frames, self._carries, outcome = self._step(carries, actions, np.float32(context_noise))
        return Transition(*map(np.array, (frames, outcome.reward, outcome.terminated, outcome.variables)))


def _devices(size: int) -> npt.NDArray[Any]:
    devices = jax.local_devices()
    return np.array(devices if size % len(devices) == 0 else devices[:1])


def _advance_all(num_steps: int) -> Any:
    def advance_all(world: Any, carries: Carry, actions: Any, context_noise: Any) -> Any:
        def one(carry: Carry, action: Any) -> Any:
            return core.advance(world, carry, action, num_steps=num_steps, context_noise=context_noise)

        return jax.vmap(one)(carries, actions)

    return advance_all


def _replaced(carries: Carry, indices: Any, fresh: Carry) -> Carry:
    """`fresh` in the rows of these indices; those out of range are dropped."""
    replaced: Carry = jax.tree.map(lambda old, new: old.at[indices].set(new, mode="drop"), carries, fresh)
    return replaced


def _stacked(carries: Sequence[Carry]) -> Carry:
    stacked: Carry = jax.tree.map(lambda *rows: np.stack(rows), *carries)
    return stacked
