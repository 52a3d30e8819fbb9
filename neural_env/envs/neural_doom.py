"""The dream as a Gymnasium environment: a thin shell over `envs.core`, the twin of `RealDoom`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import EzPickle

from neural_env.envs.arguments import read_world, refuse_unknown
from neural_env.envs.branches import Branches
from neural_env.envs.doom import DoomEnv, Frame
from neural_env.envs.snapshot import Snapshot

if TYPE_CHECKING:
    from neural_env.envs.core import Carry
    from neural_env.envs.dream import Dream


class NeuralDoom(DoomEnv, EzPickle):
    """Doom, dreamed by a diffusion world model.

    The model is loaded and compiled at the first reset; the constructor only reads the checkpoint's configuration.

    Arguments:
        scenario: a scenario with a bundled world; ignored if `checkpoint` is given and None is not.
        checkpoint: name of a bundled world, or a folder written by `neural-env bundle`. Default: the scenario's.
        num_steps: denoising steps a frame, at least 1. More steps, sharper and slower.
        context_noise: level in [0, 0.7] at which the past is corrupted before the model sees it.
        frame_skip: tics an action is held. A world knows one; another raises `ValueError`. None: the world's.
        render_mode: None, "rgb_array" or "human".

    An episode starts from real frames that came with the world, drawn by the seed, or from where `reset` is told:

    * `options={"context": frames, "actions": actions}`: the caller's own real frames, uint8 `[n, H, W, 3]`,
      n = `context_length`, oldest first, and the n - 1 actions between them;
    * `options={"state": snapshot}`: a moment kept by `get_state`.

    Raises `ValueError` for arguments out of range and `CheckpointError` (a `ValueError`) for an unusable checkpoint.
    """

    def __init__(
        self,
        scenario: str | None = None,
        checkpoint: str | None = None,
        num_steps: int = 1,
        context_noise: float = 0.0,
        frame_skip: int | None = None,
        render_mode: str | None = None,
        **unknown: Any,
    ) -> None:
        refuse_unknown(type(self), unknown)
        EzPickle.__init__(self, scenario, checkpoint, num_steps, context_noise, frame_skip, render_mode)
        self._checkpoint, game = read_world(scenario, checkpoint, num_steps, context_noise, frame_skip)
        DoomEnv.__init__(self, game, render_mode)
        self.num_steps = num_steps
        self.context_noise = float(context_noise)
        self._dream: Dream | None = None
        self._carry: Carry | None = None
        self._variables: npt.NDArray[np.float32] = np.zeros(len(game.variable_names), np.float32)
        self._elapsed_steps = 0

    @property
    def context_length(self) -> int:
        """How many past frames the world sees; known once the first reset has loaded it."""
        return self._loaded().context_length

    def set_context(self, context: npt.NDArray[np.uint8], actions: npt.NDArray[np.int32]) -> Frame:
        """Replace the dream's past by real frames (as for `reset`'s options) and return its present frame.

        The episode goes on; this is how `ShadowMode` brings a dream back to the truth.
        """
        scene = self._loaded().encode(context, actions)
        return self.set_state(replace(self.get_state(), **scene._asdict()))

    def get_state(self) -> Snapshot:
        """The present moment with all that it needs to go on, for `set_state`, `branch` and `Snapshot.save`.

        Raises `gym.error.ResetNeeded` before the first reset.
        """
        self._require_open()
        if self._carry is None or self._frame is None:
            raise gym.error.ResetNeeded("there is no state yet: call reset() first")
        key, (context, actions) = self._carry
        past = np.asarray(context), np.asarray(actions), np.asarray(key)
        return Snapshot(self.game, *past, self._frame, self._variables, self._elapsed_steps, not self._playing)

    def set_state(self, snapshot: Snapshot) -> Frame:
        """Go back, or over, to a kept moment and return its frame; equal actions bring equal frames from there.

        The stream that seeds later episodes stays where it is, and so does the count of `gym.make`'s time limit.

        Raises `SnapshotError` (a `ValueError`) for the snapshot of another game or of a world of another shape.
        """
        self._require_open()
        self._place(snapshot.require(self.game, self._loaded().context_shape))
        self._frame = snapshot.frame.copy()
        self._playing = not snapshot.ended
        self._show()
        return snapshot.frame.copy()

    def branch(self, snapshot: Snapshot, actions: npt.ArrayLike, seed: int | None = None) -> Branches:
        """Try N futures of one moment in one compiled call; the environment itself stays where it is.

        Args:
            snapshot: where all begin.
            actions: integers `[N]`, or rows of them `[N, t]`. Each new shape is compiled once.
            seed: None: each future is the one that `set_state` and `step` would show, so all share their luck. An
                integer: each draws luck of its own, and equal rows are samples of what may happen.

        Raises `SnapshotError` for a foreign snapshot, `gym.error.InvalidAction` for what names no actions.
        """
        self._require_open()
        return self._loaded().branch(snapshot, actions, self.context_noise, seed)

    def _start(self, options: dict[str, Any]) -> tuple[Frame, npt.NDArray[np.float32]]:
        dream = self._loaded()
        first = dream.begin(self.np_random, dream.scene(options))
        self._place(first)
        return first.frame.copy(), first.variables

    def _advance(self, action: int) -> tuple[Frame, float, bool, bool, npt.NDArray[np.float32]]:
        carry, self._carry = self._carry, None  # the step uses it up
        assert carry is not None, "DoomEnv lets no step pass before the first reset"
        frame, self._carry, outcome = self._loaded().advance(carry, action, self.context_noise)
        self._variables = np.asarray(outcome.variables)
        self._elapsed_steps += 1
        return frame, float(outcome.reward), bool(outcome.terminated), False, self._variables

    def _end(self) -> None:
        self._dream = self._carry = None

    def _place(self, snapshot: Snapshot) -> None:
        from neural_env.envs.dream import on_device

        self._carry = on_device(snapshot)
        self._variables, self._elapsed_steps = snapshot.variables, snapshot.elapsed_steps

    def _loaded(self) -> Dream:
        if self._dream is None:
            from neural_env.envs.dream import Dream

            self._dream = Dream(self._checkpoint, self.num_steps)
        return self._dream
