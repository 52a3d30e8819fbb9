"""An agent that learned in a dream plays ViZDoom's own Gymnasium environment, `VizdoomTakeCover-v1`, as it is.

python examples/dream_trained_agent.py                          # the agent that comes with the repository
python examples/dream_trained_agent.py --agent out/dream_agent  # one of your own, by neural-env train dream-agent
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import vizdoom.gymnasium_wrapper  # noqa: F401  # registers the environments

from neural_env.agents.player import Agent, AgentPolicy, read_agent
from neural_env.wrappers import ActionMapping

DREAMED = Path(__file__).parents[1] / "runs/agents/take_cover_dreamed"


def main() -> None:
    """Plays some games and prints how long the agent lived."""
    args = arguments()
    agent = read_agent(args.agent)
    player = AgentPolicy(agent)
    with tempfile.TemporaryDirectory() as home:
        env = vizdoom_env(agent, home)
        for seed in range(0, 10 * args.episodes, 10):  # seeds that end in 0 are for tests
            steps = play(env, player, seed, args.steps)
            print(f"seed {seed}: {steps} steps, {agent.game.frame_skip * steps} tics")
        env.close()


def vizdoom_env(agent: Agent, home: str) -> gym.Env[Any, Any]:
    """ViZDoom's environment: the screen as the agent knows it, and its actions."""
    height, width = agent.game.resolution
    env = gym.make(
        "VizdoomTakeCover-v1",
        frame_skip=agent.game.frame_skip,
        screen_resolution=f"RES_{width}X{height}",
        screen_format="RGB24",
        render_hud=True,  # it is part of what the agent has learned to see
        doom_config_path=f"{home}/vizdoom.ini",  # else it is left in the working directory
        disable_env_checker=True,
    )
    # ViZDoom counts its actions like binary numbers: of (MOVE_LEFT, MOVE_RIGHT), 01 is the right and 10 the left.
    env.unwrapped.action_names = ("noop", "move_right", "move_left")  # type: ignore[attr-defined]
    return ActionMapping(env, actions=agent.game.action_names)


def play(env: gym.Env[Any, Any], player: AgentPolicy, seed: int, limit: int) -> int:
    """Steps that the agent lived, at most `limit`."""
    player.reset(np.random.default_rng([seed, 1]))
    seen, _ = env.reset(seed=seed)
    for step in range(1, limit + 1):
        seen, _, terminated, truncated, _ = env.step(player.act(seen["screen"], np.empty(0)))
        if terminated or truncated:
            return step
    return limit


def arguments() -> argparse.Namespace:
    """The command line; --smoke is for trying whether it runs at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", type=Path, default=DREAMED, help="folder of a dream-trained agent")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--steps", type=int, default=525, help="steps after which a game is cut off")
    parser.add_argument("--smoke", action="store_true", help="one short game")
    args = parser.parse_args()
    if args.smoke:
        args.episodes, args.steps = 1, 20
    return args


if __name__ == "__main__":
    main()
