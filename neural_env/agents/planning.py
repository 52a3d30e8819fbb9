"""What a few dreamed steps say of each action: the dream as its agent's foresight, decision by decision.

Every action is held for a few steps of a dream; its outlook is what they pay, and what the danger at their end costs
(model-predictive control with a terminal value; Chua et al. 2018, arXiv 1805.12114). One dream for each action tells
them apart where an agent that learns from its own steps must first have tried them all, time and again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neural_env.agents.dreams import Beginnings, DreamsConfig, reward_of
from neural_env.agents.host_dreams import step_rows
from neural_env.agents.shaping import Shaping
from neural_env.arrays import Frame, Key
from neural_env.data.policies import Sense
from neural_env.envs.core import DreamState, Step
from neural_env.envs.dials import Dials
from neural_env.envs.dream import Dream
from neural_env.world.model import WorldModel


class Planner:
    """Dreams each action for `ahead` steps.

    Args:
        dream: steps the dreams; nothing is decoded.
        config: what a step pays, and how the agent dreams. What may end a dream is weighed, never drawn.
        dials: of the model.
        shaping: what danger costs, and the discount.
        ahead: steps for which an action is held, at least 1.
    """

    def __init__(self, dream: Dream, config: DreamsConfig, dials: Dials, shaping: Shaping, ahead: int):
        if ahead < 1:
            raise ValueError(f"a plan looks at least 1 step ahead, got {ahead}")
        self.dream, self.ahead = dream, ahead
        self._config, self._shaping = config, shaping
        self._dials = replace(dials, termination="never")
        self._actions = len(dream.game.action_names)
        self._paid, self._left = jax.jit(self._paid_for), jax.jit(shaping.potential)

    def outlooks(self, places: Beginnings, key: Key) -> np.ndarray:
        """The outlook of every action at each of those contexts, float32 `[k, actions]`, in units of reward."""
        count = len(places.variables)
        states = jax.tree.map(self._for_each_action, places.states)
        variables = self._for_each_action(places.variables)
        held = np.tile(np.arange(self._actions, dtype=np.int32), count)
        total, weight = (np.full(len(held), value, np.float32) for value in (0.0, 1.0))
        for key_step in jax.random.split(key, self.ahead):
            # Every action of a moment is dreamed with the same noise: they differ by what they do, not by luck.
            keys = self._for_each_action(jax.random.key_data(jax.random.split(key_step, count)))
            stepped = step_rows(self.dream, states, held, keys, self._dials)
            total += weight * np.asarray(self._paid(stepped, variables))
            weight *= self._shaping.gamma * (1.0 - np.asarray(stepped.info.termination_probability))
            states, variables = stepped.state, np.asarray(stepped.info.variables)
        total += weight * np.asarray(self._left(DreamState(*states)))
        return total.reshape(count, self._actions)

    def _for_each_action(self, rows: Any) -> np.ndarray:
        return np.repeat(np.asarray(rows), self._actions, axis=0)

    def _paid_for(self, stepped: Step, before: Float[Array, "n v"]) -> Float[Array, " n"]:
        return reward_of(self.dream.game, self._config, stepped, before, jnp.zeros(len(before)))


class PlanningPolicy:
    """A `neural_env.data.policies.Policy` that dreams before every move of the real game; nothing in it was trained.

    Arguments:
        planner: what it dreams with.
    """

    version = 0
    skill = None
    sees: tuple[Sense, ...] = ("screen", "variables")

    def __init__(self, planner: Planner) -> None:
        self._planner, self._dream = planner, planner.dream
        self._encode = jax.jit(WorldModel.encode)
        self._latents: list[np.ndarray] = []
        self._actions: list[int] = []
        self._rng = np.random.default_rng(0)

    @property
    def name(self) -> str:
        """For example `planning(take_cover, ahead=3)`."""
        return f"planning({self._dream.game.scenario}, ahead={self._planner.ahead})"

    def reset(self, rng: np.random.Generator) -> None:
        """Forget the last episode and draw dreams from `rng` from now on."""
        self._rng = rng
        self._latents, self._actions = [], []

    def act(self, frame: Frame, variables: np.ndarray) -> int:
        """The action of the best outlook; before the game began, its first frame is thought to have stood still."""
        n = self._dream.context_length
        latent = np.asarray(self._encode(self._dream.world, frame[None]))[0]
        if not self._latents:
            self._latents, self._actions = [latent] * (n - 1), [0] * (n - 1)
        self._latents = [*self._latents[1 - n :], latent]
        past = np.array(self._actions[1 - n :], np.int32)
        state = DreamState(jnp.asarray(np.stack(self._latents)[None]), jnp.asarray(past[None]))
        here = Beginnings(state, jnp.asarray(frame[None]), jnp.asarray(variables, jnp.float32)[None])
        outlooks = self._planner.outlooks(here, jax.random.key(int(self._rng.integers(2**31))))
        action = int(outlooks[0].argmax())
        self._actions.append(action)
        return action
