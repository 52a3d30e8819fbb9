"""Roll-outs that OpenVINO steps: the same as those of one compiled scan, but for rounding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("openvino")
pytest.importorskip("flatbuffers")

from neural_env import checkpoint
from neural_env.agents.dreams import DreamsConfig, begin_dreams, beginnings, step_fn
from neural_env.agents.host_dreams import HostRollout
from neural_env.agents.policy import begin
from neural_env.agents.ppo import rollout_in_dream
from neural_env.envs.core import DreamState
from neural_env.envs.dream import Dream
from neural_env.training.dream_agent import DreamAgentRun, agent_of
from neural_env.world.parameters import parameters, replaced

STEPS, GAMES = 6, 3


@pytest.fixture(scope="module", params=["latent", "rgb"])
def rolled(request, mortal_world_folder, tmp_path_factory):
    """The same roll-out by XLA and by OpenVINO, and that of the same key once more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURAL_ENV_CACHE", str(tmp_path_factory.mktemp("programs")))
        patch.setenv("NEURAL_ENV_PRECISION", "f32")
        yield _rolled(request.param, mortal_world_folder, tmp_path_factory.mktemp("agent"))


def _rolled(observe, world_folder, out):
    config = DreamsConfig(observe=observe, num_steps=1, horizon=4, damage=0.5)
    loaded = checkpoint.load(world_folder)
    run = DreamAgentRun(out=out, dreams=config, preset="tiny")
    policy = agent_of(run, loaded).policy
    states = DreamState(jnp.asarray(loaded.starts.latents), jnp.asarray(loaded.starts.actions))
    places = jax.jit(partial(beginnings, config=config))(loaded.world, states)
    dreams, seen = begin_dreams(places, jax.random.key(0), GAMES, config.horizon)
    memory, key, params = begin(policy, seen), jax.random.key(1), parameters(policy)

    def by_xla(world, params, dreams, memory, key):
        step = step_fn(world, places, loaded.game, config)
        return rollout_in_dream(step, replaced(policy, params), dreams, memory, key, STEPS)

    dream = Dream(str(world_folder), config.observe == "rgb", runtime="openvino", streams=2)
    by_host = HostRollout(dream, config, config.dials(loaded.world), policy, STEPS)
    first, again = (by_host(places, params, dreams, memory, key) for _ in range(2))
    return jax.device_get((jax.jit(by_xla)(loaded.world, params, dreams, memory, key), first, again))


def test_the_host_rolls_out_what_one_scan_does(rolled):
    (dreams, memory, rollout), (host_dreams, host_memory, host_rollout), _ = rolled
    for name in ("actions", "terminated", "truncated", "ages", "past_actions"):
        np.testing.assert_array_equal(getattr(rollout, name), getattr(host_rollout, name), err_msg=name)
    np.testing.assert_allclose(rollout.rewards, host_rollout.rewards, atol=0.05)
    np.testing.assert_allclose(rollout.values, host_rollout.values, atol=0.02)
    assert np.abs(np.float64(rollout.frames) - host_rollout.frames).mean() < 0.5
    np.testing.assert_array_equal(dreams.key, host_dreams.key)
    np.testing.assert_array_equal(memory.ages, host_memory.ages)


def test_dreams_end_and_begin_anew_on_the_host(rolled):
    _, (_, _, rollout), _ = rolled
    over = rollout.terminated | rollout.truncated
    assert rollout.terminated.any() and rollout.truncated.any()
    np.testing.assert_array_equal(rollout.ages[1:][over[:-1]], 0)


def test_equal_keys_are_equal_roll_outs(rolled):
    _, first, again = rolled
    jax.tree.map(np.testing.assert_array_equal, first, again)


def test_settings_that_openvino_cannot_serve_are_refused(tmp_path):
    with pytest.raises(ValueError, match="disagreement is XLA's work: choose the runtime xla"):
        DreamAgentRun(out=tmp_path, dreams=DreamsConfig(disagreement=0.1), runtime="openvino")
    with pytest.raises(ValueError, match="runtime must be one of"):
        DreamAgentRun(out=tmp_path, runtime="opnvino")
