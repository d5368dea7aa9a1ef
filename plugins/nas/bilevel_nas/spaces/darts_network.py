"""The networks of `darts`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from bilevel_nas.spaces.base import Architecture, Choice, Shape
from bilevel_nas.spaces.operations import ConvNorm, Mixed, Pool, Zero, accepted, activation, norm2d, width_of

if TYPE_CHECKING:
    from bilevel_nas.spaces.darts import Darts


class FactorizedReduce(nn.Module):
    """Half the resolution by two 1x1 convolutions, one of them shifted by a pixel."""

    def __init__(self, c_in: int, c_out: int, act: str, search: bool) -> None:
        super().__init__()
        self.act = activation(act)
        self.first = nn.Conv2d(c_in, c_out // 2, 1, 2, bias=False)
        self.second = nn.Conv2d(c_in, c_out - c_out // 2, 1, 2, bias=False)
        self.norm = norm2d(c_out, search)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x = self.act(x)
        # The shifted copy keeps its size by a row and a column of zeros.
        shifted = nn.functional.pad(x[..., 1:, 1:], (0, 1, 0, 1))
        return self.norm(torch.cat([self.first(x), self.second(shifted)], 1))


def operation(code: int, c: int, stride: int, act: str, search: bool) -> nn.Module:
    """One of the eight operations."""
    if code == 0:
        return Zero(stride)
    if code == 1:
        return nn.Identity() if stride == 1 else FactorizedReduce(c, c, act, search)
    if code in (2, 3):
        return Pool("max" if code == 2 else "avg", c, stride, search, norm=True)
    kernel = 3 if code in (4, 6) else 5
    if code in (4, 5):
        return nn.Sequential(
            ConvNorm(c, c, kernel, act, search, stride=stride, groups=c, pointwise=True),
            ConvNorm(c, c, kernel, act, search, groups=c, pointwise=True),
        )
    return ConvNorm(c, c, kernel, act, search, stride=stride, dilation=2, groups=c, pointwise=True)


class DartsCell(nn.Module):
    """One cell: two inputs brought to one width and resolution, intermediate nodes, and their concatenation."""

    def __init__(
        self,
        space: Darts,
        widths: tuple[int, int, int],
        reduce: bool,
        reduced_before: bool,
        act: str,
        codes: Architecture | None,
        partial: int,
    ) -> None:
        super().__init__()
        before, last, c = widths
        search = codes is None
        self.edges = space.edges
        self.nodes = space.nodes
        self.reduce = reduce
        self.first: nn.Module = (
            FactorizedReduce(before, c, act, search) if reduced_before else ConvNorm(before, c, 1, act, search)
        )
        self.second = ConvNorm(last, c, 1, act, search)

        def stride(a: int) -> int:
            return 2 if reduce and a < 2 else 1

        if codes is None:
            inside = width_of(c, partial, "darts")
            self.operations = nn.ModuleList(
                Mixed([operation(k, inside, stride(a), act, True) for k in range(8)], partial) for a, _ in self.edges
            )
        else:
            self.operations = nn.ModuleList(
                operation(k, c, stride(a), act, False) for k, (a, _) in zip(codes, self.edges, strict=True)
            )

    def forward(
        self, s0: torch.Tensor, s1: torch.Tensor, choices: Sequence[Choice] | None, drop: float
    ) -> torch.Tensor:
        """The intermediate nodes, concatenated."""
        nodes: list[torch.Tensor] = [self.first(s0), self.second(s1)]
        small = nodes[0][..., ::2, ::2] if self.reduce else nodes[0]
        for b in range(2, 2 + self.nodes):
            total = torch.zeros_like(small)
            for k, (a, to) in enumerate(self.edges):
                if to != b:
                    continue
                module: Any = self.operations[k]
                if choices is not None:
                    value = module(nodes[a], choices[k])
                    total = total if value is None else total + value
                elif not isinstance(module, Zero):
                    value = module(nodes[a])
                    if drop and not isinstance(module, nn.Identity):
                        value = drop_path(value, drop)
                    total = total + value
            nodes.append(total)
        return torch.cat(nodes[2:], 1)


def drop_path(x: torch.Tensor, probability: float) -> torch.Tensor:
    """Leave out a path for some of the examples, and make up for it in the others."""
    keep = torch.rand(len(x), 1, 1, 1, device=x.device) >= probability
    return x * keep.to(x) / (1.0 - probability)


class DartsNetwork(nn.Module):
    """Stand-alone network of an architecture, or the supernet where there is none.

    In training the former gives (scores, scores of the auxiliary head). ``drop_path`` is set by whoever trains it.
    """

    def __init__(
        self, space: Darts, shape: Shape, architecture: Architecture | None, act: str = "silu", partial: int = 1
    ) -> None:
        super().__init__()
        accepted(shape, 3, space.name)
        search = architecture is None
        self.drop_path = 0.0
        self.size = len(space.edges)
        c = space.channels
        stem = 3 * c
        self.stem = nn.Sequential(nn.Conv2d(shape.inputs[0], stem, 3, 1, 1, bias=False), norm2d(stem, search))
        before, last, reduced = stem, stem, False
        self.cells = nn.ModuleList()
        self.auxiliary: nn.Module | None = None
        self.auxiliary_after = 2 * space.cells // 3
        for k in range(space.cells):
            reduce = k in space.reductions
            c = 2 * c if reduce else c
            codes = None
            if architecture is not None:
                codes = architecture[self.size :] if reduce else architecture[: self.size]
            self.cells.append(DartsCell(space, (before, last, c), reduce, reduced, act, codes, partial))
            before, last, reduced = last, space.nodes * c, reduce
            if k == self.auxiliary_after and space.auxiliary and not search:
                self.auxiliary = nn.Sequential(
                    activation(act), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, shape.classes)
                )
        self.classifier = nn.Linear(last, shape.classes)

    def forward(self, x: torch.Tensor, choices: Sequence[Choice] | None = None) -> Any:
        """Class scores, shape (batch, classes)."""
        s0 = s1 = self.stem(x)
        side: torch.Tensor | None = None
        for k, cell in enumerate(self.cells):
            mine = None
            if choices is not None:
                mine = choices[self.size :] if cast("DartsCell", cell).reduce else choices[: self.size]
            drop = self.drop_path if self.training else 0.0
            s0, s1 = s1, cell(s0, s1, mine, drop)
            if k == self.auxiliary_after and self.auxiliary is not None and self.training:
                side = self.auxiliary(s1)
        scores = self.classifier(s1.mean((2, 3)))
        return scores if side is None else (scores, side)
