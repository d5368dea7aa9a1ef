"""Points of the high-point relaxation to start from: its optimum, and random ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bilevel_core.backends import Backend, SolveSettings
from bilevel_core.backends.highs import Highs
from bilevel_core.backends.ipopt import Ipopt
from bilevel_core.backends.scip import Scip
from bilevel_core.errors import BackendError
from bilevel_core.program import Program, linear

SECONDS = 5.0
REACH = 10.0
"""How far random points go at most from the relaxation's optimum where a column has no bound, in units of its value
(at least 1); the least is one unit. In between all magnitudes are as likely: how far off what is looked for lies is
not known.
"""


def relaxed_point(program: Program) -> np.ndarray | None:
    """An optimum of the relaxation (a local one where it is not convex), shape (columns,); None where none is found."""
    return _solve(program, (Highs(), Ipopt(), Scip()))


def random_point(program: Program, optimum: np.ndarray | None, rng: np.random.Generator) -> np.ndarray | None:
    """A random point of the relaxation, or None: the minimiser of a random linear function, half of the time moved
    towards ``optimum`` where the rows are linear (which keeps it feasible). Where they are not, that minimiser is a
    local one, found from a random place: the relaxation may have several parts.

    What is random is drawn before anything is solved, so that the generator's state never depends on a backend.
    """
    n = len(program.columns)
    costs, share = rng.uniform(-1.0, 1.0, n), min(1.0, float(rng.uniform(0.0, 2.0)))
    magnitude, place = float(rng.uniform(0.0, 1.0)), rng.uniform(0.0, 1.0, n)
    centre = np.zeros(n) if optimum is None else optimum
    reach = REACH**magnitude * np.maximum(1.0, np.abs(centre))
    columns = tuple(
        replace(
            c,
            lower=c.lower if np.isfinite(c.lower) else min(centre[i] - reach[i], c.upper - reach[i]),
            upper=c.upper if np.isfinite(c.upper) else max(centre[i] + reach[i], c.lower + reach[i]),
        )
        for i, c in enumerate(program.columns)
    )
    widths = np.array([c.upper - c.lower for c in columns])
    objective = linear({i: float(costs[i] / widths[i]) for i in range(n) if widths[i] > 0.0})
    start = np.array([c.lower for c in columns]) + place * widths
    found = _solve(replace(program, columns=columns, objective=objective), (Highs(), Ipopt()), start)
    if found is None or optimum is None or program.row_degree > 1 or program.has_integers:
        return found
    return optimum + share * (found - optimum)


def _solve(program: Program, backends: tuple[Backend, ...], start: np.ndarray | None = None) -> np.ndarray | None:
    """The answer of the first backend that takes the program and ends with one."""
    for backend in backends:
        if backend.accepts(program) is not None or not backend.available().available:
            continue
        try:
            solution = backend.solve(program, SolveSettings(time_limit=SECONDS, start=start))
        except BackendError:
            continue  # the next one may do better; no start at all is an answer too
        if solution.values is not None and solution.solved:
            return solution.values
    return None
