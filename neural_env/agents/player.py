"""A trained agent on disk, and as a player of episodes.

weights.safetensors  every array of the network, float32
eyes.safetensors     of an agent that looks at latents: the encoder that makes them of screens
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

from neural_env.agents.eyes import Eyes, blind
from neural_env.agents.foreseer import Foreseer
from neural_env.agents.policy import (
    ActorCritic,
    AnyPolicyConfig,
    ForeseerConfig,
    Memory,
    act,
    act_greedily,
    begin,
    observe,
)
from neural_env.arrays import Frame
from neural_env.checkpoint import CheckpointError, from_json, load_module, save_module
from neural_env.data.policies import Sense
from neural_env.game import GameConfig
from neural_env.version import __version__
from neural_env.world.autoencoder import AutoencoderConfig

FORMAT = "neural_env.agent/2"  # before the second, networks were of one kind
_CONFIG, _WEIGHTS, _EYES = "config.json", "weights.safetensors", "eyes.safetensors"


@dataclass(frozen=True)
class Agent:
    """A network with all that is known about it."""

    policy: ActorCritic
    game: GameConfig
    provenance: dict[str, Any]
    eyes: Eyes | None = None  # between the screen and the network; None: it sees the screen itself


@dataclass(frozen=True)
class _Sizes:
    """What config.json says of the arrays; the network's kind is named there."""

    policy: AnyPolicyConfig
    game: GameConfig


def save_agent(agent: Agent, folder: Path) -> None:
    """Writes an agent; config.json comes last, so that a folder cut short is no agent."""
    save_module(agent.policy, folder / _WEIGHTS)
    if agent.eyes is not None:
        save_module(agent.eyes, folder / _EYES)
    content = {
        "format": FORMAT,
        "policy": asdict(agent.policy.config),
        "eyes": None if agent.eyes is None else asdict(agent.eyes.config),
        "game": asdict(agent.game),
        "provenance": {"code_version": __version__, **agent.provenance},
    }
    temporary = folder / (_CONFIG + ".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(folder / _CONFIG)


def read_agent(folder: Path | str) -> Agent:
    """The agent in `folder`, or in the `policy` folder of a training run; raises `CheckpointError`."""
    folder = _folder(folder)
    content = _config(folder / _CONFIG)
    try:
        sizes = from_json(_Sizes, {"policy": content["policy"], "game": content["game"]})
        config, game = sizes.policy, sizes.game
        encoder = None if content.get("eyes") is None else from_json(AutoencoderConfig, content["eyes"])
        policy = nnx.eval_shape(lambda: new_policy(config, game, eyes=encoder))
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(folder / _CONFIG, f"it describes no agent ({error}): restore the file") from error
    eyes = None
    if encoder is not None:
        eyes = load_module(nnx.eval_shape(lambda: blind(encoder, game.resolution)), folder / _EYES)
    return Agent(load_module(policy, folder / _WEIGHTS), game, content["provenance"], eyes)


def read_agent_game(folder: Path | str) -> GameConfig:
    """The game that an agent learned in, without its weights; raises `CheckpointError`."""
    path = _folder(folder) / _CONFIG
    try:
        return from_json(GameConfig, _config(path)["game"])
    except (TypeError, KeyError) as error:
        raise CheckpointError(path, f"it names no game ({error}): restore the file") from error


def read_agent_provenance(folder: Path | str) -> dict[str, Any]:
    """How an agent was trained, without its weights; raises `CheckpointError`."""
    path = _folder(folder) / _CONFIG
    try:
        return dict(_config(path)["provenance"])
    except (TypeError, KeyError) as error:
        raise CheckpointError(path, f"it has no provenance ({error}): restore the file") from error


def new_policy(
    config: AnyPolicyConfig, game: GameConfig, seed: int = 0, *, eyes: AutoencoderConfig | None = None
) -> ActorCritic:
    """An untrained network for that game, which looks at screens or through eyes of these sizes."""
    shape = game.resolution if eyes is None else eyes.grid(game.resolution)
    actions, rngs = len(game.action_names), nnx.Rngs(seed)
    if isinstance(config, ForeseerConfig):
        return Foreseer(config, actions, shape, rngs=rngs)
    return ActorCritic(config, actions, shape, rngs=rngs)


def _folder(folder: Path | str) -> Path:
    folder = Path(folder)
    return folder / "policy" if (folder / "policy" / _CONFIG).is_file() else folder


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
        raise CheckpointError(path, f"its format is {found!r}, this version reads {FORMAT!r}: train the agent anew")
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
        self._look = jax.jit(_through)
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
        eyes = self.agent.eyes
        return self.act_on(frame[None] if eyes is None else self._look(eyes, frame[None]))

    def act_on(self, frames: Any) -> int:
        """The next action, given what the network looks at, uint8 `[1, h, w, c]`: the screen, or what the eyes see."""
        policy = self.agent.policy
        if self._memory is None or self._last is None:
            self._memory = self._begin(policy, frames)
            self._last = np.full(1, -1, np.int32)  # not read: the episode begins
        self._memory, self._last = self._next(policy, self._memory, frames, self._last, int(self._rng.integers(2**31)))
        return int(np.asarray(self._last)[0])


def load_agent(folder: Path | str, *, greedy: bool = False) -> AgentPolicy:
    """The agent in `folder` as a player; raises `CheckpointError`."""
    return AgentPolicy(read_agent(folder), greedy=greedy)


def _through(eyes: Eyes, frames: Any) -> Any:
    return eyes(frames)


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
