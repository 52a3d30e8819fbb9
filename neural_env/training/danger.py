"""The training of `world.danger.Danger`: every moment, and how soon its player was hurt."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx

from neural_env.arrays import Key
from neural_env.checkpoint import Checkpoint, as_kept, load_module
from neural_env.evaluation.calibration import average_precision
from neural_env.training.latents import LatentData, Windows, encoder_fingerprint
from neural_env.training.loop import Batch, DeviceBatch, Logs
from neural_env.training.outcome import LATENT_NOISE
from neural_env.world.danger import DISCOUNT, REACH, Danger
from neural_env.world.model import WorldModel

_VALIDATION_WINDOWS = 4096  # at most, spread evenly
_CHUNK = 64  # windows at a time in validation


class DangerStage:
    """Cross-entropy with the truth as a soft target: its minimum is the expectation."""

    name = "danger"

    def __init__(self, training: Windows, validation: Windows, health: int, seed: int):
        """`health` is the number of that variable.

        Raises:
            ValueError: nobody is hurt in the training data.
        """
        self._training, self._seed = training, seed
        self._validation = validation
        self._near = nearness(training.data, health)
        self._near_in_validation = nearness(validation.data, health)
        if not self._near[training.index].any():
            raise ValueError("nobody is hurt in the training data, so nothing is dangerous: collect more episodes")
        rows = np.linspace(0, len(validation.index) - 1, _VALIDATION_WINDOWS).astype(int)
        self._validated = validation.index[np.unique(rows)]

    def loss(self, module: Danger, batch: DeviceBatch, key: Key) -> tuple[jax.Array, Logs]:
        """Of contexts with noise on them, as the outcome model's: a dream's are never as clean as the encoder's."""
        key_level, key_noise = jax.random.split(key)
        level = LATENT_NOISE * jax.random.uniform(key_level, (len(batch["near"]), 1, 1, 1, 1))
        context = batch["context"] + level * jax.random.normal(key_noise, batch["context"].shape)
        logits = module.logits(context, batch["between"])
        return optax.sigmoid_binary_cross_entropy(logits, batch["near"]).mean(), {}

    def batch(self, step: int, size: int) -> Batch:
        """Random training windows."""
        rows = np.random.default_rng([self._seed, step, 2]).choice(self._training.index, size)
        return _moments(self._training, rows) | {"near": self._near[rows]}

    def validate(self, module: Danger) -> dict[str, float]:
        """How well it tells moments before harm from others, beside how many those are; and its mean error."""
        rows = self._validated
        found = np.concatenate(
            [_danger(module, *self._chunk(rows[start : start + _CHUNK])) for start in range(0, len(rows), _CHUNK)]
        )[: len(rows)]
        near = self._near_in_validation[rows]
        scores = {"error": float(np.abs(found - near).mean()), "mean": float(found.mean()), "truth": float(near.mean())}
        for steps in (4, REACH):
            within = near > DISCOUNT ** (steps - 0.5)
            scores[f"within_{steps}"] = float(within.mean())
            if within.any():
                scores[f"within_{steps}_average_precision"] = average_precision(found, within)
        return scores

    def _chunk(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of one shape: the last row fills it up."""
        filled = np.concatenate([rows, np.repeat(rows[-1:], _CHUNK - len(rows))])
        moments = _moments(self._validation, filled)
        return moments["context"], moments["between"]


def danger_of(world: WorldModel, seed: int) -> Danger:
    """One that knows nothing yet, for that world's latents."""
    *grid, channels = world.latent_shape
    return Danger((grid[0], grid[1]), channels, world.context, world.outcome.num_actions, rngs=nnx.Rngs(seed))


def latents_of(world: WorldModel) -> str:
    """Whose latents danger is read off: the same for a run and for the world that is bundled of it."""
    return encoder_fingerprint(as_kept(world.autoencoder))


def load_danger(run: Path, world: Checkpoint) -> Danger:
    """What `neural-env train danger` left in the run's folder.

    Raises:
        CheckpointError: the weights are damaged.
        ValueError: there are none, or they know other latents than the world's.
    """
    folder = run / DangerStage.name
    if not (folder / "stage.json").is_file():
        raise ValueError(f"{run} has no danger stage: run neural-env train danger --out {run} first")
    record = json.loads((folder / "stage.json").read_text())
    if record["encoder"] != latents_of(world.world):
        cure = "train it on latents of this world's auto-encoder"
        raise ValueError(f"{folder} was trained on latents of another auto-encoder than the world's: {cure}")
    return load_module(nnx.eval_shape(lambda: danger_of(world.world, 0)), folder / "weights.safetensors")


def nearness(data: LatentData, health: int) -> np.ndarray:
    """DISCOUNT^k for every frame, float32; `k` counts from 0, for harm in the very next transition.

    What comes after a game was cut off counts as no harm.
    """
    level = data.variables[:, health]
    hurt = np.append(level[1:] < level[:-1], False) | (data.ends == 1)
    lasts = data.starts[1:] - 1
    hurt[lasts] = False  # the next row is another episode's
    border = np.zeros(len(level), np.bool_)
    border[lasts] = True
    near, found = 0.0, np.zeros(len(level), np.float32)
    for i in range(len(level) - 1, -1, -1):
        near = 0.0 if border[i] else 1.0 if hurt[i] else DISCOUNT * near
        found[i] = near
    found[found < DISCOUNT ** (REACH - 0.5)] = 0.0
    return found


def _moments(windows: Windows, rows: np.ndarray) -> Batch:
    batch = windows.gather(rows)
    return {"context": batch["context"], "between": batch["actions"][:, :-1]}


@jax.jit
def _danger(module: Danger, context: jax.Array, between: jax.Array) -> jax.Array:
    return module(context, between)
