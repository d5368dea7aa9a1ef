"""Who travels where, and what a route costs them: the lower level's data, checked when it is made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bilevel_core.errors import ModelError
from bilevel_toll.congestion.graph import Graph
from bilevel_toll.congestion.roads import Roads
from bilevel_toll.network import Demand, Network, merged, sourced


@dataclass(frozen=True)
class UserClass:
    """Users with one value of time.

    Attributes:
        name: how results call them.
        value_of_time: money for a unit of time; a toll of this size weighs as much as a unit of time.
        share: part of the common demands that they make up; not used with ``demands``.
        demands: trips of their own; None to take a share of the common ones.
    """

    name: str = "all"
    value_of_time: float = 1.0
    share: float = 1.0
    demands: tuple[Demand, ...] | None = None


class Traffic:
    """A network with trips on it: what `user_equilibrium` takes.

    Every class and pair is one commodity; arrays over commodities have shape (commodities,).

    Args:
        network: the roads; arcs with ``b`` > 0 are congested.
        demands: trips; those of one pair are added up. May be empty where every class has its own.
        classes: users by value of time; one class, to whom a toll of 1 is a unit of time, when left out.
        fixed: what each arc costs everyone besides time, in units of time, shape (arcs,): existing tolls, distance.
        name: shown in results.
        unit: unit of times and tolls, shown in results.

    Raises:
        ModelError: no trips, a pair without a route, a congested arc without capacity, shares that do not add up to 1,
            a value of time that is not positive, fixed costs of the wrong length or negative.
        UsageError: a node that does not exist.
    """

    def __init__(
        self,
        network: Network,
        demands: Iterable[Demand],
        classes: Sequence[UserClass] = (UserClass(),),
        *,
        fixed: np.ndarray | None = None,
        name: str = "traffic",
        unit: str = "",
    ) -> None:
        self.network, self.name, self.unit = network, name, unit
        self.roads = Roads.of(network)
        self.graph = Graph(network)
        self.classes = tuple(classes)
        self.fixed = np.zeros(len(network.arcs)) if fixed is None else np.asarray(fixed, dtype=float)
        if self.fixed.shape != (len(network.arcs),) or not (np.isfinite(self.fixed) & (self.fixed >= 0.0)).all():
            raise ModelError(f"Expected {len(network.arcs)} fixed costs of at least 0, got {self.fixed!r}.")
        _check(self.classes)
        common = tuple(demands)
        self.demands: tuple[tuple[int, Demand], ...] = tuple(
            (k, d) for k, c in enumerate(self.classes) for d in merged(_own(c, common), network)
        )
        self.trips = np.array([d.trips for _, d in self.demands], dtype=float)
        self.user_class = np.array([k for k, _ in self.demands], dtype=np.int64)
        self.starts = np.array([self.graph.start(network.index(d.origin)) for _, d in self.demands], dtype=np.int64)
        self.ends = np.array([network.index(d.destination) for _, d in self.demands], dtype=np.int64)
        self.origins, self.origin_row = np.unique(self.starts, return_inverse=True)
        self._check_routes()

    @property
    def values_of_time(self) -> np.ndarray:
        """By class, shape (classes,)."""
        return np.array([c.value_of_time for c in self.classes], dtype=float)

    def with_roads(self, roads: Roads, fixed: np.ndarray | None = None) -> Traffic:
        """The same trips on other roads of the same network: network design."""
        other = object.__new__(Traffic)
        other.__dict__.update(self.__dict__)
        other.roads = roads
        other.fixed = self.fixed if fixed is None else fixed
        return other

    def _check_routes(self) -> None:
        trees = self.graph.trees(self.roads.free + self.fixed, self.origins)
        reach = trees.distance[self.origin_row, self.ends]
        without = [d for (_, d), c in zip(self.demands, reach, strict=True) if math.isinf(c)]
        if without:
            lost = list(dict.fromkeys(d.label for d in without))
            more = f" and {len(lost) - 5} more pairs" if len(lost) > 5 else ""
            raise ModelError(
                f"{sourced(without[0])}There is no route for {', '.join(lost[:5])}{more}: add arcs, or leave the "
                "demand out."
            )


def _own(user: UserClass, common: tuple[Demand, ...]) -> tuple[Demand, ...]:
    if user.demands is not None:
        return user.demands
    if user.share == 1.0:
        return common
    return tuple(replace(d, trips=d.trips * user.share) for d in common)


def _check(classes: Sequence[UserClass]) -> None:
    if not classes:
        raise ModelError("Expected at least one class of users.")
    if len({c.name for c in classes}) < len(classes):
        raise ModelError(f"Two classes of users have one name: {', '.join(c.name for c in classes)}.")
    for c in classes:
        if not (math.isfinite(c.value_of_time) and c.value_of_time > 0.0):
            raise ModelError(f"Class {c.name!r}: expected a positive value of time, got {c.value_of_time!r}.")
        if c.demands is None and not 0.0 < c.share <= 1.0:
            raise ModelError(f"Class {c.name!r}: expected a share in (0, 1], got {c.share!r}.")
    shared = [c.share for c in classes if c.demands is None]
    if shared and abs(sum(shared) - 1.0) > 1e-9:
        raise ModelError(f"The classes' shares of the trips add up to {sum(shared):g}, not 1.")
