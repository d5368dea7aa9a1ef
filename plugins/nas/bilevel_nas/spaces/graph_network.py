"""The networks of `graph`, on dense adjacency matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from bilevel_core.errors import UsageError
from bilevel_nas.spaces.base import Architecture, Choice, Shape
from bilevel_nas.spaces.operations import accepted, activation

if TYPE_CHECKING:
    from bilevel_nas.spaces.graph import Graph


class Message(nn.Module):
    """One layer of message passing: (features, adjacency) to features of the same shape."""

    def __init__(self, code: int, width: int, act: str) -> None:
        super().__init__()
        self.code = code
        if code == 0:
            return
        self.own = nn.Linear(width, width)
        self.act = activation(act)
        if code in (3, 4):
            self.other = nn.Linear(width, width)
        if code == 5:
            self.source, self.target = nn.Linear(width, 1, bias=False), nn.Linear(width, 1, bias=False)

    def forward(self, h: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        """See the class."""
        if self.code == 0:
            return h
        if self.code == 1:
            return self.act(self.own(h))
        looped = adjacency + torch.eye(adjacency.shape[-1], dtype=h.dtype, device=h.device)
        degree = looped.sum(-1, keepdim=True)
        if self.code == 2:
            return self.act(degree.rsqrt() * (looped @ (degree.rsqrt() * self.own(h))))
        neighbours = adjacency.sum(-1, keepdim=True).clamp_min(1.0)
        if self.code == 3:
            return self.act(self.own(h) + self.other(adjacency @ h / neighbours))
        if self.code == 4:
            return self.other(self.act(self.own(looped @ h)))
        z = self.own(h)
        scores = nn.functional.softplus(self.target(z) + self.source(z).transpose(1, 2))
        scores = scores.masked_fill(looped == 0.0, -1e9)
        return self.act(torch.softmax(scores, -1) @ z)

    def products(self, h: torch.Tensor, adjacency: torch.Tensor) -> int:
        """Multiply-adds of the product with the adjacency matrix, for one graph."""
        n, width = int(h.shape[1]), int(h.shape[2])
        return n * n * width if self.code >= 2 else 0


class GraphNetwork(nn.Module):
    """Stand-alone network of an architecture, or the supernet where there is none."""

    def __init__(self, space: Graph, shape: Shape, architecture: Architecture | None, act: str) -> None:
        super().__init__()
        accepted(shape, 2, space.name)
        self.nodes, columns = shape.inputs
        if columns <= self.nodes:
            raise UsageError(
                f"Expected graphs of shape (nodes, features + nodes), got {shape.inputs}: no column is left for "
                "features."
            )
        self.count = space.layers
        self.embed = nn.Linear(columns - self.nodes, space.width)
        self.codes = architecture
        self.layers = nn.ModuleList(
            nn.ModuleList(
                Message(k, space.width, act) for k in (range(6) if architecture is None else (architecture[n],))
            )
            for n in range(space.layers)
        )
        self.classifier = nn.Linear(space.width, shape.classes)

    def forward(self, x: torch.Tensor, choices: Sequence[Choice] | None = None) -> torch.Tensor:
        """Class scores, shape (batch, classes)."""
        adjacency = x[..., -self.nodes :]
        h = self.embed(x[..., : -self.nodes])
        for k in range(self.count):
            operations = cast("nn.ModuleList", self.layers[k])
            if choices is None:
                h = operations[0](h, adjacency)
            else:
                c = choices[k]
                h = cast("torch.Tensor", sum(c.weights[i] * operations[i](h, adjacency) for i in c.active))
        read = (h.mean(1), h.amax(1), h.sum(1))
        if choices is None:
            assert self.codes is not None
            return self.classifier(read[self.codes[-1]])
        last = choices[self.count]
        return self.classifier(cast("torch.Tensor", sum(last.weights[i] * read[i] for i in last.active)))
