"""Revenue and users' response as functions of one toll, exactly: they change only at the users' savings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_toll.problem import TollProblem
from bilevel_toll.routes import INF, distances

SAME = 1e-9
"""Savings that differ by less, relative to the saving or the scale of costs, are one saving."""


@dataclass(frozen=True)
class Regime:
    """A range of tolls over which the same users pay.

    Attributes:
        start: users who leave have left beyond this toll; 0 for the first regime.
        end: the highest toll that these users still pay; infinite for the last regime, in which nobody pays.
        trips: trips on the arc.
        revenue: at ``end``, where it is largest in this regime; 0 in the last.
    """

    start: float
    end: float
    trips: float
    revenue: float


@dataclass(frozen=True)
class Curve:
    """One arc's toll against revenue and response, all other tolls zero, ties for the leader.

    Attributes:
        arc: label of the arc.
        unit: unit of tolls; "" where it is not stated.
        savings: distinct savings of users by the arc at zero toll, ascending, shape (n,). Each is where users leave.
        leaving: trips with that saving, shape (n,).
    """

    arc: str
    unit: str
    savings: np.ndarray
    leaving: np.ndarray

    def trips(self, toll: float) -> float:
        """Trips on the arc at a toll."""
        return float(self.leaving[self.savings >= toll - SAME * self.savings].sum())

    def revenue(self, toll: float) -> float:
        """What the arc earns at a toll."""
        return toll * self.trips(toll)

    @property
    def regimes(self) -> tuple[Regime, ...]:
        """From toll 0 up; the last is the one in which nobody pays."""
        found: list[Regime] = []
        start = 0.0
        for end in self.savings:
            trips = self.trips(float(end))
            found.append(Regime(start, float(end), trips, float(end) * trips))
            start = float(end)
        return (*found, Regime(start, INF, 0.0, 0.0))

    @property
    def best(self) -> tuple[float, float]:
        """The toll of most revenue (the lowest of several), and the revenue; (0, 0) where nobody saves by the arc."""
        if not len(self.savings):
            return 0.0, 0.0
        best = max(self.regimes, key=lambda r: r.revenue)
        return best.end, best.revenue

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON: an end without limit is null."""
        toll, revenue = self.best
        return {
            "arc": self.arc,
            "unit": self.unit,
            "best_toll": toll,
            "best_revenue": revenue,
            "regimes": [
                {
                    "from_toll": r.start,
                    "to_toll": r.end if np.isfinite(r.end) else None,
                    "trips": r.trips,
                    "revenue_at_end": r.revenue,
                }
                for r in self.regimes
            ],
        }


def response(problem: TollProblem, arc: str = "") -> Curve:
    """The curve of one tollable arc while every other arc is free of toll.

    A pair saves by the arc the difference between its cheapest routes without and with it; it uses the arc as long as
    the toll is not higher.

    Args:
        problem: the problem.
        arc: label of the arc; may be left out where only one is tollable.

    Raises:
        UsageError: the arc does not exist or is not tollable, or several are tollable and none is named.
    """
    network = problem.network
    labels = [network.labels[a] for a in problem.tollable]
    if not arc:
        if len(labels) > 1:
            raise UsageError(f"{problem.name} has {len(labels)} tollable arcs: name one of {', '.join(labels)}.")
        arc = labels[0]
    chosen = network.arc_index(arc)
    if chosen not in problem.tollable:
        raise UsageError(f"Arc {arc} is not tollable in {problem.name}. Tollable: {', '.join(labels)}.")
    open_weights: list[float] = network.costs.tolist()
    closed_weights = list(open_weights)
    closed_weights[chosen] = INF
    by_origin: dict[int, tuple[list[float], list[float]]] = {}
    savings: dict[float, float] = {}
    for d in problem.demands:
        o, end = network.index(d.origin), network.index(d.destination)
        if o not in by_origin:
            by_origin[o] = (
                distances(network, o, open_weights).distance,
                distances(network, o, closed_weights).distance,
            )
        saving = by_origin[o][1][end] - by_origin[o][0][end]
        if saving > SAME * max(network.scale, by_origin[o][0][end]):
            key = next((s for s in savings if abs(s - saving) <= SAME * max(network.scale, s)), saving)
            savings[key] = savings.get(key, 0.0) + d.trips
    ordered = sorted(savings)
    return Curve(arc, problem.unit, np.array(ordered), np.array([savings[s] for s in ordered]))
