"""`mlp`: a perceptron whose depth and widths are chosen; small enough for a grid.

Wider layers and more depth contain the smaller ones, so that the supernet mixes masks of one set of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from bilevel_core.errors import UsageError
from bilevel_core.sampling.space import Condition
from bilevel_nas.spaces.base import Architecture, Decision, SearchSpace, Shape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Mlp(SearchSpace):
    """See the module.

    Attributes:
        depth: most hidden layers; 1 to this many are chosen from.
        widths: of a hidden layer, ascending.
    """

    depth: int = 2
    widths: tuple[int, ...] = (4, 8, 16, 32)

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(int(w) for w in self.widths))
        if self.depth < 1 or not self.widths or list(self.widths) != sorted(set(self.widths)) or self.widths[0] < 1:
            raise UsageError(f"Expected depth >= 1 and ascending widths >= 1, got {self.depth} and {self.widths}.")

    @property
    def name(self) -> str:
        """See `SearchSpace.name`."""
        return f"mlp-{self.depth}-{'x'.join(map(str, self.widths))}"

    def make_decisions(self) -> tuple[Decision, ...]:
        """The depth, and the width of each layer that there is."""
        depths = tuple(range(1, self.depth + 1))
        cost = tuple(float(w) for w in self.widths)
        layers = [
            Decision(f"width{k}", self.widths, cost, when=None if k == 0 else Condition("depth", depths[k:]))
            for k in range(self.depth)
        ]
        return (Decision("depth", depths), *layers)

    def fixed(self) -> dict[str, Architecture]:
        """The smallest and the largest."""
        last = len(self.widths) - 1
        smallest = self.canonical((0,) * len(self.decisions))
        return {"smallest": smallest, "largest": (self.depth - 1, *(last,) * self.depth)}

    def build(self, architecture: Architecture, shape: Shape) -> nn.Module:
        """See `SearchSpace.build`."""
        from torch import nn

        self.check(architecture)
        inputs = _size(shape)
        layers: list[nn.Module] = [nn.Flatten()]
        for k in range(architecture[0] + 1):
            width = self.widths[architecture[1 + k]]
            layers += [nn.Linear(inputs, width), nn.SiLU()]
            inputs = width
        return nn.Sequential(*layers, nn.Linear(inputs, shape.classes))

    def supernet(self, shape: Shape, activation: str = "silu", partial: int = 1) -> nn.Module:
        """See `SearchSpace.supernet`."""
        from bilevel_nas.spaces.mlp_network import MlpSupernet

        if partial != 1:
            raise UsageError("mask=partial needs channels, which the space 'mlp' has none of: use mask=full.")
        return MlpSupernet(self.depth, self.widths, _size(shape), shape.classes, activation)


def _size(shape: Shape) -> int:
    size = 1
    for n in cast("Sequence[int]", shape.inputs):
        size *= n
    return size
