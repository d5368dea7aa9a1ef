"""`cell201`: cells in which every node is fed by all before it, by one of five operations an edge.

With four nodes the cell of NAS-Bench-201 (Dong and Yang 2020), 6 edges. One cell for the whole network
(``share=cell``), one a stage (``stage``: 12 edges with two stages), or one a layer (``layer``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bilevel_core.errors import UsageError
from bilevel_nas.spaces.base import Architecture, Decision, SearchSpace, Shape

if TYPE_CHECKING:
    from torch import nn

OPERATIONS = ("none", "skip", "conv1x1", "conv3x3", "avgpool")
COST = (0.0, 0.0, 1.0, 9.0, 0.0)
"""Weights of an operation, in units of c^2 for c channels."""


@dataclass(frozen=True)
class Cell201(SearchSpace):
    """See the module.

    Attributes:
        nodes: of a cell; n (n - 1) / 2 edges.
        share: one cell for the network, one a stage, or one a layer.
        stages: each with twice the channels and half the resolution of the one before.
        cells: cells a stage.
        channels: of the first stage.
        stem_stride: of the first convolution; 2 halves the resolution at once.
    """

    nodes: int = 4
    share: Literal["cell", "stage", "layer"] = "cell"
    stages: int = 2
    cells: int = 1
    channels: int = 8
    stem_stride: int = 2

    def __post_init__(self) -> None:
        for label, value, least in (
            ("nodes", self.nodes, 2),
            ("stages", self.stages, 1),
            ("cells", self.cells, 1),
            ("channels", self.channels, 1),
            ("stem_stride", self.stem_stride, 1),
        ):
            if value < least:
                raise UsageError(f"Expected {label} of at least {least}, got {value}.")
        if self.share not in ("cell", "stage", "layer"):
            raise UsageError(f"Expected share=cell, stage or layer, got {self.share!r}.")

    @property
    def name(self) -> str:
        """See `SearchSpace.name`."""
        return f"cell201-{len(self.decisions)}"

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(from, to) of a cell's edges, in the order of NAS-Bench-201's strings."""
        return tuple((a, b) for b in range(1, self.nodes) for a in range(b))

    @property
    def groups(self) -> int:
        """How many cells are told apart."""
        return {"cell": 1, "stage": self.stages, "layer": self.stages * self.cells}[self.share]

    def group_of(self, stage: int, cell: int) -> int:
        """Which of them stands at a place of the network."""
        return {"cell": 0, "stage": stage, "layer": stage * self.cells + cell}[self.share]

    def make_decisions(self) -> tuple[Decision, ...]:
        """See `SearchSpace.make_decisions`."""
        return tuple(
            Decision(
                f"c{g}e{a}{b}" if self.groups > 1 else f"e{a}{b}",
                OPERATIONS,
                cost=COST,
                free=frozenset((1, 4)),
                zero=0,
                skip=1,
                node=f"c{g}/{b}",
            )
            for g in range(self.groups)
            for a, b in self.edges
        )

    def fixed(self) -> dict[str, Architecture]:
        """All edges alike, and a hand-made cell with the residual form of ResNet where it fits."""
        n = len(self.decisions)
        found = {"all conv3x3": (3,) * n, "all conv1x1": (2,) * n, "all skip": (1,) * n}
        if self.nodes == 4:
            # Two 3x3 convolutions in a row around an identity.
            found["ResNet-like"] = (3, 0, 3, 1, 0, 1) * self.groups
        return found

    def draw(self, architecture: Architecture) -> list[str]:
        """Each cell as a string of NAS-Bench-201's form: one group a node, operation~source."""
        lines: list[str] = []
        size = len(self.edges)
        for g in range(self.groups):
            codes = architecture[g * size : (g + 1) * size]
            nodes: list[str] = []
            for b in range(1, self.nodes):
                told = (f"{OPERATIONS[c]}~{a}" for (a, to), c in zip(self.edges, codes, strict=True) if to == b)
                nodes.append("|" + "|".join(told) + "|")
            lines.append((f"cell {g}: " if self.groups > 1 else "cell: ") + "+".join(nodes))
        return lines

    def build(self, architecture: Architecture, shape: Shape) -> nn.Module:
        """See `SearchSpace.build`."""
        from bilevel_nas.spaces.cell201_network import CellNetwork

        self.check(architecture)
        return CellNetwork(self, shape, architecture)

    def supernet(self, shape: Shape, activation: str = "silu", partial: int = 1) -> nn.Module:
        """See `SearchSpace.supernet`."""
        from bilevel_nas.spaces.cell201_network import CellNetwork

        return CellNetwork(self, shape, None, activation, partial)
