"""The networks of `mobile`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional

from bilevel_nas.spaces.base import Architecture, Choice, Shape
from bilevel_nas.spaces.entangled import at_least, centre_mask, prefix_mask
from bilevel_nas.spaces.macro_network import Bottleneck
from bilevel_nas.spaces.operations import accepted, activation, norm2d

if TYPE_CHECKING:
    from bilevel_nas.spaces.mobile import Mobile


def build_mobile(space: Mobile, shape: Shape, architecture: Architecture, act: str = "silu") -> nn.Module:
    """The stand-alone network."""
    accepted(shape, 3, space.name)
    c = space.channels
    layers: list[nn.Module] = [nn.Conv2d(shape.inputs[0], c, 3, 1, 1, bias=False), norm2d(c, False), activation(act)]
    for s in range(space.stages):
        depth = architecture[space.place(s, 0) - 1] + 1
        for k in range(depth):
            at = space.place(s, k)
            kernel, expansion = space.kernels[architecture[at]], space.expansions[architecture[at + 1]]
            out = space.channels * 2**s
            layers.append(Bottleneck(c, out, kernel, expansion, 2 if s and k == 0 else 1, act, False))
            c = out
    head = [norm2d(c, False), activation(act), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, shape.classes)]
    return nn.Sequential(*layers, *head)


class SharedBottleneck(nn.Module):
    """The largest bottleneck, with masks for smaller kernels and expansions."""

    def __init__(self, space: Mobile, c_in: int, c_out: int, stride: int, act: str) -> None:
        super().__init__()
        self.kernels, self.stride = space.kernels, stride
        self.widths = tuple(e * c_in for e in space.expansions)
        wide, largest = self.widths[-1], space.kernels[-1]
        self.expand = nn.Conv2d(c_in, wide, 1, bias=False)
        self.depthwise = nn.Conv2d(wide, wide, largest, stride, largest // 2, groups=wide, bias=False)
        self.project = nn.Conv2d(wide, c_out, 1, bias=False)
        self.norms = nn.ModuleList(norm2d(c, True) for c in (wide, wide, c_out))
        self.act = activation(act)
        self.residual = c_in == c_out and stride == 1

    def forward(self, x: torch.Tensor, kernel: Choice, expansion: Choice) -> torch.Tensor:
        """See the class. Channels are masked after their normalisation, which would undo it."""
        mask = prefix_mask(expansion, self.widths, self.widths[-1])[None, :, None, None]
        y = self.act(self.norms[0](self.expand(x)))
        weight = self.depthwise.weight * centre_mask(kernel, self.kernels, self.kernels[-1])
        y = functional.conv2d(y, weight, None, self.stride, self.kernels[-1] // 2, 1, self.widths[-1])
        y = mask * self.act(self.norms[1](y))
        y = self.norms[2](self.project(y))
        return x + y if self.residual else y


class MobileSupernet(nn.Module):
    """Stages of the largest depth."""

    def __init__(self, space: Mobile, shape: Shape, act: str) -> None:
        super().__init__()
        accepted(shape, 3, space.name)
        self.space = space
        c = space.channels
        self.stem = nn.Sequential(nn.Conv2d(shape.inputs[0], c, 3, 1, 1, bias=False), norm2d(c, True), activation(act))
        self.layers = nn.ModuleList()
        for s in range(space.stages):
            for k in range(space.depth):
                out = space.channels * 2**s
                self.layers.append(SharedBottleneck(space, c, out, 2 if s and k == 0 else 1, act))
                c = out
        self.tail = nn.Sequential(norm2d(c, True), activation(act))
        self.classifier = nn.Linear(c, shape.classes)

    def forward(self, x: torch.Tensor, choices: Sequence[Choice]) -> torch.Tensor:
        """Class scores, shape (batch, classes)."""
        x = self.stem(x)
        space = self.space
        for s in range(space.stages):
            depth = choices[space.place(s, 0) - 1]
            for k in range(space.depth):
                at = space.place(s, k)
                y = self.layers[s * space.depth + k](x, choices[at], choices[at + 1])
                x = y if k == 0 else x + at_least(depth, k) * (y - x)
        return cast("torch.Tensor", self.classifier(self.tail(x).mean((2, 3))))
