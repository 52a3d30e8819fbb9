"""Who plays the real game while a world is scored: a stated mix of policies that take turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neural_env.agents.player import AgentPolicy, read_agent
from neural_env.data.policies import Policy, StickyRandom
from neural_env.game import GameConfig

STICKY, UNIFORM = "sticky_random", "uniform_random"


def players_of(game: GameConfig, names: Sequence[str]) -> list[Policy]:
    """The players of these names: `sticky_random`, `uniform_random`, or the folder of a trained agent.

    Raises:
        ValueError: no name, or an agent that knows another game.
        CheckpointError: there is no agent in the folder.
    """
    if not names:
        raise ValueError(f"somebody must play: give {STICKY}, {UNIFORM} or an agent's folder")
    return [_player(game, name) for name in names]


def _player(game: GameConfig, name: str) -> Policy:
    if name in (STICKY, UNIFORM):
        return StickyRandom(len(game.action_names), 0.5 if name == STICKY else 0.0)
    agent = read_agent(Path(name))
    if (agent.game.action_names, agent.game.resolution) != (game.action_names, game.resolution):
        raise ValueError(
            f"the agent in {name} knows the actions {agent.game.action_names} at {agent.game.resolution}, the world "
            f"{game.action_names} at {game.resolution}: give an agent that was trained on {game.scenario}"
        )
    return AgentPolicy(agent)
