"""`darts`: a normal and a reduction cell with two inputs each, and eight operations an edge.

Source: Liu, Simonyan and Yang (2019). The stand-alone network has an auxiliary head and drop path; with ``disc=top2``
each node keeps its two strongest inputs, as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilevel_core.errors import UsageError
from bilevel_nas.spaces.base import Architecture, Decision, SearchSpace, Shape

if TYPE_CHECKING:
    from torch import nn

OPERATIONS = (
    "none", "skip", "maxpool3", "avgpool3", "sepconv3", "sepconv5", "dilconv3", "dilconv5",
)  # fmt: skip
COST = (0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 1.0, 1.0)
"""Pointwise convolutions of an operation: nearly all of its weights, in units of c^2 for c channels."""
KINDS = ("normal", "reduce")


@dataclass(frozen=True)
class Darts(SearchSpace):
    """See the module.

    Attributes:
        nodes: intermediate nodes of a cell.
        cells: of the network; those at one and two thirds of it are reduction cells.
        channels: of a cell's nodes at the beginning, doubled by each reduction.
        auxiliary: an auxiliary head after two thirds of the cells, in training.
    """

    nodes: int = 4
    cells: int = 5
    channels: int = 8
    auxiliary: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= 7 or self.cells < 3 or self.channels < 1:
            raise UsageError(
                "Expected 1 to 7 nodes, 3 or more cells (one is normal then), 1 or more channels, "
                f"got {self.nodes}, {self.cells}, {self.channels}."
            )

    @property
    def name(self) -> str:
        """See `SearchSpace.name`."""
        return f"darts-{self.nodes}"

    @property
    def reductions(self) -> frozenset[int]:
        """Positions of the reduction cells."""
        return frozenset({self.cells // 3, 2 * self.cells // 3})

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(from, to) of a cell's edges; nodes 0 and 1 are its inputs."""
        return tuple((a, b) for b in range(2, 2 + self.nodes) for a in range(b))

    def make_decisions(self) -> tuple[Decision, ...]:
        """See `SearchSpace.make_decisions`."""
        return tuple(
            Decision(
                f"{kind}_e{a}{b}",
                OPERATIONS,
                cost=COST,
                free=frozenset((1, 2, 3)),
                zero=0,
                skip=1,
                node=f"{kind}/{b}",
            )
            for kind in KINDS
            for a, b in self.edges
        )

    def fixed(self) -> dict[str, Architecture]:
        """Two inputs a node, all operations alike."""
        kept = tuple(int(a < 2) for a, _ in self.edges) * 2
        return {
            "all sepconv3": tuple(4 * k for k in kept),
            "all dilconv3": tuple(6 * k for k in kept),
            "all skip": tuple(1 * k for k in kept),
        }

    def draw(self, architecture: Architecture) -> list[str]:
        """Each cell as its nodes with their inputs."""
        lines: list[str] = []
        size = len(self.edges)
        for g, kind in enumerate(KINDS):
            codes = architecture[g * size : (g + 1) * size]
            nodes: list[str] = []
            for b in range(2, 2 + self.nodes):
                into = [
                    f"{OPERATIONS[c]}~{a}" for (a, to), c in zip(self.edges, codes, strict=True) if to == b and c > 0
                ]
                nodes.append(f"{b} <- {' + '.join(into) or 'nothing'}")
            lines.append(f"{kind}: {'; '.join(nodes)}")
        return lines

    def build(self, architecture: Architecture, shape: Shape) -> nn.Module:
        """See `SearchSpace.build`."""
        from bilevel_nas.spaces.darts_network import DartsNetwork

        self.check(architecture)
        return DartsNetwork(self, shape, architecture)

    def supernet(self, shape: Shape, activation: str = "silu", partial: int = 1) -> nn.Module:
        """See `SearchSpace.supernet`."""
        from bilevel_nas.spaces.darts_network import DartsNetwork

        return DartsNetwork(self, shape, None, activation, partial)
