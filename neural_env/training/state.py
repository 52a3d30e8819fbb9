"""What a training run must remember to go on as if it had never stopped, and the file it is kept in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

from neural_env.world.parameters import Flat


class TrainState(NamedTuple):
    """Everything that changes from step to step; batches and keys follow from `step` alone."""

    step: jax.Array  # number of updates made
    params: Flat
    ema: Flat  # exponential moving average of `params`: what is validated and released
    optimizer: optax.OptState


class State(Protocol):
    """A named tuple of arrays; `TrainState` is one, an agent's run has its own."""

    @property
    def step(self) -> jax.Array | np.ndarray:
        """Number of updates made: the state's name in its store."""
        ...

    def _asdict(self) -> dict[str, Any]: ...


S = TypeVar("S", bound=State)


def initial_state(params: Flat, transform: optax.GradientTransformation) -> TrainState:
    """The state before the first update; its arrays are its own, for the updates overwrite them in place."""
    mine, ema = (jax.tree.map(jnp.copy, params) for _ in range(2))
    return TrainState(jnp.zeros((), jnp.int32), mine, ema, transform.init(params))


class TrainingStateError(RuntimeError):
    """A saved training state can't be used; the message says which and what to do."""


def has_state(folder: Path) -> bool:
    """Whether there is a whole state in a store's folder; a run killed early leaves the folder without one."""
    return any(path.name.isdigit() for path in folder.glob("*"))


class StateStore:
    """The last two states of a run in `folder`, each written whole or not at all (orbax)."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, state: State) -> None:
        """Writes the state unless its step is already there."""
        step = int(state.step)
        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(state._asdict()))

    def restore(self, like: S) -> S | None:
        """The newest state, or None for a new run.

        Raises:
            TrainingStateError: it is damaged, or belongs to a model of another shape.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
        try:
            tree = self._manager.restore(step, args=ocp.args.StandardRestore(target))
            return type(like)(**tree)
        except Exception as error:  # orbax and tensorstore raise a dozen kinds for a damaged file
            older = [s for s in self._manager.all_steps() if s != step]
            cure = f"remove that folder to go on from step {max(older)}" if older else "remove it to start anew"
            raise TrainingStateError(
                f"training state {self.folder / str(step)} can't be restored ({type(error).__name__}: "
                f"{str(error).splitlines()[0]}); it is damaged or of another model: {cure}"
            ) from error

    def close(self) -> None:
        """Ends the store's threads."""
        self._manager.close()
