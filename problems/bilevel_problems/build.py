"""Shorthand that all problems here share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyomo.environ

from bilevel_core.problems.pyomo import Follower, PyomoProblem

pyo: Any = pyomo.environ
"""Pyomo without its partial type stubs, which know too little of components to check expressions."""


def model(name: str) -> Any:
    """An empty Pyomo model with one follower block called ``follower``."""
    m: Any = pyo.ConcreteModel(name=name)
    m.follower = Follower()
    return m


def finish(
    m: Any,
    upper: Any,
    lower: Any,
    *,
    upper_rows: Iterable[Any] = (),
    lower_rows: Iterable[Any] = (),
    maximise: bool = False,
    follower_maximises: bool = False,
) -> PyomoProblem:
    """Objectives and rows of both levels, and the problem."""
    m.objective = pyo.Objective(expr=upper, sense=pyo.maximize if maximise else pyo.minimize)
    m.follower.objective = pyo.Objective(expr=lower, sense=pyo.maximize if follower_maximises else pyo.minimize)
    m.rows = pyo.ConstraintList()
    for row in upper_rows:
        m.rows.add(row)
    m.follower.rows = pyo.ConstraintList()
    for row in lower_rows:
        m.follower.rows.add(row)
    return PyomoProblem(m, name=m.name)


def nonnegative(*index: int) -> Any:
    """A nonnegative variable, scalar or indexed by the numbers given."""
    return pyo.Var(list(index), domain=pyo.NonNegativeReals) if index else pyo.Var(domain=pyo.NonNegativeReals)
