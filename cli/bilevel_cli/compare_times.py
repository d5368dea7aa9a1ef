"""When each run of a comparison had its values: curves for the picture, and the seconds until the answer."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

NEAR = 1e-3
"""A run has the answer from where its value is within this share of the best verified one,"""
LEAST = 1e-6
"""or within this, where that is more: of a best value of 0 every share is 0."""

Curve = Sequence[Mapping[str, float]]


def curve(trace: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The better points of a run: seconds and the leader's objective, the check not included."""
    return [
        {"time": float(row["time"]), "objective": float(row["objective"])}
        for row in trace
        if row.get("objective") is not None and row.get("time") is not None
    ]


def reached(points: Curve, best: float, sign: float) -> float | None:
    """Seconds until a run's value was as near the best one as `NEAR` and `LEAST` say; None if it never was.

    Args:
        points: a `curve`.
        best: the best verified value.
        sign: -1 where the leader maximises.
    """
    limit = sign * best + max(NEAR * abs(best), LEAST)
    return next((p["time"] for p in points if sign * p["objective"] <= limit), None)


def lines(rows: Sequence[tuple[str, Sequence[Curve | None], float | None]], sign: float) -> list[str]:
    """How long each entry took to the best verified value, as lines of text; none where no run has a curve.

    Args:
        rows: for each entry its label, the `curve` of each run (None of those that were refuted, whose values are none
            of the problem), and the best verified value of its kind.
        sign: -1 where the leader maximises.
    """
    told = [(label, curves, best) for label, curves, best in rows if best is not None and curves]
    if not any(len(points) > 1 for _, curves, _ in told for points in curves if points is not None):
        return []
    width = max(len(label) for label, _, _ in told)
    out = [f"seconds until within {100.0 * NEAR:g} % (or {LEAST:g}) of the best verified value, without the check"]
    for label, curves, best in told:
        honest = [points for points in curves if points is not None]
        times = [t for points in honest if (t := reached(points, best, sign)) is not None]
        said = f"{statistics.fmean(times):.2f}" if times else "never" if honest else "refuted"
        few = f" ({len(times)} of {len(curves)} runs)" if 0 < len(times) < len(curves) else ""
        out.append(f"  {label.ljust(width)}  {said}{few}")
    return out
