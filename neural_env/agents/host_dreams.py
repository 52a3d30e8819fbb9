"""Roll-outs in dreams that OpenVINO steps on the host: on a CPU several times as fast as one compiled scan.

Agent, randomness, rewards and new beginnings are those of `ppo.rollout_in_dream` and `dreams.step_dreams`, compiled in
two halves; between them all dreams are stepped, as many beside each other as there are cores.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from neural_env.agents.dreams import Beginnings, Dreams, DreamsConfig, intended, settled
from neural_env.agents.eyes import codes
from neural_env.agents.policy import ActorCritic, Memory, act
from neural_env.agents.ppo import Rollout, lived, rollout_of
from neural_env.agents.shaping import Shaping
from neural_env.envs.core import Carry, DreamState, Step
from neural_env.envs.dials import Dials
from neural_env.envs.dream import Dream
from neural_env.world.parameters import replaced


class HostRollout:
    """`rollout(places, params, dreams, memory, key)`: what `ppo.rollout_in_dream` returns.

    Args:
        dream: steps the dreams; it decodes if the agent looks at frames.
        config: how the agent dreams; its price on disagreement isn't known here and must be 0.
        dials: of the model.
        policy: who plays, but for its parameters.
        n_steps: of each roll-out.
        shaping: what danger is worth; None: nothing.
    """

    def __init__(
        self,
        dream: Dream,
        config: DreamsConfig,
        dials: Dials,
        policy: ActorCritic,
        n_steps: int,
        shaping: Shaping | None = None,
    ):
        self._dream, self._config, self._dials, self._shaping = dream, config, dials, shaping
        self._policy, self._n_steps = policy, n_steps
        self._before, self._after = jax.jit(self._decided), jax.jit(self._settled)
        self._whole = jax.jit(lambda params, *rest: rollout_of(replaced(policy, params), *rest))

    def __call__(
        self, places: Beginnings, params: Any, dreams: Dreams, memory: Memory, key: Any
    ) -> tuple[Dreams, Memory, Rollout]:
        """`n_steps` of every dream."""
        first, rows = memory, []
        for key_step in jax.random.split(key, self._n_steps):
            acted, intent, keys = self._before(params, memory, dreams, key_step)
            stepped = step_rows(self._dream, dreams.states, np.asarray(intent.executed), np.asarray(keys), self._dials)
            dreams, memory, row = self._after(places, params, dreams, memory, acted, intent, stepped)
            rows.append(jax.device_get(row))
        together = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
        return dreams, memory, self._whole(params, first, together, memory)

    def _decided(self, params: Any, memory: Memory, dreams: Dreams, key: Any) -> Any:
        acted = act(replaced(self._policy, params), memory, key)
        intent = intended(self._config, dreams, acted.actions)
        return acted, intent, jax.random.key_data(jax.random.split(intent.key_step, len(acted.actions)))

    def _settled(
        self, places: Beginnings, params: Any, dreams: Dreams, memory: Memory, acted: Any, intent: Any, stepped: Step
    ) -> Any:
        if self._config.observe == "latent":
            stepped = stepped._replace(observation=codes(stepped.observation))
        unsure, game = jnp.zeros(len(acted.actions)), self._dream.game
        after, transition = settled(places, game, self._config, dreams, intent, stepped, unsure, self._shaping)
        following, row = lived(replaced(self._policy, params), memory, acted, transition)
        return after, following, row


def step_rows(dream: Dream, states: DreamState, actions: np.ndarray, keys: np.ndarray, dials: Dials) -> Step:
    """Every dream `[n, ...]`, stepped; every leaf `[n, ...]`, on the host. `keys` are `jax.random.key_data`."""
    contexts, past = np.asarray(states.context), np.asarray(states.actions)
    carries: Any = [Carry(*row) for row in zip(keys, map(DreamState, contexts, past), strict=True)]
    steps = dream.advance_rows(carries, actions.tolist(), [dials] * len(actions))
    plain = [step._replace(state=step.state.state) for step in steps]
    stacked: Step = jax.tree.map(lambda *leaves: np.stack(leaves), *plain)
    return stacked
