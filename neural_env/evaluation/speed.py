"""What a step of the dream costs, and whether that is real time; and what more denoising steps would bring."""

from __future__ import annotations

import time
from collections.abc import Sequence

import jax
import numpy as np

from neural_env.checkpoint import Checkpoint
from neural_env.envs import core
from neural_env.evaluation.bootstrap import Estimate, exact, mean
from neural_env.evaluation.frames import psnr
from neural_env.evaluation.rows import Row
from neural_env.evaluation.world import Dials, Dreamer, Windows
from neural_env.game import TICS_PER_SECOND
from neural_env.world.model import WorldModel

SECTION = "speed"
RATE = "frames per second"
STEPS = "denoising steps"
_MEASURED = 40


def speed_rows(checkpoint: Checkpoint, dials: Dials) -> list[Row]:
    """Frames a second of one dream with its screen, on this machine as busy as it is: the median step."""
    starts = checkpoint.starts
    state = core.DreamState(starts.latents[0], starts.actions[0])
    step = core.bind(core.advance, checkpoint.world)
    carry = core.carry_from(jax.random.key(0), jax.tree.map(jax.numpy.asarray, state))
    seconds = []
    for _ in range(_MEASURED):
        began = time.perf_counter()
        after = step(carry, np.int32(0), dials.of_env())
        carry = after.state
        np.asarray(after.observation)
        seconds.append(time.perf_counter() - began)
    real_time = TICS_PER_SECOND / checkpoint.game.frame_skip
    rate = 1 / float(np.median(seconds[1:]))  # the first one compiles
    return [Row(SECTION, RATE, exact(rate), "", 1, {"real time": exact(real_time)}, "of one dream; the median step")]


def step_rows(world: WorldModel, dreamer: Dreamer, windows: Windows, dials: Dials, steps: Sequence[int]) -> list[Row]:
    """Teacher-forced PSNR by the number of denoising steps, on the same windows; `dreamer` is compiled with `dials`.

    Numbers that the world can't make are left out, and with fewer than two there is nothing to have been lost.
    """
    most = world.objective.most_steps
    past, at = np.unique(windows.past, return_inverse=True)
    latents = dreamer.encode(windows.screens[past])
    found: dict[int, Estimate] = {}
    for count in (count for count in steps if most is None or count <= most):
        other = dreamer if count == dials.num_steps else Dreamer(world, Dials(count, dials.context_noise))
        imagined = other.imagine(latents, at.reshape(windows.past.shape), windows.actions, f"{count} step(s)")
        found[count] = mean(psnr(dreamer.decode(imagined.latents), windows.after), windows.episode)
    note = f"{len(windows)} windows"
    rows = [Row(STEPS, step_name(count), value, "dB", note=note) for count, value in found.items()]
    if len(found) < 2:
        return rows
    lost = found[max(found)] - found[min(found)]
    return [*rows, Row(STEPS, LOST, lost, "dB", note="what many steps would add to one")]


def step_name(count: int) -> str:
    """The row of so many steps."""
    return f"teacher-forced PSNR, {count} step{'s' if count > 1 else ''} a frame"


LOST = "PSNR lost by one step"
