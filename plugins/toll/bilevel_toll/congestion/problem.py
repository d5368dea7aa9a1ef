"""Bilevel problems whose follower is a user equilibrium: second-best tolls, and network design.

Upper level: tolls within bounds on some arcs, or capacity added to some. Lower level: every user takes a cheapest
route, times growing with traffic, which is the minimum of Beckmann's convex function.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from bilevel_core.errors import ModelError, UsageError
from bilevel_core.problems.nested import Answer, Call, NestedProblem
from bilevel_core.result import Values
from bilevel_core.sampling.space import Space, Variable
from bilevel_toll.congestion.equilibrium import Flows, class_costs, user_equilibrium
from bilevel_toll.congestion.objectives import AIMS, LABELS, Aim, Units, evaluate, lengths
from bilevel_toll.congestion.traffic import Traffic

STRUCTURE = "congested-traffic"
LOST = 1e-6
"""Trips that may be missing at a node, as a share of all trips, before flows count as none."""


class TrafficProblem(NestedProblem):
    """Base: the leader changes roads or tolls, users answer by their equilibrium.

    In results ``y["flow"]`` has shape (bundles, arcs): flows of each class from each origin, in the order of
    ``self.bundles``.

    Args:
        traffic: network and trips.
        variables: the leader's.
        aims: what the leader wants: one, or several for a Pareto front.
        units: for emissions.
        name: shown in results.

    Raises:
        ModelError: no aim or an unknown one, emissions without lengths.
    """

    def __init__(
        self, traffic: Traffic, variables: Sequence[Variable], aims: Sequence[Aim], units: Units | None, name: str
    ) -> None:
        for aim in aims:
            if aim not in AIMS:
                raise ModelError(f"Expected objectives among {', '.join(AIMS)}, got {aim!r}.")
        if len(set(aims)) < len(aims):
            raise ModelError(f"An objective is given twice: {', '.join(aims)}.")
        self.traffic, self.units = traffic, units or Units()
        self.aims: tuple[Aim, ...] = tuple(aims)
        if "emissions" in aims:
            lengths(traffic, self.units)
        pairs = zip(traffic.user_class.tolist(), traffic.origin_row.tolist(), strict=True)
        self.bundles: tuple[tuple[int, int], ...] = tuple(sorted(set(pairs)))
        super().__init__(
            Space(tuple(variables)), self._answer, evaluate=self._evaluate, objectives=[LABELS[a] for a in aims],
            exact=True, name=name, structure=frozenset({STRUCTURE}),
        )  # fmt: skip

    @abstractmethod
    def flows(self, point: np.ndarray, start: Flows | None = None) -> Flows:
        """The equilibrium at a point of the leader's space, shape (variables,)."""

    @abstractmethod
    def value(self, point: np.ndarray, flows: Flows, aim: Aim) -> float:
        """The leader's objective there, minimised."""

    @abstractmethod
    def gradient(self, point: np.ndarray, flows: Flows) -> tuple[np.ndarray, float]:
        """Derivative of the first objective by the variables, shape (variables,), and the linear solve's residual."""

    def hessian(self, point: np.ndarray, flows: Flows) -> np.ndarray | None:
        """Second derivatives of the first objective while the used routes stay, shape (variables, variables).

        None where they are not known.
        """
        return None

    def violation(self, point: np.ndarray) -> float:
        """How far the leader's constraints are from holding."""
        return 0.0

    def within(self, point: np.ndarray) -> np.ndarray:
        """A point brought back into the bounds and what `limit` says, shape (variables,)."""
        return np.clip(point, *self.bounds)

    def limit(self, point: np.ndarray) -> tuple[float, np.ndarray] | None:
        """A constraint beside the bounds: a value that is at least 0 where it holds, and its gradient (variables,).

        None where there is none, or none that a search by derivatives could follow.
        """
        return None

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds of the leader's variables, shape (variables,) each."""
        variables: Any = self.space.variables
        return np.array([float(v.lower) for v in variables]), np.array([float(v.upper) for v in variables])

    def setting(self, point: np.ndarray) -> tuple[Traffic, np.ndarray]:
        """Roads and tolls of all arcs at a point."""
        return self.traffic, np.zeros(len(self.traffic.network.arcs))

    @cached_property
    def untouched(self) -> Flows:
        """The equilibrium before the leader does anything."""
        return user_equilibrium(self.traffic)

    def _answer(self, x: dict[str, Any], call: Call) -> Answer:
        point = self.space.point(x)
        flows = self.flows(point, self.untouched)
        upper = tuple(self.value(point, flows, aim) for aim in self.aims)
        value = upper if flows.converged else (math.nan,) * len(upper)
        return Answer({"flow": self.split(flows)}, value, flows.potential, self.violation(point))

    def split(self, flows: Flows) -> np.ndarray:
        """Flows by bundle, shape (bundles, arcs)."""
        traffic = flows.traffic
        classes, rows = traffic.user_class[flows.owner], traffic.origin_row[flows.owner]
        mine = [np.where((classes == k) & (rows == o), flows.route_flow, 0.0) for k, o in self.bundles]
        return np.array([flows.routes @ m for m in mine])

    def _evaluate(self, x: dict[str, Any], y: Values) -> Answer:
        """Everything from given flows: conservation at each node, Beckmann's function, the leader's objective."""
        point, traffic = self.space.point(x), self.traffic
        arcs = len(traffic.network.arcs)
        flow = np.asarray(y.get("flow", np.zeros(0)), dtype=float)
        if flow.shape != (len(self.bundles), arcs):
            raise UsageError(f"y['flow']: expected shape {(len(self.bundles), arcs)}, got {flow.shape}.")
        changed, tolls = self.setting(point)
        by_class = np.array(
            [sum((f for f, (k, _) in zip(flow, self.bundles, strict=True) if k == c), np.zeros(arcs))
             for c in range(len(traffic.classes))]
        )  # fmt: skip
        total = by_class.sum(axis=0)
        wrong = max(float(-flow.min(initial=0.0)), self._lost(flow)) / float(traffic.trips.sum())
        if not wrong <= LOST:
            return Answer({}, (math.nan,) * len(self.aims), math.inf)
        potential = float(changed.roads.integral(total).sum() + (by_class * class_costs(changed, tolls)).sum())
        empty = np.zeros(0, dtype=np.int64)
        flows = Flows(changed, tolls, total, by_class, traffic.trips, 0.0, 0, 0, None, empty, np.zeros(0), False, True)
        upper = tuple(self.value(point, flows, aim) for aim in self.aims)
        return Answer(y, upper, potential, self.violation(point))

    def _lost(self, flow: np.ndarray) -> float:
        """Trips that appear or vanish at a node where they should not: the largest, over bundles."""
        traffic = self.traffic
        nodes = len(traffic.network.nodes)
        worst = 0.0
        for f, (k, o) in zip(flow, self.bundles, strict=True):
            mine = (traffic.user_class == k) & (traffic.origin_row == o)
            origin = traffic.network.index(traffic.demands[int(np.flatnonzero(mine)[0])][1].origin)
            balance = np.bincount(traffic.network.heads, f, nodes) - np.bincount(traffic.network.tails, f, nodes)
            balance -= np.bincount(traffic.ends[mine], traffic.trips[mine], nodes)
            balance[origin] += float(traffic.trips[mine].sum())
            worst = max(worst, float(np.abs(balance).max()))
        return worst

    def figures(self, flows: Flows) -> dict[str, Any]:
        """What is reported of an equilibrium beside the one without the leader."""
        before = self.untouched
        found: dict[str, Any] = {
            "total_travel_time": tidy(flows.total_time),
            "total_travel_time_before": tidy(before.total_time),
            "revenue": tidy(flows.revenue),
            "equilibrium_gap": flows.relative_gap,
        }
        for aim in self.aims:
            if aim in ("welfare", "emissions"):
                found[LABELS[aim]] = tidy(evaluate(aim, flows, self.units).value)
        if self.traffic.unit:
            found["unit"] = self.traffic.unit
        return found

    def details(self, x: Values, y: Values) -> dict[str, Any]:
        """Figures before and after, and a row for each arc that the leader touches."""
        point = self.point(x)
        flows = self.flows(point, self.untouched)
        return {**self.figures(flows), **self.rows(point, flows)}

    def rows(self, point: np.ndarray, flows: Flows) -> Mapping[str, Any]:
        """Tables for `details`."""
        return {}


def tidy(value: Any) -> float:
    """Without the noise of floating point, at ten digits."""
    return float(f"{float(value):.10g}")
