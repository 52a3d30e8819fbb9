"""What an agent sees, remembers and computes: one network for policy and value, and the memory it looks at.

::

    frame --view--> small uint8 frame --+
                    the frames before --+--> convolutions --> features --+--> head --> logits
    in-game map, in the same way, if it is asked for -------> features --+
                    its last actions ----------------------> embedding --+--> head --> value

All is pure: the same functions serve real games, whose frames come from the host, and dreams inside a `lax.scan`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32, UInt8

from neural_env.arrays import Frames, Key
from neural_env.data.policies import Sense

Views = UInt8[Array, "*b h w c"]
"""Screens as the network takes them: shrunk, still RGB in [0, 255]. `c` is 3, or 6 with the map behind the screen."""


@dataclass(frozen=True)
class PolicyConfig:
    """Sizes of a network of convolutions. Raises `ValueError` for sizes that make none."""

    kind: Literal["convolutional"] = "convolutional"
    picture_channels: int = 3  # of the screen: RGB; or those of a world's latents (`agents.eyes`)
    shrink: int = 1  # pixels whose mean is one pixel of the view, along each axis
    stack: int = 1  # frames it sees: the present one and those before
    past_actions: int = 32  # of its last actions it sees so many
    convolutions: tuple[tuple[int, int, int], ...] = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # features, size, stride
    features: int = 512  # of each picture, after the convolutions
    action_features: int = 64  # of the past actions
    hidden: tuple[int, ...] = (512,)  # hidden layers of each head
    automap: bool = False  # whether it sees the in-game map beside the screen

    def __post_init__(self) -> None:
        for name, least in (("picture_channels", 1), ("shrink", 1), ("stack", 1), ("past_actions", 0), ("features", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    @property
    def sees(self) -> tuple[Sense, ...]:
        """What its pictures are, in their order."""
        return ("screen", "automap") if self.automap else ("screen",)

    @property
    def channels(self) -> int:
        """Of what it sees at a time: the screen's, and three of the map."""
        return self.picture_channels + 3 * self.automap


@dataclass(frozen=True)
class ForeseerConfig:
    """Sizes of a network that sees a world's latents as danger is seen (`agents.foreseer`).

    Raises `ValueError` for sizes that make none.
    """

    kind: Literal["foreseer"] = "foreseer"
    picture_channels: int = 16  # those of the world's latents
    stack: int = 4  # latents it sees, and the actions between them: the world's context
    hidden: tuple[int, ...] = ()  # hidden layers of each head
    shrink: ClassVar[int] = 1  # latents are seen whole
    automap: ClassVar[bool] = False  # and have no map
    sees: ClassVar[tuple[Sense, ...]] = ("screen",)

    def __post_init__(self) -> None:
        for name, least in (("picture_channels", 1), ("stack", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    @property
    def past_actions(self) -> int:
        """Those between the latents."""
        return self.stack - 1

    @property
    def channels(self) -> int:
        """Of what it sees at a time."""
        return self.picture_channels


AnyPolicyConfig: TypeAlias = PolicyConfig | ForeseerConfig


class Memory(NamedTuple):
    """All that the agent knows of each of its `n` games; fixed shapes."""

    frames: UInt8[Array, "s n h w c"]  # views, oldest first, the last is the present one
    ages: Int32[Array, " n"]  # steps since the episode's start: older frames are another episode's
    past_actions: Int32[Array, "n k"]  # oldest first; `num_actions` stands for none


class Acted(NamedTuple):
    """What the policy did in each game."""

    actions: Int32[Array, " n"]
    log_probs: Float[Array, " n"]  # of these actions
    values: Float[Array, " n"]  # of the present states, in units of scaled reward


class PatchConv(nnx.Module):
    """A convolution without padding, as one matrix product over its patches.

    XLA's own convolution leaves its fast path inside a loop on a CPU, and PPO's epochs are a loop: a whole update took
    thirty times as long with it.
    """

    def __init__(self, features_in: int, features_out: int, size: int, stride: int, *, rngs: nnx.Rngs):
        self.size = size
        self.stride = stride
        self.linear = _linear(size * size * features_in, features_out, rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        """The features of each patch."""
        out: jax.Array = self.linear(self._patches(x))
        return out

    def _patches(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j p"]:
        b, h, w, c = x.shape
        k, step = self.size, self.stride
        i, j = (h - k) // step + 1, (w - k) // step + 1
        if k == step:
            blocks = x[:, : i * k, : j * k].reshape(b, i, k, j, k, c).transpose(0, 1, 3, 2, 4, 5)
            return blocks.reshape(b, i, j, k * k * c)
        shifts = [(y, z) for y in range(k) for z in range(k)]
        return jnp.concatenate(
            [x[:, y : y + (i - 1) * step + 1 : step, z : z + (j - 1) * step + 1 : step] for y, z in shifts], axis=-1
        )


class ActorCritic(nnx.Module):
    """Policy and value of an observation."""

    config: AnyPolicyConfig

    def __init__(self, config: PolicyConfig, num_actions: int, resolution: tuple[int, int], *, rngs: nnx.Rngs):
        self.config = config
        self.num_actions = num_actions
        self.resolution = resolution
        self.view_shape = _view_shape(config, resolution)
        self.convolutions = _convolutions(config, config.picture_channels, rngs)
        self.picture = _linear(_convolved(config, self.view_shape), config.features, rngs)
        seen = config.features * len(config.sees)
        if config.automap:
            self.map_convolutions = _convolutions(config, 3, rngs)
            self.map_picture = _linear(_convolved(config, self.view_shape), config.features, rngs)
        if config.past_actions:
            self.embedding = nnx.Embed(num_actions + 1, _EMBEDDING, rngs=rngs)
            self.past = nnx.List(
                [
                    _linear(config.past_actions * _EMBEDDING, config.action_features, rngs),
                    _linear(config.action_features, config.action_features, rngs),
                ]
            )
            seen += config.action_features
        self._add_heads(seen, rngs)

    def _add_heads(self, seen: int, rngs: nnx.Rngs) -> None:
        self.actor = _head(seen, self.config.hidden, self.num_actions, 0.01, rngs)
        self.critic = _head(seen, self.config.hidden, 1, 1.0, rngs)

    def __call__(
        self, frames: UInt8[Array, "s b h w c"], past_actions: Int32[Array, "b k"]
    ) -> tuple[Float[Array, "b a"], Float[Array, " b"]]:
        """Logits of the actions, and values in units of scaled reward."""
        x = self.features(frames, past_actions)
        return _through(self.actor, x), _through(self.critic, x)[:, 0]

    def features(self, frames: UInt8[Array, "s b h w c"], past_actions: Int32[Array, "b k"]) -> Float[Array, "b f"]:
        """What both heads look at."""
        screens, maps = jnp.split(frames, [self.config.picture_channels], axis=-1)
        x = _looked_at(screens, self.convolutions, self.picture)
        if self.config.automap:
            map_features = _looked_at(maps, self.map_convolutions, self.map_picture)
            x = jnp.concatenate([x, map_features], axis=-1)
        if self.config.past_actions:
            past = self.embedding(past_actions).reshape(len(past_actions), -1)
            for layer in self.past:
                past = jax.nn.relu(layer(past))
            x = jnp.concatenate([x, past], axis=-1)
        return x

    def view(self, frames: Frames) -> Views:
        """Screens `[..., H, W, 3]` as the network takes them, `[..., H, W, 6]` with their maps.

        Raises `ValueError` for a screen without the map that the network needs, or the other way round.
        """
        k, channels = self.config.shrink, self.config.channels
        if frames.shape[-1] != channels:
            seen, cure = " and ".join(self.config.sees), "dreams and recordings have no map: train it without"
            raise ValueError(f"the agent sees {seen}, {channels} channels, got {frames.shape[-1]}; {cure}")
        if k == 1:
            return frames
        h, w = self.view_shape
        blocks = frames.reshape(*frames.shape[:-3], h, k, w, k, channels).astype(jnp.uint16)
        total = blocks.sum(axis=(-4, -2), dtype=jnp.uint16)
        view: jax.Array = (total // jnp.uint16(k * k)).astype(jnp.uint8)
        return view


_EMBEDDING = 8  # features of one past action


def _view_shape(config: PolicyConfig, resolution: tuple[int, int]) -> tuple[int, int]:
    height, width = resolution
    k = config.shrink
    if height % k or width % k:
        raise ValueError(f"shrink={k} must divide the resolution {resolution}: choose a common divisor")
    return height // k, width // k


def _convolved(config: PolicyConfig, view: tuple[int, int]) -> int:
    """How many numbers the convolutions leave."""
    height, width = view
    for _, size, stride in config.convolutions:
        height, width = (height - size) // stride + 1, (width - size) // stride + 1
    if min(height, width) < 1:
        raise ValueError(f"the convolutions leave nothing of a view of {view} pixels: use fewer or smaller strides")
    return height * width * config.convolutions[-1][0]


def _convolutions(config: PolicyConfig, seen: int, rngs: nnx.Rngs) -> nnx.List[PatchConv]:
    channels = [seen * config.stack, *(features for features, _, _ in config.convolutions)]
    return nnx.List(
        PatchConv(before, after, size, stride, rngs=rngs)
        for before, (after, size, stride) in zip(channels, config.convolutions, strict=False)
    )


def _looked_at(
    frames: UInt8[Array, "s b h w c"], convolutions: nnx.List[PatchConv], picture: nnx.Linear
) -> Float[Array, "b f"]:
    """The features of a picture, its past stacked on it."""
    s, b, h, w, c = frames.shape
    x = frames.transpose(1, 2, 3, 0, 4).reshape(b, h, w, s * c).astype(jnp.float32) / 127.5 - 1.0
    for convolution in convolutions:
        x = jax.nn.relu(convolution(x))
    return jax.nn.relu(picture(x.reshape(b, -1)))


def _orthogonal(gain: float) -> Callable[..., jax.Array]:
    return nnx.initializers.orthogonal(gain)


def _linear(inputs: int, outputs: int, rngs: nnx.Rngs, gain: float = 2**0.5) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, kernel_init=_orthogonal(gain), rngs=rngs)


def _head(inputs: int, hidden: tuple[int, ...], outputs: int, gain: float, rngs: nnx.Rngs) -> nnx.List[nnx.Linear]:
    sizes = (inputs, *hidden)
    layers = [_linear(before, after, rngs) for before, after in zip(sizes, hidden, strict=False)]
    return nnx.List([*layers, _linear(sizes[-1], outputs, rngs, gain)])


def _through(head: nnx.List[nnx.Linear], x: Float[Array, "b f"]) -> Float[Array, "b o"]:
    for layer in head[:-1]:
        x = jax.nn.relu(layer(x))
    out: jax.Array = head[-1](x)
    return out


def begin(policy: ActorCritic, frames: Frames) -> Memory:
    """The memory at the start of episodes whose first frames are these, `[n, H, W, 3]`."""
    n = frames.shape[0]
    view = policy.view(frames)
    past = jnp.full((n, policy.config.past_actions), policy.num_actions, jnp.int32)
    return Memory(jnp.stack([view] * policy.config.stack), jnp.zeros(n, jnp.int32), past)


def observe(
    policy: ActorCritic, memory: Memory, frames: Frames, actions: Int32[Array, " n"], ended: Bool[Array, " n"]
) -> Memory:
    """The memory after `actions` led to `frames`, which begin a new episode where the last one `ended`."""
    stack = jnp.concatenate([memory.frames[1:], policy.view(frames)[None]])
    past = jnp.concatenate([memory.past_actions, actions[:, None]], axis=1)[:, 1:]
    none = jnp.full_like(past, policy.num_actions)
    return Memory(stack, jnp.where(ended, 0, memory.ages + 1), jnp.where(ended[:, None], none, past))


def evaluate(policy: ActorCritic, memory: Memory) -> tuple[Float[Array, "n a"], Float[Array, " n"]]:
    """Logits and values of the present states."""
    return policy(stacked(memory), memory.past_actions)


def stacked(memory: Memory) -> UInt8[Array, "s n h w 3"]:
    """The frames with those of earlier episodes replaced by the first of this one."""
    s = len(memory.frames)
    back = jnp.minimum(jnp.arange(s)[::-1, None], memory.ages)  # [s, n]
    return memory.frames[s - 1 - back, jnp.arange(len(memory.ages))]


def act(policy: ActorCritic, memory: Memory, key: Key) -> Acted:
    """Draws an action for each game."""
    logits, values = evaluate(policy, memory)
    actions = jax.random.categorical(key, logits).astype(jnp.int32)
    return Acted(actions, log_prob(logits, actions), values)


def act_greedily(policy: ActorCritic, memory: Memory) -> Int32[Array, " n"]:
    """The likeliest action of each game."""
    logits, _ = evaluate(policy, memory)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def log_prob(logits: Float[Array, "b a"], actions: Int32[Array, " b"]) -> Float[Array, " b"]:
    """The logarithm of the probability of each action."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), actions[:, None], axis=-1)[:, 0]
