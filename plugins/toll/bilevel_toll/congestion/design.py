"""`NetworkDesign`: capacity added to some roads, against user equilibrium.

Source: Marcotte (1986), Network design problem with congestion effects, Mathematical Programming 34.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bilevel_core.errors import ModelError
from bilevel_core.sampling.space import Continuous
from bilevel_toll.congestion.equilibrium import Flows, user_equilibrium
from bilevel_toll.congestion.objectives import Aim, Units, evaluate
from bilevel_toll.congestion.problem import TrafficProblem, tidy
from bilevel_toll.congestion.sensitivity import adjoint
from bilevel_toll.congestion.traffic import Traffic


class NetworkDesign(TrafficProblem):
    """The leader adds capacity z to roads and pays for it; users answer by their equilibrium.

    First objective: the aim's value plus the cost of building, sum over arcs of price z^power. The leader's variables
    are ``add[ARC]``, in the unit of the capacities.

    Args:
        traffic: network and trips.
        roads: labels of the arcs that may be widened, with the price of a unit of capacity in units of the objective.
        aims: as for `CongestedTolls`; the cost of building is part of the first.
        upper: most capacity that may be added to an arc.
        power: of z in the cost: 1 for constant prices, 2 for rising ones.
        budget: most that may be spent; None for no limit.
        units: for emissions.
        name: shown in results.

    Raises:
        ModelError: no road, one without congestion, a price that is negative, a bound that is not positive.
        UsageError: an arc that does not exist.
    """

    def __init__(
        self,
        traffic: Traffic,
        roads: Mapping[str, float],
        aims: Sequence[Aim] = ("time",),
        *,
        upper: float,
        power: float = 1.0,
        budget: float | None = None,
        units: Units | None = None,
        name: str = "network-design",
    ) -> None:
        network = traffic.network
        if not roads:
            raise ModelError("No road may be widened: name at least one, as 'tail-head'.")
        self.arcs = np.array([network.arc_index(label) for label in roads], dtype=np.int64)
        self.prices = np.array([float(p) for p in roads.values()])
        for label, arc, price in zip(roads, self.arcs, self.prices, strict=True):
            if traffic.roads.b[arc] <= 0.0:
                raise ModelError(f"Arc {label} is not congested (b = 0): more capacity has no effect.")
            if not (math.isfinite(price) and price >= 0.0):
                raise ModelError(f"Arc {label}: expected a price of at least 0, got {price!r}.")
        if not (math.isfinite(upper) and upper > 0.0):
            raise ModelError(f"Expected a positive bound for added capacity, got {upper!r}.")
        if not (math.isfinite(power) and power >= 1.0):
            raise ModelError(f"Expected a power of at least 1 in the cost of building, got {power!r}.")
        if budget is not None and not (math.isfinite(budget) and budget > 0.0):
            raise ModelError(f"Expected a positive budget, got {budget!r}.")
        self.power, self.budget = power, budget
        variables = [Continuous(f"add[{label}]", 0.0, upper) for label in roads]
        super().__init__(traffic, variables, aims, units, name)

    def cost(self, point: np.ndarray) -> float:
        """What building costs."""
        return float(self.prices @ point**self.power)

    def violation(self, point: np.ndarray) -> float:
        """By how much the budget is exceeded, relative to it."""
        return 0.0 if self.budget is None else max(0.0, self.cost(point) / self.budget - 1.0)

    def within(self, point: np.ndarray) -> np.ndarray:
        """See `TrafficProblem.within`: what costs more than the budget is scaled down in all its parts."""
        point = super().within(point)
        if self.budget is None or self.cost(point) <= self.budget:
            return point
        return point * (self.budget / self.cost(point)) ** (1.0 / self.power)

    def limit(self, point: np.ndarray) -> tuple[float, np.ndarray] | None:
        """See `TrafficProblem.limit`: the share of the budget that is left."""
        if self.budget is None:
            return None
        point = np.maximum(np.asarray(point, dtype=float), 0.0)
        rising = self.prices * self.power * point ** (self.power - 1.0)
        return 1.0 - self.cost(point) / self.budget, -rising / self.budget

    def setting(self, point: np.ndarray) -> tuple[Traffic, np.ndarray]:
        """See `TrafficProblem.setting`."""
        capacity = self.traffic.roads.capacity.copy()
        capacity[self.arcs] += point
        traffic = self.traffic.with_roads(self.traffic.roads.with_capacity(capacity))
        return traffic, np.zeros(len(capacity))

    def flows(self, point: np.ndarray, start: Flows | None = None) -> Flows:
        """See `TrafficProblem.flows`."""
        traffic, tolls = self.setting(np.asarray(point, dtype=float))
        return user_equilibrium(traffic, tolls, start=start)

    def value(self, point: np.ndarray, flows: Flows, aim: Aim) -> float:
        """See `TrafficProblem.value`."""
        built = self.cost(np.asarray(point, dtype=float)) if aim == self.aims[0] else 0.0
        return evaluate(aim, flows, self.units).value + built

    def gradient(self, point: np.ndarray, flows: Flows) -> tuple[np.ndarray, float]:
        """See `TrafficProblem.gradient`.

        Added capacity moves the times by dt/dC = -(v / C) t'(v), which acts on the equilibrium as a toll of that size.
        """
        roads, flow = flows.traffic.roads, flows.flow
        found = evaluate(self.aims[0], flows, self.units)
        moved = adjoint(flows, found.by_flow)
        faster = -(flow / roads.capacity) * roads.slope(flow)
        if self.aims[0] == "welfare":
            direct = flows.traffic.values_of_time @ flows.by_class * faster
        elif self.aims[0] == "time":
            direct = flow * faster
        else:
            raise ModelError("Network design takes gradients of time and welfare only: use a sampling solver.")
        by_capacity = (direct - moved.by_class.sum(axis=0) * faster)[self.arcs]
        building = self.prices * self.power * np.asarray(point, dtype=float) ** (self.power - 1.0)
        return by_capacity + building, moved.residual

    def rows(self, point: np.ndarray, flows: Flows) -> Mapping[str, Any]:
        """The cost, and a row for each road that may be widened."""
        labels, before = self.traffic.network.labels, self.untouched.flow
        return {
            "cost_of_building": tidy(self.cost(point)),
            **({} if self.budget is None else {"budget": self.budget}),
            "roads": [
                {
                    "link": labels[a],
                    "capacity_before": tidy(self.traffic.roads.capacity[a]),
                    "capacity_added": tidy(z),
                    "flow_before": tidy(before[a]),
                    "flow": tidy(flows.flow[a]),
                }
                for a, z in zip(self.arcs, point, strict=True)
            ],
        }
