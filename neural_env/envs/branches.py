"""What came of trying several futures of one moment."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from neural_env.envs.snapshot import Snapshot


class Branches(NamedTuple):
    """N futures of one snapshot; without the axis `t` if each is a single action long.

    Nothing stops at an ending: what a row shows after its first `terminated` is no part of the episode.
    """

    frames: npt.NDArray[np.uint8]  # [N, t, H, W, 3]
    rewards: npt.NDArray[np.float32]  # [N, t] the scenario's own
    terminated: npt.NDArray[np.bool_]  # [N, t] drawn with the probability below
    termination_probability: npt.NDArray[np.float32]  # [N, t]
    variables: npt.NDArray[np.float32]  # [N, t, v] in the order of `variable_names`
    snapshots: tuple[Snapshot, ...]  # N, after the last action
