"""The world model: encode, imagine, decode, foretell; composed of auto-encoder, denoiser and outcome model.

frames --encode--> context --imagine(actions, key)--> next latent --decode--> frame
                           \\-------foretell(actions, next latent)--> reward, termination, variables
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32

from neural_env.arrays import Frames, Key, Latent
from neural_env.game import GameConfig
from neural_env.world.autoencoder import Autoencoder, AutoencoderConfig, to_frames, to_pixels
from neural_env.world.conditioning import CrossAttention, corrupt
from neural_env.world.diffusion import EDM
from neural_env.world.distilled import Distilled
from neural_env.world.objective import Network
from neural_env.world.outcome import BinnedConfig, Outcome, OutcomeConfig
from neural_env.world.shortcut import Shortcut
from neural_env.world.unet import UNet, UNetConfig
from neural_env.world.velocity import VPrediction

_LARGEST = 64.0  # of a latent that is drawn; real ones stay below 20. A world that was trained badly stays finite


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a world, independent of the game that it dreams."""

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    outcome: OutcomeConfig = field(default_factory=BinnedConfig)
    objective: EDM | VPrediction | Shortcut | Distilled = field(default_factory=EDM)
    num_steps: int = 1  # evaluations of the network a frame that suit it, unless the environment is told otherwise

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}")


PRESETS = {
    "tiny": ModelConfig(  # for tests: seconds to train, no measured quality
        AutoencoderConfig(channels=4, encoder_width=8, encoder_blocks=1, decoder_width=8, decoder_blocks=1),
        UNetConfig(widths=(8, 16), blocks=1, embedding=16),
        BinnedConfig(bins=5, width=4, blocks=1, hidden=16),
    ),
    "small": ModelConfig(),  # 160x120, both bundled worlds: next frame 27.4 and 29.0 dB at 2 steps, 169 frames/s at 1
    "base": ModelConfig(  # 320x240 by f=16: the 15x20 latents of `small`; 84 frames/s there, no trained world yet
        AutoencoderConfig(
            patch=16, channels=48, encoder_width=160, encoder_blocks=2, decoder_width=224, decoder_blocks=3
        ),
    ),
    "gamengen": ModelConfig(  # the paper's recipe (section 4.2) at a size that one GPU trains; no measured quality yet
        unet=UNetConfig(
            context=64,
            widths=(128, 256, 512),  # Stable Diffusion's 320, 640, 1280, 1280
            embedding=512,
            context_dropout=0.1,
            conditioning=CrossAttention(),
        ),
        objective=VPrediction(),
        num_steps=4,  # DDIM
    ),
}


SCREENS = ((120, 160), (240, 320))  # heights and widths that games are played at


def usual_screen(preset: str, model: ModelConfig) -> tuple[int, int]:
    """Height and width that a preset's `model` is made for: the first of `SCREENS` that its patches divide.

    Raises:
        ValueError: they divide none.
    """
    patch = model.autoencoder.patch
    fitting = [screen for screen in SCREENS if not any(side % patch for side in screen)]
    if not fitting:
        raise ValueError(f"no screen of {SCREENS} is a multiple of the patch size {patch} of the preset {preset!r}")
    return fitting[0]


def distilled(model: ModelConfig) -> ModelConfig:
    """The configuration of a student of such a world: one step, always a past, guidance baked in."""
    unet = replace(model.unet, context_dropout=0.0)
    if isinstance(model.objective, Distilled):
        raise ValueError("this world is distilled already: distil its teacher")
    return replace(model, unet=unet, objective=Distilled(teacher=model.objective), num_steps=1)


class WorldModel(nnx.Module):
    """A diffusion world model of one game. A pytree: pass it through `jit`, `vmap`, `scan` and `grad` as it is."""

    def __init__(self, model: ModelConfig, game: GameConfig, *, rngs: nnx.Rngs):
        grid = model.autoencoder.grid(game.resolution)
        channels, context, actions = model.autoencoder.channels, model.unet.context, len(game.action_names)
        self.objective = model.objective
        self.num_steps = model.num_steps
        self.context = context
        self.context_dropout = model.unet.context_dropout
        self.latent_shape = (*grid, channels)
        self.autoencoder = Autoencoder(model.autoencoder, game.resolution, rngs=rngs)
        self.unet = UNet(model.unet, grid, channels, actions, tells_step=model.objective.tells_step, rngs=rngs)
        self.outcome = model.outcome.build(grid, channels, context, actions, len(game.variable_names), rngs=rngs)

    def encode(self, frames: Frames) -> Latent:
        """[0, 255] uint8 frames [b, H, W, 3] -> standardised latents [b, h, w, c]."""
        return self.autoencoder.encode(to_pixels(frames))

    def decode(self, latent: Latent) -> Frames:
        """Latents [b, h, w, c] -> [0, 255] uint8 frames [b, H, W, 3]."""
        return to_frames(self.autoencoder.decode(latent))

    def network(
        self,
        context: Float[Array, "b n h w c"],
        actions: Int32[Array, "b n"],
        levels: Float[Array, "b n"],
        present: Bool[Array, " b"] | None = None,
    ) -> Network:
        """F for this past: `context` already corrupted at noise `levels`, oldest first.

        Items that are not `present` are denoised without a past.
        """
        return self.unet.bound(context, actions, levels, present)

    def guided(
        self,
        context: Float[Array, "b n h w c"],
        actions: Int32[Array, "b n"],
        levels: Float[Array, "b n"],
        weight: float | Float[Array, ""],
    ) -> Network:
        """F without a past + weight (F with it - F without), of one call of the network (arXiv 2207.12598, eq. 6).

        Every objective's denoiser is linear in F, so this guides the denoiser by the same weight.
        On the past alone: guidance on actions gave GameNGen nothing (section 3.2.2). At weight 1 the network is called
        with the past only; whether it is, is decided at run time and compiles nothing.
        """

        def twice(x: Array) -> Array:
            return jnp.concatenate([x, x])

        def extrapolated(x: Latent, *told: Float[Array, " b"]) -> Latent:
            present = jnp.arange(2 * len(x)) < len(x)
            both = self.network(twice(context), twice(actions), twice(levels), present)
            with_past, without = jnp.split(both(twice(x), *map(twice, told)), 2)
            return without + weight * (with_past - without)

        plain = self.network(context, actions, levels)

        def network(x: Latent, c_noise: Float[Array, " b"], c_step: Float[Array, " b"] | None = None) -> Latent:
            told = (c_noise,) if c_step is None else (c_noise, c_step)
            out: Latent = jax.lax.cond(jnp.asarray(weight) == 1, plain, extrapolated, x, *told)
            return out

        return network

    def imagine(
        self,
        key: Key,
        context: Float[Array, "b n h w c"],
        actions: Int32[Array, "b n"],
        *,
        num_steps: int,
        context_noise: float | Float[Array, ""] = 0.0,
        guidance: float | Float[Array, ""] | None = None,
        temperature: float | Float[Array, ""] = 1.0,
    ) -> Latent:
        """Draws the next latent [b, h, w, c], within [-64, 64].

        Args:
            key: randomness of the context noise and of the sample.
            context: past latents, oldest first, clean.
            actions: `actions[:, i]` leads from `context[:, i]` to the frame after it; the last is the one being taken.
            num_steps: evaluations of the network (static).
            context_noise: level in [0, 0.7] at which the context is corrupted, the same for all frames.
            guidance: weight of the past, at least 1 (which is none); None: the program has no guidance in it.
            temperature: factor of the sampler's noise; 0: the sample that begins at no noise.

        Raises:
            ValueError: guidance, of a world that never learned to dream without a past; more steps than the objective
                can be sampled in, as of a world that was distilled to one.
        """
        key_context, key_sample = jax.random.split(key)
        levels = jnp.broadcast_to(jnp.asarray(context_noise, jnp.float32), context.shape[:2])
        past = corrupt(key_context, context, levels), actions, levels
        if guidance is not None and not self.context_dropout:
            raise ValueError("guidance needs a world trained with UNetConfig.context_dropout > 0: pass None")
        network = self.network(*past) if guidance is None else self.guided(*past, guidance)
        shape = (len(context), *self.latent_shape)
        drawn = self.objective.sample(network, key_sample, shape, num_steps, temperature)
        return jnp.clip(drawn, -_LARGEST, _LARGEST)

    def foretell(self, context: Float[Array, "b n h w c"], actions: Int32[Array, "b n"], latent: Latent) -> Outcome:
        """Reward, termination and variables of the transition to `latent`; arguments as for `imagine`."""
        outcome: Outcome = self.outcome(context, actions, latent)
        return outcome

    def read_variables(self, context: Float[Array, "b n h w c"], actions: Int32[Array, "b m"]) -> Float[Array, "b v"]:
        """The variables at the present frame `context[:, -1]`, to which `actions[:, -1]` led."""
        previous, action = context[:, :-1], actions[:, -1:]
        if not previous.shape[1]:  # a past of one frame tells of no transition: it stood still
            previous, action = context, jnp.zeros((len(context), 1), jnp.int32)
        variables: Float[Array, "b v"] = self.outcome.variables(previous[:, -1], action[:, -1], context[:, -1])
        return variables
