"""A trained agent on disk, and as a player of episodes.

weights.safetensors  every array of the network, float32
config.json          sizes, game, provenance: how it was trained and how well it played meanwhile
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from neural_env.agents.policy import ActorCritic, Memory, PolicyConfig, act, act_greedily, begin, observe
from neural_env.arrays import Frame
from neural_env.checkpoint import CheckpointError, from_json, load_module, save_module
from neural_env.data.policies import Sense
from neural_env.game import GameConfig
from neural_env.version import __version__

FORMAT = "neural_env.agent/1"
_CONFIG, _WEIGHTS = "config.json", "weights.safetensors"


@dataclass(frozen=True)
class Agent:
    """A network with all that is known about it."""

    policy: ActorCritic
    game: GameConfig
    provenance: dict[str, Any]


def save_agent(agent: Agent, folder: Path) -> None:
    """Writes an agent; config.json comes last, so that a folder cut short is no agent."""
    save_module(agent.policy, folder / _WEIGHTS)
    content = {
        "format": FORMAT,
        "policy": asdict(agent.policy.config),
        "game": asdict(agent.game),
        "provenance": {"code_version": __version__, **agent.provenance},
    }
    temporary = folder / (_CONFIG + ".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(folder / _CONFIG)


def read_agent(folder: Path | str) -> Agent:
    """The agent in `folder`, or in the `policy` folder of a training run; raises `CheckpointError`."""
    folder = Path(folder)
    folder = folder / "policy" if (folder / "policy" / _CONFIG).is_file() else folder
    content = _config(folder / _CONFIG)
    try:
        config, game = from_json(PolicyConfig, content["policy"]), from_json(GameConfig, content["game"])
        # JSON has no tuples.
        config = PolicyConfig(**{**asdict(config), "convolutions": tuple(map(tuple, config.convolutions))})
        policy = nnx.eval_shape(lambda: new_policy(config, game))
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(folder / _CONFIG, f"it describes no agent ({error}): restore the file") from error
    return Agent(load_module(policy, folder / _WEIGHTS), game, content["provenance"])


def new_policy(config: PolicyConfig, game: GameConfig, seed: int = 0) -> ActorCritic:
    """An untrained network for that game."""
    return ActorCritic(config, len(game.action_names), game.resolution, rngs=nnx.Rngs(seed))


def _config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        cure = "give a folder made by `neural-env train agent`"
        raise CheckpointError(path, f"there is no agent here: {cure}") from None
    except ValueError as error:
        raise CheckpointError(path, f"it is not JSON ({error}): restore the file") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise CheckpointError(path, f"its format is {found!r}, this version reads {FORMAT!r}")
    return dict(content)


class AgentPolicy:
    """A `neural_env.data.policies.Policy` that plays as the agent does.

    Arguments:
        agent: who plays.
        greedy: whether it takes its likeliest action, or draws one with the probabilities it gives (as in training).
    """

    def __init__(self, agent: Agent, *, greedy: bool = False) -> None:
        self.agent = agent
        self.greedy = greedy
        self._rng = np.random.default_rng(0)
        self._memory: Memory | None = None
        self._last: np.ndarray | None = None
        self._begin = jax.jit(begin)
        self._next = jax.jit(_greedy if greedy else _drawn)

    @property
    def name(self) -> str:
        """For example `agent(take_cover, updates=300, sampled)`."""
        updates = self.agent.provenance.get("updates", "?")
        return f"agent({self.agent.game.scenario}, updates={updates}, {'greedy' if self.greedy else 'sampled'})"

    @property
    def version(self) -> int:
        """Updates that it has had."""
        return int(self.agent.provenance.get("updates", 0))

    @property
    def skill(self) -> float | None:
        """Its mean return in its last episodes of training; None if it had none."""
        skill = self.agent.provenance.get("skill")
        return None if skill is None else float(skill)

    @property
    def sees(self) -> tuple[Sense, ...]:
        """The screen, and the map if it was trained with it."""
        return self.agent.policy.config.sees

    def reset(self, rng: np.random.Generator) -> None:
        """Forget the last episode and draw from `rng` from now on."""
        self._rng = rng
        self._memory = self._last = None

    def act(self, frame: Frame, variables: np.ndarray) -> int:
        """The next action; sees the frame alone."""
        policy, frames = self.agent.policy, frame[None]
        if self._memory is None or self._last is None:
            self._memory = self._begin(policy, frames)
            self._last = np.full(1, -1, np.int32)  # not read: the episode begins
        self._memory, self._last = self._next(policy, self._memory, frames, self._last, int(self._rng.integers(2**31)))
        return int(np.asarray(self._last)[0])


def load_agent(folder: Path | str, *, greedy: bool = False) -> AgentPolicy:
    """The agent in `folder` as a player; raises `CheckpointError`."""
    return AgentPolicy(read_agent(folder), greedy=greedy)


def _seen(policy: ActorCritic, memory: Memory, frames: Any, last: Any) -> Memory:
    """With the present frame; at the start, `begin` has put it there already and `last` is -1."""
    following = observe(policy, memory, frames, last, last < -1)
    seen: Memory = jax.tree.map(lambda old, new: jnp.where(last[0] < 0, old, new), memory, following)
    return seen


def _greedy(policy: ActorCritic, memory: Memory, frames: Any, last: Any, seed: int) -> tuple[Memory, Any]:
    memory = _seen(policy, memory, frames, last)
    return memory, act_greedily(policy, memory)


def _drawn(policy: ActorCritic, memory: Memory, frames: Any, last: Any, seed: int) -> tuple[Memory, Any]:
    memory = _seen(policy, memory, frames, last)
    return memory, act(policy, memory, jax.random.key(seed)).actions
