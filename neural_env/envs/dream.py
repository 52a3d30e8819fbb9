"""A loaded world with its compiled functions: what `NeuralDoom` steps once and `NeuralDoomVector` many times over.

On the host everything is NumPy, a `Beginning` or a `Snapshot`; on the device a `Carry` is donated from step to step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any, NamedTuple, cast

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from neural_env import checkpoint as files
from neural_env.envs import core
from neural_env.envs.branches import Branches
from neural_env.envs.core import Carry, DreamState, Step
from neural_env.envs.dials import Dials
from neural_env.envs.snapshot import Snapshot, SnapshotError
from neural_env.game import GameConfig
from neural_env.runtime import Untranslatable, chosen
from neural_env.runtime.cache import keep_xlas_programs
from neural_env.world.model import WorldModel

Frame = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class Scene(NamedTuple):
    """A place to begin from: real frames as latents, and what they show."""

    context: Floats  # [n, h, w, c] latents, oldest first
    actions: npt.NDArray[np.int32]  # [n - 1] the actions between them
    frame: Frame | None  # [H, W, 3] the last one; None: not decoded
    variables: Floats  # [v] at the last one


class Beginning(NamedTuple):
    """The first moment of an episode: a snapshot whose frame may still have to be decoded."""

    context: Floats
    actions: npt.NDArray[np.int32]
    frame: Frame | None
    variables: Floats
    key: npt.NDArray[np.uint32]  # [k] the randomness of what follows
    elapsed_steps: int = 0


class Dream:
    """One world and how it is stepped.

    Args:
        checkpoint: name of a bundled world, a folder written by `neural-env bundle`, or `hf://owner/name`.
        decodes: whether what is shown are frames; else latents, and the decoder runs only where a frame is asked for.
        device: a name like "cpu" or "gpu:0"; None: JAX's default.
        runtime: "auto", "xla" or "openvino", see `neural_env.runtime`. What OpenVINO doesn't do (encoding of given
            frames, guidance above 1) XLA does, for which the weights are read when it is first asked for. With "auto",
            a world that has no translation for OpenVINO is XLA's altogether; with "openvino", it is refused when it is
            first stepped.
        streams: with OpenVINO, rows that `advance_rows` steps beside each other.

    Raises:
        CheckpointError: an unusable checkpoint.
        ImportError: OpenVINO is asked for and not installed.
        ValueError: there is no such device, or the runtime doesn't run on it.
    """

    def __init__(
        self,
        checkpoint: str,
        decodes: bool = True,
        device: str | None = None,
        runtime: str = "xla",
        streams: int = 1,
    ):
        keep_xlas_programs()
        self._checkpoint = checkpoint
        self.devices = devices(device)
        self.runtime = chosen(runtime, self.devices[0].platform)
        self.game, self.starts, self.decodes = files.read_game(checkpoint), files.load_starts(checkpoint), decodes
        self.observe: core.Observe = core.screen if decodes else core.latent
        self.context_shape = self.starts.latents.shape[1:]
        self.context_length = self.context_shape[0]
        self._may_fall_back = runtime == "auto"
        self._openvino = self._programs(streams) if self.runtime == "openvino" else None
        self._start = cache(self._bundled_start)  # there are few, and each is shown often
        if self._openvino is None:
            _ = self.world  # an unusable checkpoint is found now

    @cached_property
    def world(self) -> WorldModel:
        """The model, on the first device."""
        world: WorldModel = jax.device_put(files.load(self._checkpoint).world, self.devices[0])
        return world

    @cached_property
    def _screen(self) -> Any:
        return core.bind(core.screen, self.world)

    @cached_property
    def _variables(self) -> Any:
        return core.bind(core.variables, self.world)

    @cached_property
    def _encode(self) -> Any:
        return core.bind(core.encode_context, self.world)

    @cached_property
    def _advance(self) -> Any:
        # The carry is donated: the past lives in one buffer on the device, overwritten in place.
        return core.bind(core.advance, self.world, donate_argnums=1, static_argnums=4)

    @cached_property
    def _play(self) -> Any:
        return core.bind(_play_all, self.world)

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

    def begin(self, rng: np.random.Generator, scene: Scene | Snapshot | None) -> Beginning | Snapshot:
        """The first moment of an episode: of one of the world's own starts if no scene is given.

        Two draws an episode, whatever the scene, so that a given one doesn't shift the stream.
        """
        seed, choice = int(rng.integers(2**31)), int(rng.integers(len(self.starts.latents)))
        if isinstance(scene, Snapshot):
            return scene
        return Beginning(*(scene or self._start(choice)), np.asarray(jax.random.key_data(jax.random.key(seed))))

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

    def advance(self, carry: Carry, action: int, dials: Dials) -> tuple[npt.NDArray[Any], Step]:
        """`core.advance`; `carry` is used up, the observation is the host's."""
        if _is_plain(dials) and (after := self._by_openvino("advance", carry, action, dials)) is not None:
            return cast(npt.NDArray[Any], after.observation), after
        after = self._advance(carry, np.int32(action), dials.on_host(), self.observe)
        return np.array(after.observation), after

    def advance_rows(self, carries: Sequence[Carry], actions: Sequence[int], dials: Sequence[Dials]) -> list[Step]:
        """`advance` of several dreams; each is what it would be alone."""
        if _is_plain(dials[0]) and (stepped := self._by_openvino("advance_rows", carries, actions, dials)) is not None:
            return cast(list[Step], stepped)
        rows = zip(carries, actions, dials, strict=True)
        return [jax.device_get(self.advance(carry, action, dial)[1]) for carry, action, dial in rows]

    def screen(self, state: DreamState) -> Frame:
        """The present frame of a state."""
        shown = self._by_openvino("screen", state)
        return np.array(self._screen(state) if shown is None else shown)

    def place(self, moment: Beginning | Snapshot) -> Carry:
        """A carry of one dream, free to be donated, where the runtime wants it."""
        where = self.devices[0]

        def copied(array: Any) -> Any:
            return np.array(array) if self._openvino else jax.device_put(jnp.array(array, copy=True), where)

        carry: Carry = jax.tree.map(copied, carry_of(moment))
        return carry

    def branch(self, snapshot: Snapshot, actions: npt.ArrayLike, dials: Dials, seed: int | None = None) -> Branches:
        """The futures of a snapshot under N actions, or N rows of them; see `NeuralDoom.branch`."""
        rows = self._rows_of_actions(actions)
        checked(snapshot, "branch").require(self.game, self.context_shape)
        keys, root = _keys(snapshot, len(rows), seed), carry_of(snapshot).state
        steps = rows.reshape(len(rows), -1).astype(np.int32)
        played = jax.device_get(self._played(keys, root, steps, dials))
        frames, terminated, (variables, probability, _) = played.observation, played.terminated, played.info
        elapsed, ended = snapshot.elapsed_steps + steps.shape[1], snapshot.ended | terminated.any(axis=1)
        after = snapshots_of(self.game, played.state, frames[:, -1], variables[:, -1], elapsed, ended)
        result = (frames, played.reward, terminated, probability, variables)
        if rows.ndim == 1:
            result = tuple(array[:, 0] for array in result)
        return Branches(*result, after)

    def _played(self, keys: npt.NDArray[np.uint32], root: DreamState, rows: Any, dials: Dials) -> Step:
        futures = []
        for key, row in zip(keys, rows, strict=True):
            carry = Carry(cast(jax.Array, key), root)
            future = self._by_openvino("rollout", carry, row, dials) if _is_plain(dials) else None
            if future is None:
                played: Step = self._play(keys, root, rows, dials.on_host())
                return played
            futures.append(future)
        together: Step = jax.tree.map(lambda *arrays: np.stack(arrays), *futures)
        return together

    @property
    def _choices(self) -> str:
        return f"0..{len(self.game.action_names) - 1}"

    def _rows_of_actions(self, actions: npt.ArrayLike) -> npt.NDArray[Any]:
        try:
            rows = np.asarray(actions)
        except ValueError as error:  # rows of unequal length
            raise gym.error.InvalidAction(
                f"branch takes integers of {self._choices}, [N] or [N, t]: give all rows one length, got {actions!r}"
            ) from error
        if rows.ndim not in (1, 2) or rows.size == 0 or not self.are_actions(rows):
            raise gym.error.InvalidAction(
                f"branch takes integers of {self._choices}, [N] or [N, t]; got {rows.dtype} {rows.shape}"
            )
        return rows

    def _checked_beginning(self, state: Any) -> Snapshot:
        snapshot = checked(state, "options['state']")
        if snapshot.ended:
            raise SnapshotError("the snapshot's episode has ended: begin from one that was taken before its last step")
        return snapshot.require(self.game, self.context_shape)

    def _bundled_start(self, choice: int) -> Scene:
        latents, actions = self.starts.latents[choice], self.starts.actions[choice]
        return self._scene(DreamState(cast(jax.Array, latents), cast(jax.Array, actions)))

    def _scene(self, state: DreamState) -> Scene:
        frame = self.screen(state) if self.decodes else None
        variables = self._by_openvino("variables", state)
        variables = self._variables(state) if variables is None else variables
        return Scene(np.asarray(state.context), np.asarray(state.actions), frame, np.asarray(variables))

    def _by_openvino(self, what: str, *arguments: Any) -> Any:
        """What OpenVINO makes of it; None: it is XLA's, now or from now on.

        A graph is made before anything is run, so nothing is used up when there can be none.
        """
        if self._openvino is None:
            return None
        try:
            return getattr(self._openvino, what)(*arguments)
        except Untranslatable:
            if not self._may_fall_back:
                raise
            self._openvino, self.runtime = None, "xla"
            return None

    def _programs(self, streams: int) -> Any:
        from neural_env.runtime.openvino import OpenVino

        about, actions = files.fingerprint(self._checkpoint), len(self.game.action_names)
        return OpenVino(lambda: self.world, about, self.starts, actions, self.decodes, streams)


def checked(state: Any, what: str) -> Snapshot:
    """A snapshot as it is.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(state, Snapshot):
        raise TypeError(f"{what} must be a Snapshot, from get_state() or Snapshot.load(), got {state!r}")
    return state


def devices(name: str | None) -> Sequence[jax.Device]:
    """The local devices of a name: "gpu" is all of them, "gpu:1" one, None JAX's default ones.

    Raises:
        ValueError: there is none of that name.
    """
    if name is None:
        return list(jax.local_devices())
    platform, _, index = name.partition(":")
    try:
        found = list(jax.local_devices(backend=platform))
        return [found[int(index)]] if index else found
    except (RuntimeError, IndexError) as error:
        there = [f"{device.platform}:{i}" for i, device in enumerate(jax.local_devices())]
        raise ValueError(f"there is no device {name!r} here: choose one of {there}, or None") from error


def carry_of(moment: Beginning | Snapshot) -> Carry:
    """What the device carries on from a moment, still on the host."""
    key, context, actions = cast(tuple[jax.Array, ...], (moment.key, moment.context, moment.actions))
    return Carry(key, DreamState(context, actions))


def snapshots_of(
    game: GameConfig,
    carries: Carry,
    frames: Frame,
    variables: Floats,
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


def _is_plain(dials: Dials) -> bool:
    """Whether the network is called once a step, which is all that OpenVINO's graphs do."""
    return dials.guidance is None or dials.guidance == 1


def _play_all(world: Any, keys: Any, root: DreamState, actions: Any, dials: Dials) -> Step:
    """`core.rollout` of N rows of actions from one state, each with a key of its own."""
    played: Step = jax.vmap(lambda key, row: core.rollout(world, Carry(key, root), row, dials))(keys, actions)
    return played


def _keys(snapshot: Snapshot, branches: int, seed: int | None) -> npt.NDArray[np.uint32]:
    if seed is None:
        return np.broadcast_to(snapshot.key, (branches, *snapshot.key.shape))
    return np.asarray(jax.random.key_data(jax.random.split(jax.random.key(seed), branches)))
