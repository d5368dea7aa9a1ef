"""`graph`: message passing over small graphs, layer by layer, and a read-out; no graph library is needed.

Operations as in GraphNAS (Gao et al. 2020) and NAS-Bench-Graph (Qin et al. 2022): GCN (Kipf and Welling 2017),
GraphSAGE with means (Hamilton et al. 2017), GIN (Xu et al. 2019), GAT (Velickovic et al. 2018), a layer without
neighbours, and the identity. A graph is a matrix of its nodes' features with its adjacency matrix beside it; classes
are those of whole graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilevel_core.errors import UsageError
from bilevel_nas.spaces.base import Architecture, Decision, SearchSpace, Shape

if TYPE_CHECKING:
    from torch import nn

OPERATIONS = ("skip", "fc", "gcn", "sage", "gin", "gat")
COST = (0.0, 1.0, 1.0, 2.0, 2.0, 1.0)
READOUTS = ("mean", "max", "sum")


@dataclass(frozen=True)
class Graph(SearchSpace):
    """See the module.

    Attributes:
        layers: of message passing.
        width: of the nodes' hidden features.
    """

    layers: int = 3
    width: int = 16

    def __post_init__(self) -> None:
        if self.layers < 1 or self.width < 1:
            raise UsageError(f"Expected layers and width of at least 1, got {self.layers} and {self.width}.")

    @property
    def name(self) -> str:
        """See `SearchSpace.name`."""
        return f"graph-{self.layers}"

    def make_decisions(self) -> tuple[Decision, ...]:
        """An operation for each layer, and the read-out."""
        layers = [
            Decision(f"layer{k}", OPERATIONS, cost=COST, free=frozenset((0,)), skip=0) for k in range(self.layers)
        ]
        return (*layers, Decision("readout", READOUTS))

    def fixed(self) -> dict[str, Architecture]:
        """All layers alike, read out by the mean."""
        return {f"all {o}": (*(k,) * self.layers, 0) for k, o in enumerate(OPERATIONS)}

    def build(self, architecture: Architecture, shape: Shape) -> nn.Module:
        """See `SearchSpace.build`."""
        from bilevel_nas.spaces.graph_network import GraphNetwork

        self.check(architecture)
        return GraphNetwork(self, shape, architecture, "silu")

    def supernet(self, shape: Shape, activation: str = "silu", partial: int = 1) -> nn.Module:
        """See `SearchSpace.supernet`."""
        from bilevel_nas.spaces.graph_network import GraphNetwork

        if partial != 1:
            raise UsageError("mask=partial is for channels of images: use mask=full for the space 'graph'.")
        return GraphNetwork(self, shape, None, activation)
