"""The set of optimal answers of a program, as rows: what may still be chosen among once optimality is settled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bilevel_core.backends.highs import Highs
from bilevel_core.program import INF, Function, Program, Row, linear

FACE_TOLERANCE = 1e-9
"""How far beyond a program's optimal value an answer may be and count as optimal, in units of its largest term."""


def natural_scale(f: Function, values: np.ndarray) -> float:
    """What an error in a function's value is relative to: its largest term at a point, without the constant, or its
    largest coefficient (a step of 1 in one variable) where that is larger. 1 for a constant or nonlinear function.
    """
    if f.nonlinear is not None:
        return max(1.0, abs(f.evaluate(values)))
    terms = [abs(c * values[i]) for i, c in f.linear.items()]
    terms += [abs(c * values[i] * values[j]) for (i, j), c in f.quadratic.items()]
    return max([f.size, *terms]) or 1.0


def optimal_face(program: Program, value: float, at: np.ndarray, loosened: float = 1.0) -> tuple[Row, ...]:
    """Rows that cut a program's feasible set down to its optimal answers, up to `FACE_TOLERANCE` times ``loosened``.

    For a convex quadratic objective with linear rows the optimal answers are those with the same gradient and the
    same linear value as one of them (Mangasarian 1988): linear rows. Else ``objective <= value``, up to a tolerance.
    """
    f = program.objective
    slack = FACE_TOLERANCE * loosened
    if f.degree == 2:
        slack *= 100.0  # answers of quadratic programs are less exact than vertices of linear ones
    if f.degree == 2 and Highs().accepts(program) is None:
        rows: list[Row] = []
        for i in sorted({i for pair in f.quadratic for i in pair}):
            gradient = replace(f.partial(i), constant=0.0)
            rows.append(_near(f"face{i}", gradient, gradient.evaluate(at), at, slack))
        first_order = linear(f.linear)
        return (*rows, replace(_near("face", first_order, first_order.evaluate(at), at, slack), lower=-INF))
    return (replace(_near("face", f, value, at, slack), lower=-INF),)


def _near(name: str, f: Function, value: float, at: np.ndarray, slack: float) -> Row:
    """``f`` at a value up to a slack, in units of its natural scale, without its constant."""
    factor = 1.0 / natural_scale(f, at)
    target = (value - f.constant) * factor
    return Row(name, replace(f, constant=0.0).scaled(factor), target - slack, target + slack)
