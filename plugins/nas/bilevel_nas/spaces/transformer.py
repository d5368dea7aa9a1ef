"""`transformer`: vision transformers whose embedding, depth, heads and feed-forward widths are chosen.

Source: Chen, Peng, Fu and Ling (2021), AutoFormer, whose weight entanglement the supernet has: smaller choices are
parts of larger ones. Here the width of a feed-forward layer is its ratio times the largest embedding, not the one
chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilevel_core.errors import UsageError
from bilevel_core.sampling.space import Condition
from bilevel_nas.spaces.base import Architecture, Decision, SearchSpace, Shape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Transformer(SearchSpace):
    """See the module.

    Attributes:
        patch: side of the image patches; divides the images' sides.
        embeddings, depths, heads, ratios: what there is to choose from, ascending.
        head_width: dimensions of one head.
    """

    patch: int = 2
    embeddings: tuple[int, ...] = (16, 24, 32)
    depths: tuple[int, ...] = (2, 3, 4)
    heads: tuple[int, ...] = (2, 4)
    ratios: tuple[int, ...] = (1, 2)
    head_width: int = 8

    def __post_init__(self) -> None:
        for name in ("embeddings", "depths", "heads", "ratios"):
            values = tuple(int(v) for v in getattr(self, name))
            object.__setattr__(self, name, values)
            if not values or list(values) != sorted(set(values)) or values[0] < 1:
                raise UsageError(f"Expected ascending {name} of at least 1, got {values}.")
        if self.patch < 1 or self.head_width < 1:
            raise UsageError("Expected patch and head_width of at least 1.")

    @property
    def name(self) -> str:
        """See `SearchSpace.name`."""
        told = ("x".join(map(str, v)) for v in (self.embeddings, self.depths, self.heads, self.ratios))
        return f"transformer-{'-'.join(told)}"

    def make_decisions(self) -> tuple[Decision, ...]:
        """Embedding and depth of the network, heads and ratio of each layer that there is."""
        found = [Decision("embedding", self.embeddings), Decision("depth", self.depths)]
        width = self.head_width / self.embeddings[-1]
        for k in range(self.depths[-1]):
            with_it = tuple(d for d in self.depths if d > k)
            when = None if len(with_it) == len(self.depths) else Condition("depth", with_it)
            # Weights of a layer in units of the largest embedding squared.
            found.append(
                Decision(f"l{k}_heads", self.heads, cost=tuple(4.0 * h * width for h in self.heads), when=when)
            )
            found.append(Decision(f"l{k}_ratio", self.ratios, cost=tuple(2.0 * r for r in self.ratios), when=when))
        return tuple(found)

    def fixed(self) -> dict[str, Architecture]:
        """The smallest and the largest."""
        smallest = self.canonical((0,) * len(self.decisions))
        return {"smallest": smallest, "largest": tuple(len(d.choices) - 1 for d in self.decisions)}

    def build(self, architecture: Architecture, shape: Shape) -> nn.Module:
        """See `SearchSpace.build`."""
        from bilevel_nas.spaces.transformer_network import VisionTransformer

        self.check(architecture)
        depth = self.depths[architecture[1]]
        layers = [
            (self.heads[architecture[2 + 2 * k]], self.ratios[architecture[3 + 2 * k]] * self.embeddings[-1])
            for k in range(depth)
        ]
        return VisionTransformer(self, shape, self.embeddings[architecture[0]], layers, "gelu")

    def supernet(self, shape: Shape, activation: str = "silu", partial: int = 1) -> nn.Module:
        """See `SearchSpace.supernet`."""
        from bilevel_nas.spaces.transformer_network import TransformerSupernet

        if partial != 1:
            raise UsageError("mask=partial mixes operations; choices of 'transformer' share theirs: use mask=full.")
        return TransformerSupernet(self, shape, activation)
