"""Given tolls audited under congestion: whether they are allowed, what they bring about, and how much that moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bilevel_toll.congestion.equilibrium import Flows, user_equilibrium
from bilevel_toll.congestion.objectives import LABELS, evaluate
from bilevel_toll.congestion.problem import tidy
from bilevel_toll.congestion.tolls import NO_TOLL, CongestedTolls

SHIFTS = (-1e-1, -1e-2, -1e-3, 1e-3, 1e-2, 1e-1)
"""Relative changes of all tolls under which the users are asked again."""
ROUNDED = 1e-6
"""Tolls may be so far from a bound, a step or each other, as a share of the upper bound: files have ten digits."""
TOLD = 1e-4
"""Flows that are told may differ so much from those computed, as a share of the largest, and revenues as one of their
sum: where times hardly grow, the smallest gap leaves flows that much room.
"""


def faults(problem: CongestedTolls, tolls: np.ndarray) -> list[str]:
    """Why tolls are not allowed; empty if they are.

    An arc has a toll that may have none, one of an equal-toll group another than the rest, a toll is out of bounds or
    between steps, or there are more booths than allowed.

    Args:
        problem: which arcs may have which tolls.
        tolls: of all arcs, in money, shape (arcs,).
    """
    labels, near = problem.traffic.network.labels, ROUNDED * problem.upper
    elsewhere = np.flatnonzero((tolls > 0.0) & ~problem.matrix.any(axis=1))
    found = [f"arc {labels[a]} has a toll and is not tollable in {problem.name}" for a in elsewhere]
    for name, arcs in zip(problem.names, problem.groups, strict=True):
        mine = tolls[list(arcs)]
        if float(np.ptp(mine)) > near:
            odd = int(np.argmax(np.abs(mine - mine[0])))
            found.append(
                f"arcs {labels[arcs[0]]} and {labels[arcs[odd]]} have one toll in common ({name}), and here "
                f"{mine[0]:g} and {mine[odd]:g}"
            )
        for toll in dict.fromkeys(mine.tolist()):
            if not problem.lower - near <= toll <= problem.upper + near:
                bounds = f"{problem.lower:g} and {problem.upper:g}"
                found.append(f"the toll {toll:g} on {name} is not between {bounds}, the bounds of the problem")
            steps = toll / problem.unit
            if problem.step and abs(steps - round(steps)) * problem.step > near:
                found.append(f"the toll {toll:g} on {name} is no multiple of the step {problem.step:g}")
    booths = count_booths(problem, tolls)
    if problem.most_booths is not None and booths > problem.most_booths:
        found.append(f"{booths} arcs have a toll, and most_booths={problem.most_booths} allows no more")
    return found


def count_booths(problem: CongestedTolls, tolls: np.ndarray) -> int:
    """Arcs with a toll, as `CongestedTolls.booths` counts them, of tolls that need not be allowed."""
    return int(np.count_nonzero(tolls > NO_TOLL * problem.upper))


def disagreements(flows: Flows, told: Mapping[str, np.ndarray]) -> list[str]:
    """Where told flows and revenues are not those of an equilibrium; empty where they are.

    Flows of arcs without congestion are passed over, as an equilibrium does not say them.

    Args:
        flows: the equilibrium.
        told: ``flow`` and ``revenue`` of all arcs, or one of them, or none; shape (arcs,) each, NaN for not told.
    """
    roads, labels = flows.traffic.roads, flows.traffic.network.labels
    unique = (roads.b > 0.0) & (roads.power > 0.0) & (roads.free > 0.0)
    true = {"flow": flows.flow, "revenue": flows.tolls * flows.flow}
    sizes = {"flow": float(flows.flow.max()), "revenue": flows.revenue}
    found: list[str] = []
    for name, values in told.items():
        wrong = np.where(unique & np.isfinite(values), np.abs(values - true[name]), 0.0)
        a = int(np.argmax(wrong))
        if wrong[a] > TOLD * max(sizes[name], 1e-300):
            found.append(f"the {name} of arc {labels[a]} is said to be {values[a]:g} and is {true[name][a]:g}")
    return found


def audit(
    problem: CongestedTolls, tolls: np.ndarray, told: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Figures of the equilibrium, computed from no flows at all, and what becomes of it when all tolls change a little.

    Args:
        problem: whose tolls.
        tolls: of all arcs, in money, shape (arcs,).
        told: see `disagreements`.
    """
    flows = user_equilibrium(problem.traffic, tolls)
    wrong = [*faults(problem, tolls), *(disagreements(flows, told) if flows.converged else ())]
    figures: dict[str, Any] = {"problem": problem.name, "verified": not wrong and flows.converged, "faults": wrong}
    figures["booths"] = count_booths(problem, tolls)
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
