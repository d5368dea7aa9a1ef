"""The networks of `cell201`: stem, stages of cells with reductions between them, and a linear classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from bilevel_nas.spaces.base import Architecture, Choice, Shape
from bilevel_nas.spaces.operations import ConvNorm, Mixed, Pool, Zero, accepted, activation, norm2d, width_of

if TYPE_CHECKING:
    from bilevel_nas.spaces.cell201 import Cell201


def operation(code: int, channels: int, act: str, search: bool) -> nn.Module:
    """One of the five operations."""
    if code == 0:
        return Zero()
    if code == 1:
        return nn.Identity()
    if code == 4:
        return Pool("avg", channels, 1, search, norm=False)
    return ConvNorm(channels, channels, 1 if code == 2 else 3, act, search)


class Cell(nn.Module):
    """One cell, with a mixture (supernet) or one operation (stand-alone) an edge."""

    def __init__(
        self, edges: Sequence[tuple[int, int]], channels: int, act: str, codes: Architecture | None, partial: int
    ) -> None:
        super().__init__()
        self.edges = tuple(edges)
        if codes is None:
            inside = width_of(channels, partial, "cell201")
            self.operations = nn.ModuleList(
                Mixed([operation(k, inside, act, True) for k in range(5)], partial) for _ in self.edges
            )
        else:
            self.operations = nn.ModuleList(operation(c, channels, act, False) for c in codes)

    def forward(self, x: torch.Tensor, choices: Sequence[Choice] | None = None) -> torch.Tensor:
        """The last node's value."""
        last = self.edges[-1][1]
        nodes: list[torch.Tensor | None] = [x, *[None] * last]
        for k, (a, b) in enumerate(self.edges):
            source = nodes[a]
            if source is None:
                continue
            module = self.operations[k]
            if choices is not None:
                value: torch.Tensor | None = module(source, choices[k])
            else:
                value = None if isinstance(module, Zero) else module(source)
            if value is not None:
                before = nodes[b]
                nodes[b] = value if before is None else before + value
        result = nodes[last]
        # A cell that is cut through gives zeros.
        return torch.zeros_like(x) if result is None else result


class CellNetwork(nn.Module):
    """Stand-alone network of an architecture, or the supernet where there is none."""

    def __init__(
        self,
        space: Cell201,
        shape: Shape,
        architecture: Architecture | None,
        act: str = "silu",
        partial: int = 1,
    ) -> None:
        super().__init__()
        accepted(shape, 3, space.name)
        search = architecture is None
        self.groups: list[tuple[int, int]] = []
        c = space.channels
        self.stem = nn.Sequential(nn.Conv2d(shape.inputs[0], c, 3, space.stem_stride, 1, bias=False), norm2d(c, search))
        self.layers = nn.ModuleList()
        size = len(space.edges)
        for stage in range(space.stages):
            if stage:
                self.layers.append(
                    nn.Sequential(
                        activation(act),
                        nn.Conv2d(c, 2 * c, 1, bias=False),
                        norm2d(2 * c, search),
                        nn.AvgPool2d(2, ceil_mode=True),
                    )
                )
                c *= 2
            for cell in range(space.cells):
                start = size * space.group_of(stage, cell)
                codes = None if architecture is None else architecture[start : start + size]
                self.layers.append(Cell(space.edges, c, act, codes, partial))
                self.groups.append((start, start + size))
        self.tail = nn.Sequential(norm2d(c, search), activation(act))
        self.classifier = nn.Linear(c, shape.classes)

    def forward(self, x: torch.Tensor, choices: Sequence[Choice] | None = None) -> torch.Tensor:
        """Class scores, shape (batch, classes)."""
        x = self.stem(x)
        place = iter(self.groups)
        for layer in self.layers:
            if isinstance(layer, Cell):
                start, end = next(place)
                x = layer(x, None if choices is None else choices[start:end])
            else:
                x = layer(x)
        return cast("torch.Tensor", self.classifier(self.tail(x).mean((2, 3))))
