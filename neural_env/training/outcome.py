"""The outcome model's training: every transition, its outcome aligned with the action that caused it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from neural_env.arrays import Key
from neural_env.training.latents import LatentData, Windows
from neural_env.training.loop import Batch, DeviceBatch, Logs
from neural_env.world.outcome import OutcomeModel, symlog
from neural_env.world.parameters import replaced

ENDS_PER_BATCH = 0.25  # share of terminating transitions in a batch, corrected in the loss
LATENT_NOISE = 0.2  # deviation added to latents: a dream's are never as clean as the encoder's


class OutcomeStage:
    """Symlog reward, termination and standardised variables."""

    name = "outcome"

    def __init__(self, training: Windows, validation: Windows):
        self._windows = training
        data = training.data
        self._ends = training.index[data.ends[training.index] == 1]
        self._rest = training.index[data.ends[training.index] == 0]
        self._validation = validation.evenly(64, 20)
        self._validation_ends = validation.index[validation.data.ends[validation.index] == 1]
        self._validation_data = validation.data

    def loss(self, module: OutcomeModel, batch: DeviceBatch, key: Key) -> tuple[jax.Array, Logs]:
        """Cross-entropy of termination, squared errors of the rest.

        Terminations are drawn far more often than they happen and weighed down by as much: the gradient is less noisy,
        the predicted probability stays calibrated and the last step's reward doesn't leak into the others.
        """
        key_context, key_latent = jax.random.split(key)
        context = batch["context"] + LATENT_NOISE * jax.random.normal(key_context, batch["context"].shape)
        latent = batch["latent"] + LATENT_NOISE * jax.random.normal(key_latent, batch["latent"].shape)
        reward, logit, variables = module.raw(context, batch["actions"], latent)
        hazard = (batch["weight"] * optax.sigmoid_binary_cross_entropy(logit, batch["ends"])).mean()
        target = (batch["variables"] - module.variable_mean[...]) / module.variable_std[...]
        reward_error = (batch["weight"] * jnp.square(reward - symlog(batch["reward"]))).mean()
        # The picture after the last transition is a copy of the one before: nothing to read variables from.
        squared = (1 - batch["ends"])[:, None] * jnp.square(variables - target)
        variable_error = squared.sum() / max(squared.size, 1)  # some games have no variables
        logs = {"hazard": hazard, "reward_error": reward_error, "variable_error": variable_error}
        return hazard + reward_error + variable_error, logs

    def batch(self, step: int, size: int) -> Batch:
        """Random windows, terminating ones over-drawn; `weight` undoes that."""
        rng = np.random.default_rng([step, 1])
        ends = round(size * ENDS_PER_BATCH) if len(self._ends) else 0
        chosen = np.append(rng.choice(self._ends, ends), rng.choice(self._rest, size - ends))
        prior = len(self._ends) / (len(self._ends) + len(self._rest))
        weight = np.append(
            np.full(ends, prior * size / max(ends, 1)), np.full(size - ends, (1 - prior) * size / (size - ends))
        )
        batch = self._windows.gather(chosen)
        return {**batch, "weight": weight.astype(np.float32)}

    def validate(self, module: OutcomeModel) -> dict[str, float]:
        """Errors of reward and variables in their own units; mean probability of termination where it came and not."""
        reward, variable, quiet = [], [], []
        for batch in self._validation:
            outcome = _outcome(module, batch["context"], batch["actions"], batch["latent"])
            lives = batch["ends"] == 0
            reward.append(np.abs(np.asarray(outcome.reward) - batch["reward"]).mean())
            variable.append(np.abs(np.asarray(outcome.variables) - batch["variables"])[lives].mean(axis=0))
            quiet.append(np.asarray(jax.nn.sigmoid(outcome.termination_logit))[lives].mean())
        scores = {"reward_error": float(np.mean(reward)), "termination_when_none": float(np.mean(quiet))}
        for i, error in enumerate(np.mean(variable, axis=0)):
            scores[f"variable_{i}_error"] = float(error)
        if len(self._validation_ends):
            batch = self._windows_of_ends()
            logit = _outcome(module, batch["context"], batch["actions"], batch["latent"]).termination_logit
            scores["termination_when_due"] = float(jax.nn.sigmoid(logit).mean())
        return scores

    def _windows_of_ends(self) -> Batch:
        return self._validation_data.gather(self._validation_ends, self._windows.context)


@jax.jit
def _outcome(module: OutcomeModel, context: jax.Array, actions: jax.Array, latent: jax.Array):  # type: ignore[no-untyped-def]
    return module(context, actions, latent)


def measure_variables(module: OutcomeModel, data: LatentData) -> OutcomeModel:
    """Sets the mean and deviation on whose scale the variables are learned."""
    std = np.maximum(data.variables.std(axis=0), 1e-3)
    statistics = {"variable_mean": data.variables.mean(axis=0), "variable_std": std}
    return replaced(module, {name: jnp.asarray(array, jnp.float32) for name, array in statistics.items()})
