"""Many dreams as PettingZoo's agents, each in a dream of its own: for multi-agent libraries, not a multi-player game.

The agents have the world model in common, and nothing that happens: none sees another. What makes them one environment
is that one compiled program steps them all. A world that two players share would take a model trained on two players'
frames; it would have this interface.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import EzPickle, seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import iterate
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils.conversions import parallel_to_aec

from neural_env.envs.infos import info_of
from neural_env.envs.snapshot import Snapshot
from neural_env.envs.vector import NeuralDoomVector
from neural_env.envs.window import Window

Frame = npt.NDArray[np.uint8]
_OPTIONS = ("context", "actions", "state")  # what reset hands on


class SeparateDreams(ParallelEnv[str, Any, Any], EzPickle):
    """N agents, `dream_0` and so on, each in a dream of its own: they don't share a world.

    Agent i lives through what `NeuralDoom-v0` shows after `reset(seed=seed + i)`, up to rounding. Who dies or runs out
    of time leaves `agents`; its row of the batch is stepped on, unseen, until the next reset.

    Arguments:
        num_agents: N, at least 1.
        render_mode: None, "rgb_array" (one picture of all screens; the dead show their last one) or "human".
        **world: `scenario`, `checkpoint`, `max_episode_steps` and whatever else `NeuralDoomVector` takes.

    `reset(options=...)` takes "context" with "actions", or "state", as the vector environment does; "state" may also be
    a dict with a snapshot for each agent. As PettingZoo's own tests ask, options that mean nothing here are ignored.

    Raises `ValueError` for arguments out of range and `CheckpointError` (a `ValueError`) for an unusable checkpoint.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # declared so by PettingZoo
        "name": "neural_doom_separate_dreams_v0",
        "render_modes": ["human", "rgb_array"],
        "is_parallelizable": True,
    }

    def __init__(self, num_agents: int = 2, render_mode: str | None = None, **world: Any) -> None:
        EzPickle.__init__(self, num_agents, render_mode, **world)
        if isinstance(num_agents, bool) or not isinstance(num_agents, int) or num_agents < 1:
            raise ValueError(f"num_agents must be an integer of at least 1, got {num_agents!r}")
        modes = self.metadata["render_modes"]
        if render_mode not in (None, *modes):
            raise ValueError(f"unknown render_mode {render_mode!r}; choose None or one of {modes}")
        self._dreams = NeuralDoomVector(
            num_agents,
            render_mode=render_mode and "rgb_array",
            autoreset_mode=AutoresetMode.NEXT_STEP,
            **world,
        )
        self.render_mode = render_mode
        self.metadata = {**type(self).metadata, "render_fps": self._dreams.metadata["render_fps"]}
        self.possible_agents = [f"dream_{i}" for i in range(num_agents)]
        self.agents: list[str] = []
        self.observation_spaces = self._each(self._dreams.single_observation_space)
        self.action_spaces = self._each(self._dreams.single_action_space)
        self._random = seeding.np_random()[0]  # draws the seeds of resets without one
        self._screens: dict[str, Frame] = {}  # what each agent saw last
        self._window: Window | None = None

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """The space of what this agent sees: as in `NeuralDoom`, and its own object."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """The space of what this agent may do: as in `NeuralDoom`, and its own object."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Begin an episode for every agent.

        Args:
            seed: agent i gets `seed + i`. None: seeds from the stream that the last one began.
            options: see the class.
        """
        if seed is not None:
            self._random = seeding.np_random(seed)[0]
        seeds = seed if seed is not None else self._random.integers(2**31, size=len(self.possible_agents)).tolist()
        self.agents = []  # unless the reset comes to its end
        observations, infos = self._dreams.reset(seed=seeds, options=self._known(options or {}))
        self.agents = list(self.possible_agents)
        self._show()
        return self._by_agent(self._rows(observations)), self._infos(infos)

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """One step of every agent that lives.

        Raises `gym.error.ResetNeeded` if none does, `InvalidAction` if `actions` has not one for each of them.
        """
        if not self.agents:
            raise gym.error.ResetNeeded("no agent has an episode to step: call reset() first")
        if set(actions) != set(self.agents):
            raise gym.error.InvalidAction(f"step takes one action for each of {self.agents}, got {sorted(actions)}")
        chosen = [actions.get(agent, 0) for agent in self.possible_agents]  # the dead do nothing, and nobody looks
        observations, rewards, terminated, truncated, infos = self._dreams.step(np.array(chosen))
        result = (
            self._by_agent(self._rows(observations)),
            self._by_agent(rewards.tolist()),
            self._by_agent(terminated.tolist()),
            self._by_agent(truncated.tolist()),
            self._infos(infos),
        )
        self._show()
        over = dict(zip(self.possible_agents, terminated | truncated, strict=True))
        self.agents = [agent for agent in self.agents if not over[agent]]
        return result

    def get_state(self) -> dict[str, Snapshot]:
        """The present moment of each agent that lives; `reset(options={"state": ...})` takes it back."""
        return self._by_agent(self._dreams.get_state())

    def render(self) -> Frame | None:
        """All screens in one picture, uint8 `[H, W, 3]`, in mode "rgb_array"; None in the other modes."""
        if self.render_mode != "rgb_array":
            return None
        if not self._screens:
            raise gym.error.ResetNeeded("render() needs screens: call reset() first")
        return self._picture()

    def close(self) -> None:
        """Let go of the world, and of the window; may be called again."""
        self.agents = []
        self._dreams.close()
        if self._window is not None:
            self._window.close()
            self._window = None

    def _each(self, space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
        return {agent: copy.deepcopy(space) for agent in self.possible_agents}

    def _known(self, options: dict[str, Any]) -> dict[str, Any]:
        known = {name: options[name] for name in _OPTIONS if name in options}
        if isinstance(known.get("state"), Mapping):
            known["state"] = [known["state"][agent] for agent in self.possible_agents]
        return known

    def _rows(self, observations: Any) -> list[Any]:
        return list(iterate(self._dreams.observation_space, observations))

    def _by_agent(self, rows: Sequence[Any]) -> dict[str, Any]:
        everyone = zip(self.possible_agents, rows, strict=True)
        return {agent: row for agent, row in everyone if agent in self.agents}

    def _infos(self, infos: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return self._by_agent([info_of(infos, i) for i in range(len(self.possible_agents))])

    def _show(self) -> None:
        """Take the new screens of those that live, and in mode "human" show them."""
        screens = self._dreams.render()
        if screens is None:
            return
        self._screens = {**self._screens, **self._by_agent(screens)}
        if self.render_mode == "human":
            picture = self._picture()
            self._window = self._window or Window(str(self), picture.shape[:2], self.metadata["render_fps"])
            self._window.show(picture)

    def _picture(self) -> Frame:
        """The screens in a grid as square as can be, from left to right and top to bottom; black where none is."""
        screens = np.stack([self._screens[agent] for agent in self.possible_agents])
        n, height, width, _ = screens.shape
        columns = math.isqrt(n - 1) + 1
        rows = -(-n // columns)
        black = np.zeros((rows * columns - n, height, width, 3), np.uint8)
        grid = np.concatenate([screens, black]).reshape(rows, columns, height, width, 3)
        return grid.swapaxes(1, 2).reshape(rows * height, columns * width, 3)


def parallel_env(num_agents: int = 2, **arguments: Any) -> SeparateDreams:
    """N agents that step at once; the arguments are those of `SeparateDreams`."""
    return SeparateDreams(num_agents, **arguments)


def env(num_agents: int = 2, **arguments: Any) -> AECEnv[str, Any, Any]:
    """N agents in turn: PettingZoo's AEC form of the same, by its own converter."""
    return parallel_to_aec(parallel_env(num_agents, **arguments))
