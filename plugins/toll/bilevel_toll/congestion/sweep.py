"""Revenue and total time against one toll under congestion; the tolls at which users begin to leave, and all have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_toll.congestion.equilibrium import Flows
from bilevel_toll.congestion.tolls import CongestedTolls

SAME = 1e-6
"""Flow that differs by less (relative) from that without toll counts as the same; so little of it as none."""
BISECTIONS = 30


@dataclass(frozen=True)
class Sweep:
    """A common toll on some arcs, the lower and upper bound among its values.

    Attributes:
        name: of the group of arcs.
        unit: of times and tolls.
        tolls: shape (n,), ascending.
        revenue, total_time, flow: at each; the flow is that on all the tolled arcs together.
        stays: users stay on the arcs up to this toll; None where they stay up to the highest.
        leaves: nobody uses them from this toll on; None where some do up to the highest.
    """

    name: str
    unit: str
    tolls: np.ndarray
    revenue: np.ndarray
    total_time: np.ndarray
    flow: np.ndarray
    stays: float | None
    leaves: float | None

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        best, fast = int(np.argmax(self.revenue)), int(np.argmin(self.total_time))
        return {
            "arcs": self.name,
            "unit": self.unit,
            "best_toll_for_revenue": float(self.tolls[best]),
            "best_revenue": float(self.revenue[best]),
            "best_toll_for_time": float(self.tolls[fast]),
            "least_total_time": float(self.total_time[fast]),
            "all_stay_up_to": self.stays,
            "all_have_left_from": self.leaves,
            "points": [
                {"toll": float(t), "revenue": float(r), "total_travel_time": float(s), "flow": float(v)}
                for t, r, s, v in zip(self.tolls, self.revenue, self.total_time, self.flow, strict=True)
            ],
        }


def sweep(problem: CongestedTolls, points: int = 41) -> Sweep:
    """Ask the users at evenly spaced tolls, and find where regimes change by bisection.

    Raises:
        UsageError: the problem has several tolls, steps, or fewer than two points are asked for.
    """
    if len(problem.groups) != 1 or problem.step:
        raise UsageError(
            "A sweep varies one toll without steps: name one arc, a cordon, or equal=yes for a common toll."
        )
    if points < 2:
        raise UsageError(f"Expected at least 2 points, got {points}.")
    arcs = list(problem.groups[0])
    tolls = np.linspace(problem.lower, problem.upper, points)
    last: Flows = problem.untouched
    first = float(last.flow[arcs].sum())
    found: list[tuple[float, float, float]] = []
    for toll in tolls:
        last = problem.flows(np.array([toll]), last)
        found.append((last.revenue, last.total_time, float(last.flow[arcs].sum())))
    revenue, total, flow = (np.array(column) for column in zip(*found, strict=True))

    def used(toll: float) -> float:
        return float(problem.flows(np.array([toll]), last).flow[arcs].sum())

    return Sweep(
        problem.names[0], problem.traffic.unit, tolls, revenue, total, flow,
        _change(tolls, flow >= first * (1.0 - SAME), lambda t: used(t) >= first * (1.0 - SAME)),
        _change(tolls, flow > first * SAME, lambda t: used(t) > first * SAME),
    )  # fmt: skip


def _change(tolls: np.ndarray, holds: np.ndarray, test: Any) -> float | None:
    """The toll up to which something holds; None where it holds at all of them."""
    if holds.all():
        return None
    k = int(np.argmin(holds))
    if k == 0:
        return float(tolls[0])
    low, high = float(tolls[k - 1]), float(tolls[k])
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if test(middle) else (low, middle)
    return low
