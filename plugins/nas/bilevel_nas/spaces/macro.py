"""`macro`: a chain of layers, each an identity or one of two inverted bottlenecks.

The space of NAS-Bench-Macro (Su et al. 2021, "Prioritized architecture sampling with Monto-Carlo tree search"): eight
layers, three choices each; the first layers of the stages halve the resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilevel_core.errors import UsageError
from bilevel_nas.spaces.base import Architecture, Decision, SearchSpace, Shape

if TYPE_CHECKING:
    from torch import nn

OPERATIONS = ("identity", "mb3k3", "mb6k5")


@dataclass(frozen=True)
class Macro(SearchSpace):
    """See the module.

    Attributes:
        layers: of the network.
        channels: of the stem.
        strides: of each layer; a stride of 2 doubles the channels. Empty for 2 at every third layer.
    """

    layers: int = 8
    channels: int = 8
    strides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "strides", tuple(int(s) for s in self.strides))
        if self.layers < 1 or self.channels < 1:
            raise UsageError(f"Expected layers and channels of at least 1, got {self.layers} and {self.channels}.")
        if self.strides and (len(self.strides) != self.layers or set(self.strides) - {1, 2}):
            raise UsageError(f"Expected {self.layers} strides of 1 or 2, got {self.strides}.")

    @property
    def name(self) -> str:
        """See `SearchSpace.name`."""
        return f"macro-{self.layers}"

    @property
    def places(self) -> tuple[tuple[int, int, int], ...]:
        """(channels in, channels out, stride) of each layer."""
        strides = self.strides or tuple(2 if k and k % 3 == 0 else 1 for k in range(self.layers))
        found: list[tuple[int, int, int]] = []
        c = self.channels
        for s in strides:
            found.append((c, c * s, s))
            c *= s
        return tuple(found)

    def make_decisions(self) -> tuple[Decision, ...]:
        """See `SearchSpace.make_decisions`."""
        # Weights of a bottleneck, in units of channels in times channels out: expansion and projection, about.
        return tuple(
            Decision(f"layer{k}", OPERATIONS, cost=(0.0, 6.0, 12.0), free=frozenset((0,)), skip=0)
            for k in range(self.layers)
        )

    def fixed(self) -> dict[str, Architecture]:
        """All layers alike."""
        return {f"all {o}": (k,) * self.layers for k, o in enumerate(OPERATIONS)}

    def build(self, architecture: Architecture, shape: Shape) -> nn.Module:
        """See `SearchSpace.build`."""
        return self._network(architecture, shape, "silu", 1)

    def supernet(self, shape: Shape, activation: str = "silu", partial: int = 1) -> nn.Module:
        """See `SearchSpace.supernet`."""
        return self._network(None, shape, activation, partial)

    def _network(self, architecture: Sequence[int] | None, shape: Shape, act: str, partial: int) -> nn.Module:
        from bilevel_nas.spaces.macro_network import MacroNetwork

        if partial != 1:
            raise UsageError(
                "mask=partial mixes channels of one width; the layers of 'macro' change it: use mask=full."
            )
        if architecture is not None:
            self.check(tuple(architecture))
        return MacroNetwork(self, shape, architecture, act)
