"""Many dreams at once as a Gymnasium vector environment: one compiled step, bookkeeping on the host.

Dream i is what a `NeuralDoom` with the same seed would show, and the whole is what `SyncVectorEnv` would make of N of
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import EzPickle, seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

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
from neural_env.envs.snapshot import Snapshot
from neural_env.game import TICS_PER_SECOND

if TYPE_CHECKING:
    from neural_env.envs.batch import Batch
    from neural_env.envs.dream import Dream, Scene

Frames = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Infos = dict[str, Any]


class NeuralDoomVector(Dialled, gym.vector.VectorEnv[Any, npt.NDArray[np.int64], npt.NDArray[Any]], EzPickle):
    """N dreams of Doom, stepped as one; `gym.make_vec("NeuralDoom-v0", num_envs=N)`.

    The model is loaded and compiled at the first reset. Several local devices share the dreams if they divide N.

    Arguments:
        num_envs: N, at least 1.
        scenario, checkpoint, num_steps, context_noise, guidance, temperature, termination, observation,
            max_episode_steps, frame_skip, device: as for `NeuralDoom`. `context_noise` and `temperature` may be `[N]`
            arrays, and set between steps. A device without a number, such as "gpu", is all of its kind.
        render_mode: None or "rgb_array", a tuple of N frames.
        autoreset_mode: Gymnasium's "NextStep", "SameStep" or "Disabled", or the enum.

    `reset` takes a seed for all (dream i gets `seed + i`), a list of N, or None (each goes on with its own stream), and

    * `options={"reset_mask": mask}`: only these dreams begin anew, bool `[N]`;
    * `options={"context": frames, "actions": actions}`: all begin from the caller's own real frames;
    * `options={"state": snapshot}`: all begin from a kept moment, or each from its own in a sequence of N.

    Raises `ValueError` for arguments out of range and `CheckpointError` (a `ValueError`) for an unusable checkpoint.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]  # gymnasium declares it an instance variable
        "render_modes": ["rgb_array"],
        "render_fps": TICS_PER_SECOND / 4,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    _spec: EnvSpec | None = None

    def __init__(
        self,
        num_envs: int = 1,
        scenario: str | None = None,
        checkpoint: str | None = None,
        num_steps: int | None = None,
        context_noise: float | npt.ArrayLike = 0.0,
        guidance: float = 1.0,
        temperature: float | npt.ArrayLike = 1.0,
        termination: str = "sample",
        observation: str = "rgb",
        max_episode_steps: int | None = None,
        frame_skip: int | None = None,
        device: str | None = None,
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        **unknown: Any,
    ) -> None:
        refuse_unknown(type(self), unknown)
        EzPickle.__init__(
            self,
            num_envs,
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
            render_mode,
            autoreset_mode,
        )
        if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
            raise ValueError(f"num_envs must be an integer of at least 1, got {num_envs!r}")
        _check_render_mode(render_mode, self.metadata["render_modes"])
        one_of("observation", observation, OBSERVATIONS)
        check_device(device)
        self.world = read_world(scenario, checkpoint, frame_skip)
        self.game = game = self.world.game
        self.action_names, self.variable_names = game.action_names, game.variable_names
        self.num_envs, self.observation, self.device = num_envs, observation, device
        self._turn(num_steps, context_noise, guidance, temperature, termination)  # type: ignore[arg-type]  # checked
        self.max_episode_steps = time_limit(max_episode_steps, game)
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.render_mode = render_mode
        self.metadata = {  # type: ignore[misc]
            **type(self).metadata,
            "render_fps": TICS_PER_SECOND / game.frame_skip,
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_observation_space = observation_space(observation, self.world)
        self.single_action_space = gym.spaces.Discrete(len(game.action_names))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._streams: list[tuple[np.random.Generator, int] | None] = [None] * num_envs  # with their seeds
        self._batch: Batch | None = None
        self._ready = False  # whether all dreams are somewhere
        self._shown = self._nothing()  # [N, ...] frames, or latents where these are observed
        self._screens: Frames | None = None  # the frames of these latents, once somebody asked for them
        self._variables: npt.NDArray[np.float32] = np.zeros((num_envs, len(game.variable_names)), np.float32)
        self._elapsed = np.zeros(num_envs, np.int64)  # steps of each episode
        self._ended = np.zeros(num_envs, np.bool_)  # which episodes are over and not begun anew

    @property  # type: ignore[misc]  # read-only, as SyncVectorEnv's
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The random stream of each dream."""
        return tuple(self._stream(i)[0] for i in range(self.num_envs))

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of each dream's stream."""
        return tuple(self._stream(i)[1] for i in range(self.num_envs))

    @property
    def spec(self) -> EnvSpec | None:
        """How `make_vec` made this, fit for JSON."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None and "autoreset_mode" in spec.kwargs:  # make_vec keeps the enum, JSON has none
            spec.kwargs["autoreset_mode"] = self.autoreset_mode.value
        self._spec = spec

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Infos]:
        """Begin an episode in all dreams, or in those of `options["reset_mask"]`.

        Raises `ValueError` or `TypeError` for seeds, masks and options that don't fit.
        """
        self._require_open()
        rest = dict(options or {})
        mask = _reset_mask(rest.pop("reset_mask", None), self.num_envs)
        if not (self._ready or mask.all()):
            raise gym.error.ResetNeeded("some dreams were never begun: call reset() without a mask first")
        for i, number in enumerate(_seeds(seed, self.num_envs)):
            if mask[i] and number is not None:
                self._streams[i] = seeding.np_random(number)
        self._begin(mask, rest)
        self._ready = True
        return self._observations(), self._infos(mask)

    def step(self, actions: npt.ArrayLike) -> tuple[Any, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], Infos]:
        """One step of every dream: `[N]` rewards (float64), terminations and truncations.

        An episode that was over begins anew instead ("NextStep"), begins anew after its last step ("SameStep", with
        `infos["final_obs"]` and `["final_info"]`), or must have been reset ("Disabled").

        Raises `gym.error.ResetNeeded`, `ClosedEnvironmentError` and `InvalidAction`.
        """
        self._require_open()
        self._require_running()
        chosen = self._checked(actions)
        self._ready = False  # unless the step comes to its end
        self._shown, rewards, terminated, self._variables = self._loaded_batch().step(chosen, self.dials())
        self._screens = None
        self._elapsed += 1
        result = self._after_step(rewards.astype(np.float64), terminated, self._timed_out() & ~terminated)
        self._ready = True
        return result

    def get_state(self) -> tuple[Snapshot, ...]:
        """The present moment of each dream; `reset(options={"state": ...})` takes them back."""
        self._require_open()
        self._require_ready()
        from neural_env.envs.dream import snapshots_of

        carries = self._loaded_batch().carries
        return snapshots_of(self.game, carries, self._frames(), self._variables, self._elapsed, self._ended)

    def render(self) -> tuple[Frames, ...] | None:
        """N screens, uint8 `[H, W, 3]`, in mode "rgb_array"; None in mode None."""
        if self.render_mode is None:
            return None
        self._require_open()
        self._require_ready()
        return tuple(self._frames().copy())

    def close_extras(self, **kwargs: Any) -> None:
        """Let go of the world."""
        self._batch = None

    def _after_step(
        self, rewards: npt.NDArray[np.float64], terminated: Mask, truncated: Mask
    ) -> tuple[Any, npt.NDArray[np.float64], Mask, Mask, Infos]:
        """What `step` returns, after the episodes have begun anew that the mode begins."""
        over = self._ended  # by the step before; only in NEXT_STEP is any left: they begin instead of stepping
        rewards[over], terminated[over], truncated[over] = 0.0, False, False
        self._ended = terminated | truncated
        final: Infos = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            over, final = self._ended, self._final(self._ended)
        self._begin(over, {})
        return self._observations(), rewards, terminated, truncated, {**final, **self._infos(_all(self.num_envs))}

    def _begin(self, mask: Mask, options: dict[str, Any]) -> None:
        """Put the dreams of the mask at the start of an episode each."""
        if not mask.any():
            return
        dream = self._loaded_batch().dream
        scenes = self._scenes(dream, mask, options)
        beginnings = {i: dream.begin(self._stream(i)[0], scene) for i, scene in scenes.items()}
        self._loaded_batch().place(beginnings)
        self._screens = None
        for i, first in beginnings.items():
            self._shown[i] = first.context[-1] if self.observation == "latent" else first.frame
            self._variables[i], self._elapsed[i] = first.variables, first.elapsed_steps
        self._ended = self._ended & ~mask

    def _nothing(self) -> npt.NDArray[Any]:
        if self.observation == "latent":
            return np.zeros((self.num_envs, *self.world.latent_shape), np.float32)
        return np.zeros((self.num_envs, *self.game.resolution, 3), np.uint8)

    def _frames(self) -> Frames:
        """The present screens: decoded now, where latents are observed."""
        if self.observation != "latent":
            return self._shown
        if self._screens is None:
            self._screens = self._loaded_batch().screens()
        return self._screens

    def _observations(self, rows: Any = slice(None)) -> Any:
        """What the agents of these rows see, theirs to write to."""
        if self.observation != "dict":
            return self._shown[rows].copy()
        seen = {"screen": self._shown[rows].copy(), "gamevariables": self._variables[rows].copy()}
        return {name: seen[name] for name in self.single_observation_space.spaces}  # type: ignore[attr-defined]

    def _scenes(self, dream: Dream, mask: Mask, options: dict[str, Any]) -> dict[int, Scene | Snapshot | None]:
        rows, state = np.flatnonzero(mask).tolist(), options.get("state")
        if not isinstance(state, Sequence):
            return dict.fromkeys(rows, dream.scene(options))
        if len(state) != self.num_envs:
            raise ValueError(f"options['state'] must be one Snapshot or {self.num_envs} of them, got {len(state)}")
        return {i: dream.scene({**options, "state": state[i]}) for i in rows}

    def _stream(self, i: int) -> tuple[np.random.Generator, int]:
        stream = self._streams[i] or seeding.np_random()
        self._streams[i] = stream
        return stream

    def _timed_out(self) -> Mask:
        limit = self.max_episode_steps
        return np.zeros(self.num_envs, np.bool_) if limit is None else self._elapsed >= limit

    def _infos(self, mask: Mask) -> Infos:
        """What `VectorEnv._add_info` makes of the single environments' infos in these rows."""
        infos: Infos = {}
        for name, column in zip(self.variable_names, self._variables.T, strict=True):
            infos[name] = np.where(mask, column.astype(np.float64), 0.0)
            infos[f"_{name}"] = mask.copy()
        return infos

    def _final(self, mask: Mask) -> Infos:
        """The last observations and infos of the episodes that end in these rows, before they are gone."""
        if not mask.any():
            return {}
        observations = np.full(self.num_envs, None, object)
        for i in np.flatnonzero(mask):
            observations[i] = self._observations(i)
        return {
            "final_obs": observations,
            "_final_obs": mask.copy(),
            "final_info": self._infos(mask),
            "_final_info": mask.copy(),
        }

    def _checked(self, actions: npt.ArrayLike) -> npt.NDArray[np.int32]:
        given, n = np.asarray(actions), len(self.action_names)
        if given.shape != (self.num_envs,) or given.dtype.kind not in "iu" or not ((given >= 0) & (given < n)).all():
            names = ", ".join(f"{i} {name}" for i, name in enumerate(self.action_names))
            raise gym.error.InvalidAction(f"actions must be {self.num_envs} integers out of {names}; got {actions!r}")
        return given.astype(np.int32)

    def _require_open(self) -> None:
        if self.closed:
            raise gym.error.ClosedEnvironmentError("this environment was closed: make a new one")

    def _require_ready(self) -> None:
        if not self._ready:
            raise gym.error.ResetNeeded("there are no episodes yet: call reset() first")

    def _require_running(self) -> None:
        self._require_ready()
        if self.autoreset_mode is AutoresetMode.DISABLED and self._ended.any():
            raise gym.error.ResetNeeded(
                f"the episodes of {np.flatnonzero(self._ended).tolist()} are over and nothing resets them in mode "
                'Disabled: call reset(options={"reset_mask": terminations | truncations})'
            )

    def _loaded_batch(self) -> Batch:
        if self._batch is None:
            from neural_env.envs.batch import Batch
            from neural_env.envs.dream import Dream

            dream = Dream(self.world.checkpoint, self.observation != "latent", self.device)
            self._batch = Batch(dream, self.num_envs)
        return self._batch


def _all(size: int) -> Mask:
    return np.ones(size, np.bool_)


def _check_render_mode(render_mode: str | None, modes: list[str]) -> None:
    if render_mode is not None and render_mode not in modes:
        raise ValueError(
            f"unknown render_mode {render_mode!r}; choose None or one of {modes} "
            "(gymnasium.wrappers.vector.HumanRendering shows the latter in a window)"
        )


def _autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        raise ValueError(
            f"unknown autoreset_mode {mode!r}; choose one of {[m.value for m in AutoresetMode]}"
        ) from error


def _reset_mask(mask: Any, size: int) -> Mask:
    if mask is None:
        return _all(size)
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError(f"options['reset_mask'] must be a NumPy array of bool, got {mask!r}: np.array(mask, bool)")
    if mask.shape != (size,) or not mask.any():
        raise ValueError(f"options['reset_mask'] must have shape ({size},) and a true entry, got {mask}")
    return mask


def _seeds(seed: int | Sequence[int | None] | None, size: int) -> list[int | None]:
    if seed is None:
        return [None] * size
    if isinstance(seed, (int, np.integer)):
        return [int(seed) + i for i in range(size)]
    if len(seed) != size:
        raise ValueError(f"a list of seeds must have {size} entries, one for each dream, got {len(seed)}")
    return [None if number is None else int(number) for number in seed]
