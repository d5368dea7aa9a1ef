"""Given tolls audited under congestion: whether they are allowed, what they bring about, and how much that moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_toll.congestion.equilibrium import user_equilibrium
from bilevel_toll.congestion.objectives import LABELS, evaluate
from bilevel_toll.congestion.problem import tidy
from bilevel_toll.congestion.tolls import CongestedTolls

SHIFTS = (-1e-1, -1e-2, -1e-3, 1e-3, 1e-2, 1e-1)
"""Relative changes of all tolls under which the users are asked again."""
ROUNDED = 1e-6
"""Tolls may be so far from a bound, a step or each other, as a share of the upper bound: files have ten digits."""


def point_of(problem: CongestedTolls, tolls: np.ndarray, path: Path) -> np.ndarray:
    """The leader's variables for given tolls, shape (variables,).

    Args:
        problem: which arcs may have which tolls.
        tolls: of all arcs, in money, shape (arcs,).
        path: where they come from, for errors.

    Raises:
        UsageError: an arc has a toll that may have none, one of an equal-toll group another than the rest, a toll is
            out of bounds or between steps, or there are more booths than allowed.
    """
    labels, near = problem.traffic.network.labels, ROUNDED * problem.upper
    elsewhere = np.flatnonzero((tolls > 0.0) & ~problem.matrix.any(axis=1))
    if len(elsewhere):
        raise UsageError(f"{path}: arc {labels[elsewhere[0]]} has a toll and is not tollable in {problem.name}.")
    point = np.zeros(len(problem.groups))
    for k, (name, arcs) in enumerate(zip(problem.names, problem.groups, strict=True)):
        mine = tolls[list(arcs)]
        if float(np.ptp(mine)) > near:
            odd = int(np.argmax(np.abs(mine - mine[0])))
            raise UsageError(
                f"{path}: arcs {labels[arcs[0]]} and {labels[arcs[odd]]} have one toll in common ({name}), and here "
                f"{mine[0]:g} and {mine[odd]:g}."
            )
        if not problem.lower - near <= mine[0] <= problem.upper + near:
            raise UsageError(
                f"{path}: the toll {mine[0]:g} on {name} is not between {problem.lower:g} and {problem.upper:g}, the "
                "bounds of the problem."
            )
        steps = mine[0] / problem.unit
        if problem.step and abs(steps - round(steps)) * problem.step > near:
            raise UsageError(f"{path}: the toll {mine[0]:g} on {name} is no multiple of the step {problem.step:g}.")
        point[k] = round(steps) if problem.step else steps
    booths = problem.booths(point)
    if problem.most_booths is not None and booths > problem.most_booths:
        raise UsageError(f"{path}: {booths} arcs have a toll, and most_booths={problem.most_booths} allows no more.")
    return point


def audit(problem: CongestedTolls, point: np.ndarray) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Figures of the equilibrium, computed from no flows at all, and what becomes of it when all tolls change a little.

    Args:
        problem: whose tolls.
        point: the leader's variables, shape (variables,).
    """
    tolls = problem.tolls(point)
    flows = user_equilibrium(problem.traffic, tolls)
    figures: dict[str, Any] = {"problem": problem.name, "booths": problem.booths(point)}
    if problem.most_booths is not None:
        figures["most_booths"] = problem.most_booths
    figures |= {LABELS[aim]: tidy(evaluate(aim, flows, problem.units).value) for aim in problem.aims}
    figures |= problem.figures(flows)
    figures["converged"] = flows.converged
    rows: list[dict[str, Any]] = []
    for shift in SHIFTS:
        moved = user_equilibrium(problem.traffic, tolls * (1.0 + shift), start=flows)
        rows.append(
            {
                "tolls_changed_by": shift,
                "total_travel_time": tidy(moved.total_time),
                "revenue": tidy(moved.revenue),
            }
        )
    return figures, rows
