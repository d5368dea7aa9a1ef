"""The networks of `macro`, and the inverted bottleneck that they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from bilevel_nas.spaces.base import Choice, Shape
from bilevel_nas.spaces.operations import Mixed, accepted, activation, norm2d

if TYPE_CHECKING:
    from bilevel_nas.spaces.macro import Macro


class Bottleneck(nn.Module):
    """Expand, convolve depthwise, project (Sandler et al. 2018); with a residual connection where shapes agree."""

    def __init__(self, c_in: int, c_out: int, kernel: int, expansion: int, stride: int, act: str, search: bool) -> None:
        super().__init__()
        wide = c_in * expansion
        self.body = nn.Sequential(
            nn.Conv2d(c_in, wide, 1, bias=False),
            norm2d(wide, search),
            activation(act),
            nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False),
            norm2d(wide, search),
            activation(act),
            nn.Conv2d(wide, c_out, 1, bias=False),
            norm2d(c_out, search),
        )
        self.residual = c_in == c_out and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        y = self.body(x)
        return x + y if self.residual else y


def identity(c_in: int, c_out: int, stride: int, search: bool) -> nn.Module:
    """The identity; where shapes differ a projection, as NAS-Bench-Macro has it."""
    if c_in == c_out and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), norm2d(c_out, search))


class MacroNetwork(nn.Module):
    """Stand-alone network of an architecture, or the supernet where there is none."""

    def __init__(self, space: Macro, shape: Shape, architecture: Sequence[int] | None, act: str) -> None:
        super().__init__()
        accepted(shape, 3, space.name)
        search = architecture is None
        self.stem = nn.Sequential(
            nn.Conv2d(shape.inputs[0], space.channels, 3, 2, 1, bias=False), norm2d(space.channels, search)
        )

        def operation(code: int, place: tuple[int, int, int]) -> nn.Module:
            c_in, c_out, stride = place
            if code == 0:
                return identity(c_in, c_out, stride, search)
            return Bottleneck(c_in, c_out, 1 + 2 * code, 3 * code, stride, act, search)

        places = space.places
        self.layers = nn.ModuleList(
            Mixed([operation(k, place) for k in range(3)])
            if architecture is None
            else operation(architecture[n], place)
            for n, place in enumerate(places)
        )
        top = places[-1][1]
        self.tail = nn.Sequential(norm2d(top, search), activation(act))
        self.classifier = nn.Linear(top, shape.classes)

    def forward(self, x: torch.Tensor, choices: Sequence[Choice] | None = None) -> torch.Tensor:
        """Class scores, shape (batch, classes)."""
        x = self.stem(x)
        for k, layer in enumerate(self.layers):
            x = layer(x) if choices is None else layer(x, choices[k])
        return cast("torch.Tensor", self.classifier(self.tail(x).mean((2, 3))))
