"""The dream as a Gymnasium environment: a thin shell over `envs.core`, the twin of `RealDoom`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import EzPickle

from neural_env.envs.arguments import (
    OBSERVATIONS,
    Dialled,
    check_device,
    observation_space,
    one_of,
    read_world,
    refuse_unknown,
    time_limit,
)
from neural_env.envs.branches import Branches
from neural_env.envs.doom import DoomEnv, Frame
from neural_env.envs.snapshot import Snapshot
from neural_env.runtime import RUNTIMES

if TYPE_CHECKING:
    from neural_env.envs.core import Carry
    from neural_env.envs.dream import Beginning, Dream


class NeuralDoom(Dialled, DoomEnv, EzPickle):
    """Doom, dreamed by a diffusion world model.

    The model is loaded and compiled at the first reset; the constructor only reads the checkpoint's configuration.

    Arguments:
        scenario: a scenario with a bundled world; ignored if `checkpoint` is given and None is not.
        checkpoint: name of a bundled world, a folder written by `neural-env bundle`, or `hf://owner/name` of one on
            the Hugging Face Hub. Default: the scenario's.
        num_steps: denoising steps a frame, at least 1; more are slower. None: as many as suit the world, which for
            most is 1. A distilled world takes no more.
        context_noise: level in [0, 0.7] at which the past is corrupted before the model sees it.
        guidance: weight of the past frames, at least 1, which is none. For worlds trained with context dropout.
        temperature: in [0, 2], of the noise that a frame is drawn from and of the draw that ends an episode; at 0
            nothing is drawn but the context noise.
        termination: "sample": drawn with the probability foretold; "threshold": when that is above 0.5; "never".
        observation: "rgb", the screen; "latent", the model's own code of it, float32 `[h, w, c]`, without running the
            decoder; "dict", ViZDoom's own `{"screen", "gamevariables"}`.
        max_episode_steps: steps an episode has at most; None: 2100 tics, which are 525 steps at frame skip 4; -1: no
            limit. `gym.make` keeps an argument of this name for a wrapper, which can only shorten.
        frame_skip: tics an action is held. A world knows one; another raises `ValueError`. None: the world's.
        device: "cpu", "gpu", "gpu:1", "tpu": where the world is run; None: JAX's default.
        runtime: by what it is run: "xla"; "openvino", faster on a CPU (`pip install "neural-env[cpu]"`); "auto":
            OpenVINO on a CPU where it is installed, else XLA. Their frames differ by rounding. Guidance above 1 and the
            encoding of given frames are always XLA's.
        render_mode: None, "rgb_array" or "human".

    `context_noise`, `guidance`, `temperature` and `max_episode_steps` are also attributes that may be set between
    steps; nothing is compiled again.

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
        num_steps: int | None = None,
        context_noise: float = 0.0,
        guidance: float = 1.0,
        temperature: float = 1.0,
        termination: str = "sample",
        observation: str = "rgb",
        max_episode_steps: int | None = None,
        frame_skip: int | None = None,
        device: str | None = None,
        runtime: str = "auto",
        render_mode: str | None = None,
        **unknown: Any,
    ) -> None:
        refuse_unknown(type(self), unknown)
        EzPickle.__init__(
            self,
            scenario,
            checkpoint,
            num_steps,
            context_noise,
            guidance,
            temperature,
            termination,
            observation,
            max_episode_steps,
            frame_skip,
            device,
            runtime,
            render_mode,
        )
        self.world = read_world(scenario, checkpoint, frame_skip)
        self._turn(num_steps, context_noise, guidance, temperature, termination)
        one_of("observation", observation, OBSERVATIONS)
        check_device(device)
        one_of("runtime", runtime, RUNTIMES)
        DoomEnv.__init__(self, self.world.game, render_mode)
        self.observation_space = observation_space(observation, self.world)
        self.observation, self.device, self.runtime = observation, device, runtime
        self.max_episode_steps = time_limit(max_episode_steps, self.game)
        self._dream: Dream | None = None
        self._carry: Carry | None = None
        self._latent: npt.NDArray[np.float32] | None = None  # the present one, where latents are observed
        self._variables: npt.NDArray[np.float32] = np.zeros(len(self.variable_names), np.float32)
        self._elapsed_steps = 0

    @property
    def context_length(self) -> int:
        """How many past frames the world sees."""
        return self.world.context_length

    def set_context(self, context: npt.NDArray[np.uint8], actions: npt.NDArray[np.int32]) -> Any:
        """Replace the dream's past by real frames (as for `reset`'s options) and return the present observation.

        The episode goes on; this is how `ShadowMode` brings a dream back to the truth.
        """
        scene = self._loaded().encode(context, actions)
        return self._go_to(replace(self.get_state(), **{k: v for k, v in scene._asdict().items() if v is not None}))

    def get_state(self) -> Snapshot:
        """The present moment with all that it needs to go on, for `set_state`, `branch` and `Snapshot.save`.

        Raises `gym.error.ResetNeeded` before the first reset.
        """
        self._require_open()
        if self._carry is None:
            raise gym.error.ResetNeeded("there is no state yet: call reset() first")
        key, (context, actions) = self._carry
        past = np.asarray(context), np.asarray(actions), np.asarray(key)
        return Snapshot(self.game, *past, self._screen(), self._variables, self._elapsed_steps, not self._playing)

    def set_state(self, snapshot: Snapshot) -> Any:
        """Go back, or over, to a kept moment and return its observation; equal actions bring equal frames from there.

        The stream that seeds later episodes stays where it is, and so does the count of a time limit that `gym.make`
        was given; the environment's own goes on from the snapshot's.

        Raises `TypeError` for what is no snapshot, `SnapshotError` (a `ValueError`) for that of another game or of a
        world of another shape.
        """
        from neural_env.envs.dream import checked

        self._require_open()
        return self._go_to(checked(snapshot, "a state").require(self.game, self._loaded().context_shape))

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
        return self._loaded().branch(snapshot, actions, self.dials(), seed)

    def _start(self, options: dict[str, Any]) -> tuple[Frame | None, npt.NDArray[np.float32]]:
        dream = self._loaded()
        first = dream.begin(self.np_random, dream.scene(options))
        self._place(first)
        return self._frame, first.variables

    def _advance(self, action: int) -> tuple[Frame | None, float, bool, bool, npt.NDArray[np.float32]]:
        carry, self._carry = self._carry, None  # the step uses it up
        assert carry is not None, "DoomEnv lets no step pass before the first reset"
        shown, after = self._loaded().advance(carry, action, self.dials())
        self._carry, self._variables = after.state, np.asarray(after.info.variables)
        self._elapsed_steps += 1
        self._latent, frame = (shown, None) if self.observation == "latent" else (None, shown)
        terminated = bool(after.terminated)
        timed_out = self.max_episode_steps is not None and self._elapsed_steps >= self.max_episode_steps
        return frame, float(after.reward), terminated, timed_out and not terminated, self._variables

    def _observation(self) -> Any:
        if self.observation == "latent":
            assert self._latent is not None
            return self._latent.copy()
        if self.observation == "dict":
            seen = {"screen": self._screen().copy(), "gamevariables": self._variables.copy()}
            return {name: seen[name] for name in self.observation_space.spaces}  # type: ignore[attr-defined]
        return self._screen().copy()

    def _screen(self) -> Frame:
        if self._frame is None and self._carry is not None:
            self._frame = self._loaded().screen(self._carry.state)
        return super()._screen()

    def _end(self) -> None:
        self._dream = self._carry = None

    def _go_to(self, snapshot: Snapshot) -> Any:
        self._place(snapshot)
        self._playing = not snapshot.ended
        self._show()
        return self._observation()

    def _place(self, moment: Beginning | Snapshot) -> None:
        self._carry = self._loaded().place(moment)
        self._frame, self._latent = None if moment.frame is None else moment.frame.copy(), moment.context[-1]
        self._variables, self._elapsed_steps = moment.variables, moment.elapsed_steps

    def _loaded(self) -> Dream:
        if self._dream is None:
            from neural_env.envs.dream import Dream

            self._dream = Dream(self.world.checkpoint, self.observation != "latent", self.device, self.runtime)
        return self._dream
