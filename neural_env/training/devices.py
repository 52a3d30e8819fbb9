"""Data-parallel training: every device holds the whole state and a part of each batch; XLA adds up the gradients.

The program is the same on one device and on many, and so is what it computes, up to the order of a sum.
"""

from __future__ import annotations

from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

T = TypeVar("T")


class DataParallel:
    """Where a training's arrays live: batches cut along their first axis, everything else whole on every device.

    Raises:
        ValueError: the devices don't divide the batch.
    """

    def __init__(self, batch: int):
        devices = jax.devices()
        if batch % len(devices):
            cure = f"choose a multiple of {len(devices)}"
            raise ValueError(f"a batch of {batch} can't be shared evenly by {len(devices)} devices: {cure}")
        mesh = Mesh(np.array(devices), ("data",))
        self._cut = NamedSharding(mesh, PartitionSpec("data"))  # type: ignore[no-untyped-call]
        self._whole = NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]

    def spread(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """The batch on the devices, each with its own rows; numbers that belong to no row are given to all.

        Every process makes the whole batch, which is cheap, and hands over what its own devices are to see.
        """
        return {name: self._placed(np.asarray(array)) for name, array in batch.items()}

    def replicate(self, tree: T) -> T:
        """A copy of every array on every device."""
        copies: T = jax.device_put(tree, self._whole)
        return copies

    def _placed(self, array: np.ndarray) -> jax.Array:
        sharding = self._cut if array.ndim else self._whole
        placed: jax.Array = jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
        return placed
