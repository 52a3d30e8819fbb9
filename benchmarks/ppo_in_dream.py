"""Training by PPO in the dream, steps a second: compiled end to end, and Stable-Baselines3 over the vector environment.

    python benchmarks/ppo_in_dream.py            # two minutes on two cores; Markdown

Both learn from as many dreams, roll-outs as long, minibatches and epochs as many, with convolutions of the same sizes
on two stacked frames of half the size; XLA dreams for both. Ours is the program of examples/jax_ppo.py: world, agent
and update in one scan, no frame leaves the device. Updates take turns, so that what else the machine does hits both.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import jax
import tyro
from flax import nnx

from neural_env.agents.policy import ActorCritic, PolicyConfig
from neural_env.agents.ppo import PPOConfig, preset_named
from neural_env.bench.clock import in_turn
from neural_env.bench.parts import done
from neural_env.bench.table import Table
from neural_env.envs.gymnax import make


@dataclass(frozen=True)
class PpoConfig:
    """Train both ways in turn and print their rates."""

    checkpoint: str = "take_cover"  # bundled world, or a checkpoint folder
    preset: str = "fast"  # of the agent and how it learns
    envs: int = 16  # dreams at once
    n_steps: int = 32  # of each between two updates
    minibatch: int = 128
    seconds: float = 20.0  # that each is measured for


def main(config: PpoConfig) -> dict[str, float]:
    """Prints the table; returns environment steps a second by name, roll-outs and updates included."""
    preset = preset_named(config.preset)
    ppo = replace(preset.ppo, games=config.envs, n_steps=config.n_steps, minibatch=config.minibatch)
    calls = {
        "compiled end to end": compiled(config.checkpoint, preset.policy, ppo),
        "Stable-Baselines3": sb3(config.checkpoint, preset.policy, ppo),
    }
    rates = {name: ppo.transitions / seconds for name, seconds in in_turn(calls, config.seconds).items()}
    slowest = rates["Stable-Baselines3"]
    rows = tuple((name, f"{rate:.1f}", f"{rate / slowest:.2f}") for name, rate in rates.items())
    print(f"PPO in {config.checkpoint}, {config.envs} dreams, {jax.devices()[0].device_kind}\n")
    print(Table("", ("trainer", "env-steps/s", "of Stable-Baselines3"), rows).markdown())
    return rates


def compiled(checkpoint: str, policy: PolicyConfig, config: PPOConfig) -> Callable[[], Any]:
    """A call that rolls out and updates once, on the device."""
    example = _example("jax_ppo")
    env, params = make(checkpoint)
    network = ActorCritic(policy, env.num_actions, env.observation_space().shape[:2], rngs=nnx.Rngs(0))
    train = example.trainer(env, network, config, 1_000, 1)
    held = [jax.jit(partial(example.begun, env, network, config))(params, jax.random.key(0))]

    def run() -> None:
        held[0], _ = done(train(params, held[0], jax.random.key(1)))

    return run


def sb3(checkpoint: str, policy: PolicyConfig, config: PPOConfig) -> Callable[[], Any]:
    """The same of Stable-Baselines3."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecFrameStack

    from neural_env.adapters.sb3 import DreamVecEnv

    envs = gym.make_vec(
        "neural_env:NeuralDoom-v0",
        num_envs=config.games,
        autoreset_mode="SameStep",
        checkpoint=checkpoint,
        runtime="xla",
    )
    agent = PPO(
        "CnnPolicy",
        VecFrameStack(DreamVecEnv(envs), policy.stack),
        n_steps=config.n_steps,
        batch_size=config.minibatch,
        n_epochs=config.epochs,
        policy_kwargs={"features_extractor_class": _extractor(policy), "net_arch": list(policy.hidden)},
        seed=0,
    )
    return lambda: agent.learn(config.transitions, reset_num_timesteps=False)


def _extractor(policy: PolicyConfig) -> type[Any]:
    """Our convolutions as Stable-Baselines3 takes them."""
    import torch
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

    class Convolutions(BaseFeaturesExtractor):
        def __init__(self, space: gym.spaces.Box) -> None:
            super().__init__(space, policy.features)
            layers: list[torch.nn.Module] = [torch.nn.AvgPool2d(policy.shrink)]
            channels = space.shape[0]
            for features, size, stride in policy.convolutions:
                layers += [torch.nn.Conv2d(channels, features, size, stride), torch.nn.ReLU()]
                channels = features
            self.convolutions = torch.nn.Sequential(*layers, torch.nn.Flatten())
            with torch.no_grad():
                flat = self.convolutions(torch.zeros(1, *space.shape)).shape[1]
            self.linear = torch.nn.Sequential(torch.nn.Linear(flat, policy.features), torch.nn.ReLU())

        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            return self.linear(self.convolutions(frames))

    return Convolutions


def _example(name: str) -> ModuleType:
    """One of examples/, which is no package."""
    path = Path(__file__).parents[1] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its NamedTuples look their module up
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(tyro.cli(PpoConfig))
