"""The leader's objective without its constant and in a unit of its own, for searches.

Gaps are relative to an objective's value, so a constant in it hides differences; tolerances are absolute, so a small
unit does, too. Searches are given the objective restated, and what they say of its values is translated back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from bilevel_core.program import BilevelProgram, Function, Program
from bilevel_core.program import expression as ex

SMALL, LARGE = 0.1, 1e4
"""A largest coefficient between these is left as it is; others become about 1."""


@dataclass(frozen=True)
class Unit:
    """``restated = factor * (objective - constant)``."""

    constant: float = 0.0
    factor: float = 1.0

    def back(self, value: float) -> float:
        """A value of the restated objective as one of the objective that was given."""
        return value / self.factor + self.constant


def restated(program: BilevelProgram) -> tuple[BilevelProgram, Unit]:
    """A bilevel program with the leader's objective restated, fixed columns being part of the constant.

    The factor is a power of two, so that scaling rounds nothing.
    """
    leader = program.leader
    f = leader.objective.fix({i: c.lower for i, c in enumerate(program.columns) if c.fixed})
    sizes = [s for s in _sizes(f) if s > 0.0 and np.isfinite(s)]
    factor = 1.0
    if sizes and max(sizes) < SMALL:
        factor = 1.0 / max(sizes)
    elif sizes and max(sizes) > LARGE:
        factor = min(1.0, max(1.0 / max(sizes), SMALL / min(sizes)))
    factor = float(2.0 ** round(np.log2(factor)))
    unit = Unit(f.constant, factor)
    f = replace(f, constant=0.0).scaled(factor)
    return replace(program, leader=replace(leader, objective=f)), unit


def largest_term(program: Program | BilevelProgram, values: np.ndarray) -> float:
    """What differences of an objective are relative to: its largest term at a point (no constant), at least 1."""
    f = program.objective if isinstance(program, Program) else program.leader.objective
    least = replace(f, constant=0.0).scale(values)
    if f.nonlinear is None:
        return least
    curved = ex.evaluate(f.nonlinear, values)
    return max(least, abs(curved)) if np.isfinite(curved) else least


def _sizes(f: Function) -> Iterator[float]:
    """The sizes of the coefficients, those of nonlinear terms included."""
    yield from map(abs, f.linear.values())
    yield from map(abs, f.quadratic.values())
    if f.nonlinear is not None:
        terms = f.nonlinear.terms if isinstance(f.nonlinear, ex.Sum) else (f.nonlinear,)
        for term in terms:
            factors = term.factors if isinstance(term, ex.Product) else (term,)
            yield float(np.prod([abs(k.value) for k in factors if isinstance(k, ex.Constant)]))
