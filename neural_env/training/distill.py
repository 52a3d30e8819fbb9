"""Distillation to one step: the student learns where its teacher's sampler ends, from the noise that it begins at.

The teacher's sampler is a deterministic flow, so each noise has one sample and there is nothing to average: where the
student's one step is the mean of what may happen, the distilled one is one of the things that may (Luhman and Luhman
2021, arXiv 2101.02388). Guidance is baked in: the teacher is guided, the student needs not be.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from neural_env.arrays import Key, Latent
from neural_env.evaluation.frames import psnr
from neural_env.training.denoiser import channel_weight, decoded, with_unet
from neural_env.training.latents import Windows
from neural_env.training.loop import Batch, DeviceBatch, Logs
from neural_env.world.conditioning import ContextNoise, corrupt
from neural_env.world.distilled import Distilled
from neural_env.world.model import WorldModel
from neural_env.world.unet import UNet


@dataclass(frozen=True)
class DistillConfig:
    """What the teacher does."""

    teacher_steps: int = 8  # of its sampler
    guidance: float = 1.5  # weight of its past frames (GameNGen section 3.2.2), in worlds trained with context dropout

    def __post_init__(self) -> None:
        if self.teacher_steps < 2:
            raise ValueError(f"the teacher must make at least 2 steps to teach one, got {self.teacher_steps}")
        if self.guidance < 1:
            raise ValueError(f"guidance must be at least 1, which is none, got {self.guidance}")


class DistillStage:
    """Squared error between the student's one step and the teacher's many, from equal noise."""

    name = "distill"

    def __init__(
        self,
        world: WorldModel,
        training: Windows,
        validation: Windows,
        config: DistillConfig,
        noise: ContextNoise | None = None,
    ):
        """`world` has the teacher's weights; the student's training begins from the same.

        `noise` corrupts the past; by default as the bundled worlds' was.
        """
        self._noise = noise or ContextNoise()
        if isinstance(world.objective, Distilled):
            raise ValueError("this world is distilled already: distil its teacher")
        self._world = world
        self._flow = world.objective.as_flow()
        self._student = Distilled(teacher=world.objective)
        self._training = training
        self._validation = validation.evenly(32, 6)
        self._config = config
        self._weight = channel_weight(world.autoencoder, self._validation[0]["latent"])
        self._many, self._one = jax.jit(self._taught), jax.jit(self._drawn)

    def loss(self, module: UNet, batch: DeviceBatch, key: Key) -> tuple[jax.Array, Logs]:
        """Error against the teacher in x0-space, by what shows in pixels; the context is corrupted as in training."""
        key_levels, key_context, key_sample = jax.random.split(key, 3)
        levels = self._noise.levels(key_levels, *batch["actions"].shape)
        past = corrupt(key_context, batch["context"], levels), batch["actions"], levels
        target = jax.lax.stop_gradient(self._taught(self._world, key_sample, *past))
        drawn = self._student.sample(module.bound(*past), key_sample, target.shape, 1)
        error = jnp.square(drawn - target)
        return (error * self._weight).mean(), {"error": error.mean()}

    def batch(self, step: int, size: int) -> Batch:
        """Random training windows."""
        batch = self._training.batch(step, size)
        return {name: batch[name] for name in ("context", "actions")}

    def validate(self, module: UNet) -> dict[str, float]:
        """PSNR of the student's one step, the teacher's many and the teacher's one against the real frame; and how
        alike student and teacher are.

        `psnr_to_teacher` compares their pictures from equal noise, `spread` is the mean deviation between two latents
        of one past, drawn from different noise: a student that has collapsed to the mean has none.
        """
        student, teacher = with_unet(self._world, module), self._world
        keys = jax.random.key(0), jax.random.key(1)
        scores: dict[str, list[float]] = {}
        for batch in self._validation:
            past = batch["context"], batch["actions"]
            clean = np.zeros(batch["actions"].shape, np.float32)
            mine, other = (np.asarray(self._one(student, key, *past)) for key in keys)
            taught, another = (np.asarray(self._many(teacher, key, *past, clean)) for key in keys)
            once = np.asarray(self._one(teacher, keys[0], *past))
            real, shown, shown_teacher = (decoded(teacher, latent) for latent in (batch["latent"], mine, taught))
            values = {
                "psnr": psnr(shown, real).mean(),
                "psnr_teacher": psnr(shown_teacher, real).mean(),
                "psnr_teacher_one_step": psnr(decoded(teacher, once), real).mean(),
                "psnr_to_teacher": psnr(shown, shown_teacher).mean(),
                "spread": np.std(mine - other) / np.sqrt(2),
                "spread_teacher": np.std(taught - another) / np.sqrt(2),
            }
            for name, value in values.items():
                scores.setdefault(name, []).append(float(value))
        return {name: float(np.mean(column)) for name, column in scores.items()}

    def _taught(
        self,
        world: WorldModel,
        key: Key,
        context: Float[Array, "b n h w c"],
        actions: Int32[Array, "b n"],
        levels: Float[Array, "b n"],
    ) -> Latent:
        """The teacher's sample."""
        guided = world.context_dropout > 0 and self._config.guidance > 1
        past = context, actions, levels
        network = world.guided(*past, self._config.guidance) if guided else world.network(*past)
        return self._flow.sample(network, key, (len(context), *world.latent_shape), self._config.teacher_steps)

    def _drawn(
        self, world: WorldModel, key: Key, context: Float[Array, "b n h w c"], actions: Int32[Array, "b n"]
    ) -> Latent:
        """The student's sample, or the teacher's in one step."""
        network = world.network(context, actions, jnp.zeros(actions.shape))
        return self._student.sample(network, key, (len(context), *world.latent_shape), 1)
