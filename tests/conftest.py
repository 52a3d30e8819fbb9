"""What all tests share: JAX on the CPU, checked array shapes, and a tiny world of random weights."""

import os

import jaxtyping
import pytest

WORLD = ("autoencoder", "conditioning", "diffusion", "layers", "model", "outcome", "sampler", "unet")
OBJECTIVES = ("distilled", "shortcut", "velocity")
CHECKED = [*(f"neural_env.world.{name}" for name in (*WORLD, *OBJECTIVES)), "neural_env.envs.core"]


def pytest_configure(config):
    """Set up before anything imports JAX; child processes inherit the environment."""
    os.environ.update(JAX_PLATFORMS="cpu", SDL_VIDEODRIVER="dummy", MPLBACKEND="Agg")
    os.environ["NEURAL_ENV_RUNTIME"] = "xla"  # the reference; tests of the other one name it
    # Most of the time is compilation, and its dearest passes make nothing faster here.
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=1"
    if hasattr(config, "cache"):  # compiled programs are kept from run to run
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(config.cache.mkdir("jax"))
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    jaxtyping.install_import_hook(CHECKED, "beartype.beartype")


@pytest.fixture(scope="session")
def game():
    """What `take_cover` looks like to a world."""
    from neural_env.game import GameConfig

    return GameConfig("take_cover", ("noop", "move_left", "move_right"), ("health",), 4, (120, 160))


@pytest.fixture(scope="session")
def perturbed():
    """A copy of a module with noise on every parameter, so that nothing is zero any more."""

    def perturb(module, scale=0.1, seed=0):
        import jax
        import numpy as np

        from neural_env.world.parameters import parameters, replaced

        rng = np.random.default_rng(seed)
        noisy = {k: v + scale * rng.standard_normal(v.shape, np.float32) for k, v in parameters(module).items()}
        return replaced(module, jax.tree.map(jax.numpy.asarray, noisy))

    return perturb


@pytest.fixture(scope="session")
def make_world(game, perturbed):
    """Builds worlds of the tiny preset: random weights, and whether its dreams end."""

    def make(termination_logit=-9.0, seed=0):
        import jax
        from flax import nnx

        from neural_env.world.model import PRESETS, WorldModel

        world = perturbed(jax.jit(lambda: WorldModel(PRESETS["tiny"], game, rngs=nnx.Rngs(0)))(), seed=seed)
        world.unet.keep.kernel[...] *= 0.1
        world.unet.keep.bias[...] *= 0.7  # below 1: random weights must not make dreams that grow without bounds
        world.outcome.hazard.out.kernel[...] *= 0.0  # the same in every state
        world.outcome.hazard.out.bias[...] = jax.numpy.array([termination_logit])
        return world

    return make


@pytest.fixture(scope="session")
def make_guided_world(game, perturbed):
    """Builds worlds of the tiny preset that dream without a past, too; random weights."""

    def make(seed=0):
        from dataclasses import replace

        import jax
        from flax import nnx

        from neural_env.world.model import PRESETS, WorldModel

        model = replace(PRESETS["tiny"], unet=replace(PRESETS["tiny"].unet, context_dropout=0.1))
        world = perturbed(jax.jit(lambda: WorldModel(model, game, rngs=nnx.Rngs(0)))(), seed=seed)
        world.unet.keep.kernel[...] *= 0.1
        world.unet.keep.bias[...] *= 0.7  # as in make_world
        world.outcome.hazard.out.kernel[...] *= 0.0
        world.outcome.hazard.out.bias[...] = jax.numpy.array([-9.0])
        return world

    return make


@pytest.fixture(scope="session")
def tiny_world(make_world):
    """A world whose dreams hardly ever end; nobody may change it."""
    from neural_env.world.parameters import all_arrays, fingerprint

    world = make_world()
    made = fingerprint(all_arrays(world))
    yield world
    assert fingerprint(all_arrays(world)) == made, "a test changed the world that all tests share: give it a copy"


@pytest.fixture(scope="session")
def tiny_starts(game, tiny_world):
    """Eight starting contexts drawn at random."""
    import numpy as np

    from neural_env.checkpoint import Starts

    rng = np.random.default_rng(0)
    n = tiny_world.context
    latents = rng.standard_normal((8, n, *tiny_world.latent_shape), np.float32)
    actions = rng.integers(len(game.action_names), size=(8, n - 1), dtype=np.int32)
    return Starts(latents, actions)


@pytest.fixture(scope="session")
def save_world(game, tiny_starts):
    """Writes a world of the tiny preset as a checkpoint."""

    def save(world, folder):
        from dataclasses import replace

        from neural_env import checkpoint
        from neural_env.world.model import PRESETS

        tiny = PRESETS["tiny"]
        model = replace(tiny, unet=replace(tiny.unet, context_dropout=world.context_dropout))
        provenance, scores = {"preset": "tiny", "seed": 0}, {"psnr": 12.5}
        checkpoint.save(checkpoint.Checkpoint(world, model, game, tiny_starts, provenance, scores), folder)
        return folder

    return save


@pytest.fixture(scope="session")
def tiny_world_folder(tmp_path_factory, save_world, tiny_world):
    """The checkpoint of `tiny_world`; read only."""
    return save_world(tiny_world, tmp_path_factory.mktemp("worlds") / "tiny")


@pytest.fixture(scope="session")
def distilled_world_folder(tmp_path_factory, tiny_world_folder):
    """The same weights said to be distilled to one step; read only."""
    import json
    import shutil

    folder = shutil.copytree(tiny_world_folder, tmp_path_factory.mktemp("worlds") / "distilled")
    config = json.loads((folder / "config.json").read_text())
    config["model"]["objective"] = {"kind": "distilled", "teacher": config["model"]["objective"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def mortal_world_folder(tmp_path_factory, save_world, make_world):
    """The checkpoint of a world whose dreams end after a few steps; read only."""
    return save_world(make_world(termination_logit=-1.0), tmp_path_factory.mktemp("worlds") / "mortal")
