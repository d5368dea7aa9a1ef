"""`mobile`: stages of inverted bottlenecks whose depth, kernels and expansions are chosen.

The space of MnasNet (Tan et al. 2019), ProxylessNAS (Cai et al. 2019), FBNet (Wu et al. 2019) and Once-for-all (Cai et
al. 2020). The supernet shares weights as Once-for-all does: smaller kernels are the centres of larger ones, smaller
expansions the first channels, shallower stages the first layers.
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
class Mobile(SearchSpace):
    """See the module.

    Attributes:
        stages: each of half the resolution and twice the channels of the one before.
        depth: most layers of a stage.
        kernels: odd and ascending.
        expansions: ascending.
        channels: of the stem.
    """

    stages: int = 3
    depth: int = 3
    kernels: tuple[int, ...] = (3, 5)
    expansions: tuple[int, ...] = (2, 4)
    channels: int = 8

    def __post_init__(self) -> None:
        for name in ("kernels", "expansions"):
            values = tuple(int(v) for v in getattr(self, name))
            object.__setattr__(self, name, values)
            if not values or list(values) != sorted(set(values)) or values[0] < 1:
                raise UsageError(f"Expected ascending {name} of at least 1, got {values}.")
        if any(k % 2 == 0 for k in self.kernels):
            raise UsageError(f"Expected odd kernels, got {self.kernels}.")
        if self.stages < 1 or self.depth < 1 or self.channels < 1:
            raise UsageError("Expected stages, depth and channels of at least 1.")

    @property
    def name(self) -> str:
        """See `SearchSpace.name`."""
        kernels, expansions = ("x".join(map(str, v)) for v in (self.kernels, self.expansions))
        return f"mobile-{self.stages}-{self.depth}-{kernels}-{expansions}"

    def make_decisions(self) -> tuple[Decision, ...]:
        """A depth for each stage, and kernel and expansion of each layer that there is."""
        found: list[Decision] = []
        depths = tuple(range(1, self.depth + 1))
        cost = tuple(float(e) for e in self.expansions)
        for s in range(self.stages):
            found.append(Decision(f"s{s}_depth", depths))
            for k in range(self.depth):
                when = None if k == 0 else Condition(f"s{s}_depth", depths[k:])
                found.append(Decision(f"s{s}l{k}_kernel", self.kernels, when=when))
                found.append(Decision(f"s{s}l{k}_expansion", self.expansions, cost=cost, when=when))
        return tuple(found)

    def place(self, stage: int, layer: int) -> int:
        """Where the kernel's decision of a layer stands; the expansion's is the next, a stage's depth before them."""
        return stage * (1 + 2 * self.depth) + 1 + 2 * layer

    def fixed(self) -> dict[str, Architecture]:
        """The smallest and the largest."""
        smallest = self.canonical((0,) * len(self.decisions))
        return {"smallest": smallest, "largest": tuple(len(d.choices) - 1 for d in self.decisions)}

    def build(self, architecture: Architecture, shape: Shape) -> nn.Module:
        """See `SearchSpace.build`."""
        from bilevel_nas.spaces.mobile_network import build_mobile

        self.check(architecture)
        return build_mobile(self, shape, architecture)

    def supernet(self, shape: Shape, activation: str = "silu", partial: int = 1) -> nn.Module:
        """See `SearchSpace.supernet`."""
        from bilevel_nas.spaces.mobile_network import MobileSupernet

        if partial != 1:
            raise UsageError("mask=partial mixes operations; choices of 'mobile' share theirs already: use mask=full.")
        return MobileSupernet(self, shape, activation)
