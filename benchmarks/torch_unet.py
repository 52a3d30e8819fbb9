"""Our U-Net in PyTorch, line by line, with our weights: what another framework makes of the same network.

The layout is PyTorch's own, channels before rows, in `channels_last` memory, which is the faster one on a CPU. That
both compute the same is tested to 1e-4 (tests/benchmarks/test_torch_unet.py).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from neural_env.world import unet as ours
from neural_env.world.conditioning import CONTEXT_NOISE_BUCKETS, CONTEXT_NOISE_MAX
from neural_env.world.parameters import all_arrays


def same_conv(features_in, features_out, size=3, stride=1):
    return SameConv(features_in, features_out, size, stride)


class SameConv(nn.Conv2d):
    """Zero padding as XLA's "SAME": of an odd sum, the larger half is below and to the right."""

    def __init__(self, features_in, features_out, size, stride):
        super().__init__(features_in, features_out, size, stride, padding=size // 2 if stride == 1 else 0)

    def forward(self, x):
        if self.stride[0] == 1:
            return super().forward(x)
        pads = [max((-(-side // 2) - 1) * 2 + 3 - side, 0) for side in x.shape[-2:]]
        top, left = pads[0] // 2, pads[1] // 2
        return super().forward(F.pad(x, (left, pads[1] - left, top, pads[0] - top)))


class RMSNorm(nn.Module):
    """Over the features of each place."""

    def __init__(self, features, scaled=True):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features)) if scaled else None

    def forward(self, x):
        x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)
        return x if self.scale is None else x * self.scale[:, None, None]


class ModulatedBlock(nn.Module):
    def __init__(self, features_in, features_out, embedding):
        super().__init__()
        self.norm_in = RMSNorm(features_in)
        self.first = same_conv(features_in, features_out)
        self.modulation = nn.Linear(embedding, 2 * features_out)
        self.norm = RMSNorm(features_out, scaled=False)
        self.second = same_conv(features_out, features_out)
        self.skip = None if features_in == features_out else same_conv(features_in, features_out, size=1)

    def forward(self, x, embedding):
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.norm(self.first(F.silu(self.norm_in(x))))
        h = self.second(F.silu(h * (1 + scale) + shift))
        return h + (x if self.skip is None else self.skip(x))


class Position(nn.Module):
    def __init__(self, grid, features):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(features, *grid))

    def forward(self, x):
        return x + self.table


class Gist(nn.Module):
    def __init__(self, grid, channels, features):
        super().__init__()
        h, w = (-(-side // 4) for side in grid)
        self.first = same_conv(channels, 64, stride=2)
        self.second = same_conv(64, 96, stride=2)
        self.out = nn.Linear(h * w * 96, features)

    def forward(self, context):
        x = F.silu(self.second(F.silu(self.first(context))))
        return self.out(x.permute(0, 2, 3, 1).flatten(1))


class Conditioner(nn.Module):
    def __init__(self, num_actions, context, grid, channels, features):
        super().__init__()
        self.actions = nn.ModuleList(nn.Embedding(num_actions, features) for _ in range(context))
        self.levels = nn.ModuleList(nn.Embedding(CONTEXT_NOISE_BUCKETS, features) for _ in range(context))
        self.gist = Gist(grid, context * channels, features)
        self.noise, self.hidden, self.out = (nn.Linear(n, features) for n in (64, features, features))
        self.register_buffer("frequency", torch.from_numpy(np.geomspace(1.0, 100.0, 32).astype(np.float32)))

    def forward(self, past, actions, c_noise, levels):
        phase = c_noise[:, None] * self.frequency
        x = self.gist(past) + self.noise(torch.cat([phase.sin(), phase.cos()], -1))
        buckets = (
            (levels / CONTEXT_NOISE_MAX * CONTEXT_NOISE_BUCKETS).floor().long().clamp(0, CONTEXT_NOISE_BUCKETS - 1)
        )
        for i, (action, level) in enumerate(zip(self.actions, self.levels, strict=True)):
            x = x + action(actions[:, i]) + level(buckets[:, i])
        return F.silu(self.out(F.silu(self.hidden(x))))


class UNet(nn.Module):
    """F(x, c_noise; context, actions, levels); as `neural_env.world.unet.UNet`, of a world that always has a past."""

    def __init__(self, config, grid, channels, num_actions):
        super().__init__()
        widths, e = config.widths, config.embedding
        self.conditioner = Conditioner(num_actions, config.context, grid, channels, e)
        self.stem = same_conv(channels * (config.context + 1), widths[0])
        self.position = Position(grid, widths[0])
        self.down = nn.ModuleList(
            nn.ModuleList(ModulatedBlock(width, width, e) for _ in range(config.blocks)) for width in widths
        )
        pairs = list(pairwise(widths))
        self.shrink = nn.ModuleList(same_conv(wide, narrow, stride=2) for wide, narrow in pairs)
        self.grow = nn.ModuleList(same_conv(narrow, wide, size=1) for wide, narrow in pairs)
        self.up = nn.ModuleList(
            nn.ModuleList(ModulatedBlock(width * (2 if i == 0 else 1), width, e) for i in range(config.blocks))
            for width in widths[:-1]
        )
        self.norm = RMSNorm(widths[0])
        self.head = same_conv(widths[0], channels)
        self.keep = nn.Linear(e, channels)

    def forward(self, x, c_noise, context, actions, levels):
        """x [b, c, h, w], context [b, n, c, h, w] -> F [b, c, h, w]."""
        past = context.flatten(1, 2)
        embedding = self.conditioner(past, actions, c_noise, levels)
        h = self.position(self.stem(torch.cat([x, past], 1)))
        skips = []
        for i, blocks in enumerate(self.down):
            h = h if i == 0 else self.shrink[i - 1](h)
            for block in blocks:
                h = block(h, embedding)
            skips.append(h)
        for i in reversed(range(len(self.up))):
            height, width = skips[i].shape[-2:]
            grown = F.interpolate(self.grow[i](h), scale_factor=2.0, mode="nearest")[:, :, :height, :width]
            h = torch.cat([grown, skips[i]], 1)
            for block in self.up[i]:
                h = block(h, embedding)
        change = self.head(F.silu(self.norm(h)))
        return change + self.keep(embedding)[:, :, None, None] * context[:, -1]


def twin(unet: ours.UNet, config: ours.UNetConfig, grid: tuple[int, int], channels: int, num_actions: int) -> UNet:
    """Our U-Net as PyTorch's, weights copied, ready to be run."""
    network = UNet(config, grid, channels, num_actions)
    arrays = {_named(name): _laid_out(name, np.asarray(array)) for name, array in all_arrays(unet).items()}
    frequency = {"conditioner.frequency": network.conditioner.frequency}
    network.load_state_dict(arrays | frequency)  # strict: every weight has its place
    return network.eval().to(memory_format=torch.channels_last)


def _named(name):
    return name.replace(".kernel", ".weight").replace(".embedding", ".weight")


def _laid_out(name, array):
    if name.endswith(".kernel"):
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    if name == "position.table":
        array = array.transpose(2, 0, 1)
    return torch.from_numpy(np.array(array, np.float32))
