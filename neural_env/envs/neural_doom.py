"""The dream as a Gymnasium environment: a thin shell over `envs.core`, the twin of `RealDoom`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from gymnasium.utils import EzPickle

from neural_env.envs.doom import DoomEnv, Frame

if TYPE_CHECKING:
    from neural_env.checkpoint import Starts
    from neural_env.envs.core import DreamState

CONTEXT_NOISE_MAX = 0.7  # the highest level that training shows (`world.conditioning`, not imported: it starts JAX)


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

    `reset(options={"context": frames, "actions": actions})` starts the dream from the caller's own real frames: uint8
    `[n, H, W, 3]`, n = `context_length`, oldest first, and the n - 1 actions between them. Otherwise the start is drawn
    by the seed from real ones that came with the world.

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
        self._refuse(unknown)
        from neural_env.checkpoint import read_game

        EzPickle.__init__(self, scenario, checkpoint, num_steps, context_noise, frame_skip, render_mode)
        self._checkpoint = str(checkpoint or scenario or "take_cover")
        game = read_game(self._checkpoint)
        _check(game.scenario, game.frame_skip, scenario, frame_skip, num_steps, context_noise)
        DoomEnv.__init__(self, game, render_mode)
        self.num_steps = num_steps
        self.context_noise = float(context_noise)
        self._dream: _Dream | None = None
        self._state: DreamState | None = None
        self._key: Any = None

    @property
    def context_length(self) -> int:
        """How many past frames the world sees; known once the first reset has loaded it."""
        return self._loaded().context_length

    def set_context(self, context: npt.NDArray[np.uint8], actions: npt.NDArray[np.int32]) -> Frame:
        """Replace the dream's past by real frames (as for `reset`'s options) and return its present frame.

        The episode goes on; this is how `ShadowMode` brings a dream back to the truth.
        """
        self._state = self._loaded().encode(*self._checked_context({"context": context, "actions": actions}))
        self._frame = self._loaded().observe(self._state)[0]
        return self._frame.copy()

    def _start(self, options: dict[str, Any]) -> tuple[Frame, npt.NDArray[np.float32]]:
        import jax

        dream = self._loaded()
        # Two draws an episode, whatever the options, so that a given context doesn't shift the stream.
        seed, choice = int(self.np_random.integers(2**31)), int(self.np_random.integers(len(dream.starts.latents)))
        self._key = jax.random.key(seed)
        if options:
            self._state = dream.encode(*self._checked_context(options))
        else:
            self._state = dream.start(choice)
        return dream.observe(self._state)

    def _advance(self, action: int) -> tuple[Frame, float, bool, bool, npt.NDArray[np.float32]]:
        frame, self._key, self._state, outcome = self._loaded().step(
            self._key, self._state, np.int32(action), np.float32(self.context_noise)
        )
        reward, terminated, variables, _ = outcome
        return np.array(frame), float(reward), bool(terminated), False, np.asarray(variables)

    def _end(self) -> None:
        self._dream = None

    def _loaded(self) -> _Dream:
        if self._dream is None:
            self._dream = _Dream(self._checkpoint, self.num_steps)
        return self._dream

    def _checked_context(self, options: dict[str, Any]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
        if set(options) != {"context", "actions"}:
            raise ValueError(f"reset options are 'context' and 'actions', both or none; got {sorted(options)}")
        n, shape = self.context_length, (*self.resolution, 3)
        frames, actions = np.asarray(options["context"]), np.asarray(options["actions"])
        if frames.shape != (n, *shape) or frames.dtype != np.uint8:
            raise ValueError(f"context must be uint8 of shape {(n, *shape)}, got {frames.dtype} {frames.shape}")
        if actions.shape != (n - 1,) or not all(self.action_space.contains(action) for action in actions):
            raise ValueError(f"actions must be {n - 1} integers of {self.action_space}, got {actions.tolist()}")
        return frames, actions.astype(np.int32)


class _Dream:
    """A loaded world with its compiled functions: NumPy in, NumPy out, except for state and key."""

    def __init__(self, checkpoint: str, num_steps: int):
        from neural_env import checkpoint as files
        from neural_env.envs import core

        loaded = files.load(checkpoint)
        self.starts: Starts = loaded.starts
        self.context_length = loaded.model.unet.context
        self._observe = core.bind(core.observe, loaded.world)
        self.encode: Callable[..., DreamState] = core.bind(core.encode_context, loaded.world)
        # The state is donated: the past lives in one buffer on the device, overwritten in place.
        self.step: Callable[..., Any] = core.bind(
            partial(_split_and_step, num_steps=num_steps), loaded.world, donate_argnums=2
        )

    def start(self, choice: int) -> DreamState:
        """The state of a bundled start."""
        import jax.numpy as jnp

        from neural_env.envs.core import DreamState

        return DreamState(jnp.asarray(self.starts.latents[choice]), jnp.asarray(self.starts.actions[choice]))

    def observe(self, state: DreamState) -> tuple[Frame, npt.NDArray[np.float32]]:
        """Frame and variables of a state."""
        frame, variables = self._observe(state)
        return np.array(frame), np.asarray(variables)


def _split_and_step(world: Any, key: Any, state: Any, action: Any, context_noise: Any, *, num_steps: int) -> Any:
    """`core.step`, the episode's key moved on in the same program."""
    import jax

    from neural_env.envs import core

    key, key_step = jax.random.split(key)
    frame, state, outcome = core.step(world, key_step, state, action, num_steps=num_steps, context_noise=context_noise)
    return frame, key, state, outcome


def _check(
    world_scenario: str,
    world_frame_skip: int,
    scenario: str | None,
    frame_skip: int | None,
    num_steps: int,
    context_noise: float,
) -> None:
    if scenario not in (None, world_scenario):
        raise ValueError(f"this world dreams {world_scenario!r}, not {scenario!r}: leave scenario out, or load another")
    if frame_skip not in (None, world_frame_skip):
        raise ValueError(f"this world was trained at frame_skip {world_frame_skip}, not {frame_skip}: leave it out")
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
        raise ValueError(f"num_steps must be an integer of at least 1, got {num_steps!r}")
    if not 0 <= context_noise <= CONTEXT_NOISE_MAX:
        raise ValueError(f"context_noise must be in [0, {CONTEXT_NOISE_MAX}], got {context_noise}")
