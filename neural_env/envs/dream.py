"""A loaded world with its compiled functions: what `NeuralDoom` steps once and `NeuralDoomVector` many times at once.

Everything on the host is NumPy and a `Snapshot`; on the device lives a `Carry`, donated from step to step.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any, NamedTuple, cast

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from neural_env import checkpoint as files
from neural_env.envs import core
from neural_env.envs.branches import Branches
from neural_env.envs.core import Carry, DreamState, StepOutcome
from neural_env.envs.snapshot import Snapshot, SnapshotError
from neural_env.game import GameConfig


class Scene(NamedTuple):
    """A place to begin from: real frames as latents, and what they show."""

    context: npt.NDArray[np.float32]  # [n, h, w, c] latents, oldest first
    actions: npt.NDArray[np.int32]  # [n - 1] the actions between them
    frame: npt.NDArray[np.uint8]  # [H, W, 3] the last one
    variables: npt.NDArray[np.float32]  # [v] at the last one


class Dream:
    """One world and how it is stepped.

    Args:
        checkpoint: name of a bundled world, or a folder written by `neural-env bundle`.
        num_steps: denoising steps a frame.

    Raises:
        CheckpointError: an unusable checkpoint.
    """

    def __init__(self, checkpoint: str, num_steps: int):
        loaded = files.load(checkpoint)
        self.world, self.game, self.starts = loaded.world, loaded.game, loaded.starts
        self.num_steps = num_steps
        self.context_length = loaded.model.unet.context
        self.context_shape = (self.context_length, *loaded.world.latent_shape)
        self._observe = core.bind(core.observe, loaded.world)
        self._encode = core.bind(core.encode_context, loaded.world)
        # The carry is donated: the past lives in one buffer on the device, overwritten in place.
        self._advance = core.bind(partial(core.advance, num_steps=num_steps), loaded.world, donate_argnums=1)
        self._play = core.bind(_play_all(num_steps), loaded.world)
        self._start = cache(self._bundled_start)  # there are few, and each is shown often

    def scene(self, options: Mapping[str, Any]) -> Scene | Snapshot | None:
        """Where `reset`'s options say to begin; None: nothing said.

        Raises:
            ValueError: other options than {"context", "actions"} or {"state"}, or what doesn't fit the world.
        """
        if not options:
            return None
        if set(options) == {"state"}:
            return self._checked_beginning(options["state"])
        if set(options) == {"context", "actions"}:
            return self.encode(options["context"], options["actions"])
        raise ValueError(f"reset options are 'context' and 'actions', or 'state' alone; got {sorted(options)}")

    def begin(self, rng: np.random.Generator, scene: Scene | Snapshot | None) -> Snapshot:
        """The first moment of an episode: of one of the world's own starts if no scene is given.

        Two draws an episode, whatever the scene, so that a given one doesn't shift the stream.
        """
        seed, choice = int(rng.integers(2**31)), int(rng.integers(len(self.starts.latents)))
        if isinstance(scene, Snapshot):
            return scene
        context, actions, frame, variables = scene or self._start(choice)
        key = np.asarray(jax.random.key_data(jax.random.key(seed)))
        return Snapshot(self.game, context, actions, key, frame, variables)

    def encode(self, context: npt.ArrayLike, actions: npt.ArrayLike) -> Scene:
        """The scene of real frames.

        Raises:
            ValueError: not uint8 `[n, H, W, 3]`, or not n - 1 actions of the game.
        """
        frames, given = np.asarray(context), np.asarray(actions)
        n, shape = self.context_length, (self.context_length, *self.game.resolution, 3)
        if frames.shape != shape or frames.dtype != np.uint8:
            raise ValueError(f"context must be uint8 of shape {shape}, got {frames.dtype} {frames.shape}")
        if given.shape != (n - 1,) or not self.are_actions(given):
            raise ValueError(f"actions must be {n - 1} integers of {self._choices}, got {given.tolist()}")
        return self._scene(self._encode(frames, given.astype(np.int32)))

    def are_actions(self, array: npt.NDArray[Any]) -> bool:
        """Whether all of an array are integers that name an action."""
        return array.dtype.kind in "iu" and bool(((array >= 0) & (array < len(self.game.action_names))).all())

    def advance(
        self, carry: Carry, action: int, context_noise: float
    ) -> tuple[npt.NDArray[np.uint8], Carry, StepOutcome]:
        """`core.advance`; `carry` is used up, the frame is the host's."""
        frame, carry, outcome = self._advance(carry, np.int32(action), context_noise=np.float32(context_noise))
        return np.array(frame), carry, outcome

    def branch(
        self, snapshot: Snapshot, actions: npt.ArrayLike, context_noise: float, seed: int | None = None
    ) -> Branches:
        """The futures of a snapshot under N actions, or N rows of them; see `NeuralDoom.branch`."""
        rows = np.asarray(actions)
        if rows.ndim not in (1, 2) or rows.size == 0 or not self.are_actions(rows):
            raise gym.error.InvalidAction(
                f"branch takes integers of {self._choices}, [N] or [N, t]; got {rows.dtype} {rows.shape}"
            )
        snapshot.require(self.game, self.context_shape)
        keys, root = _keys(snapshot, len(rows), seed), carry_of(snapshot).state
        steps = rows.reshape(len(rows), -1).astype(np.int32)
        frames, carries, outcome = jax.device_get(self._play(keys, root, steps, np.float32(context_noise)))
        elapsed, ended = snapshot.elapsed_steps + steps.shape[1], snapshot.ended | outcome.terminated.any(axis=1)
        after = snapshots_of(self.game, carries, frames[:, -1], outcome.variables[:, -1], elapsed, ended)
        if rows.ndim == 1:
            frames, outcome = jax.tree.map(lambda array: array[:, 0], (frames, outcome))
        reward, terminated, variables, probability = outcome
        return Branches(frames, reward, terminated, probability, variables, after)

    @property
    def _choices(self) -> str:
        return f"0..{len(self.game.action_names) - 1}"

    def _checked_beginning(self, state: Any) -> Snapshot:
        if not isinstance(state, Snapshot):
            raise TypeError(f"options['state'] must be a Snapshot, from get_state() or Snapshot.load(), got {state!r}")
        if state.ended:
            raise SnapshotError("the snapshot's episode has ended: begin from one that was taken before its last step")
        return state.require(self.game, self.context_shape)

    def _bundled_start(self, choice: int) -> Scene:
        latents, actions = self.starts.latents[choice], self.starts.actions[choice]
        return self._scene(DreamState(jnp.asarray(latents), jnp.asarray(actions)))

    def _scene(self, state: DreamState) -> Scene:
        return Scene(*map(np.asarray, (*state, *self._observe(state))))


def carry_of(snapshot: Snapshot) -> Carry:
    """What the device carries on from a snapshot, still on the host."""
    key, context, actions = cast(tuple[jax.Array, ...], (snapshot.key, snapshot.context, snapshot.actions))
    return Carry(key, DreamState(context, actions))


def snapshots_of(
    game: GameConfig,
    carries: Carry,
    frames: npt.NDArray[np.uint8],
    variables: npt.NDArray[np.float32],
    elapsed_steps: npt.ArrayLike,
    ended: npt.NDArray[np.bool_],
) -> tuple[Snapshot, ...]:
    """The snapshots of N dreams; every array `[N, ...]`."""
    rows = jax.device_get((carries.state.context, carries.state.actions, carries.key))
    elapsed = np.broadcast_to(elapsed_steps, len(frames)).tolist()
    return tuple(
        Snapshot(game, context, actions, key, frame, values, steps, over)
        for context, actions, key, frame, values, steps, over in zip(
            *rows, frames, variables, elapsed, ended.tolist(), strict=True
        )
    )


def on_device(snapshot: Snapshot) -> Carry:
    """A carry of one dream, free to be donated."""
    carry: Carry = jax.tree.map(lambda array: jnp.array(array, copy=True), carry_of(snapshot))
    return carry


def _play_all(num_steps: int) -> Any:
    """`core.play` of N rows of actions from one state, each with a key of its own."""

    def play_all(world: Any, keys: Any, root: DreamState, actions: Any, context_noise: Any) -> Any:
        def one(key: Any, row: Any) -> Any:
            return core.play(world, Carry(key, root), row, num_steps=num_steps, context_noise=context_noise)

        return jax.vmap(one)(keys, actions)

    return play_all


def _keys(snapshot: Snapshot, branches: int, seed: int | None) -> npt.NDArray[np.uint32]:
    if seed is None:
        return np.broadcast_to(snapshot.key, (branches, *snapshot.key.shape))
    return np.asarray(jax.random.key_data(jax.random.split(jax.random.key(seed), branches)))
