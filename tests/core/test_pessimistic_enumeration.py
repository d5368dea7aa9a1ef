"""Pessimistic solutions of small random problems, against enumeration of the vertices of the answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pyomo.environ as pyo
import pytest

import bilevel_core as bl

PESSIMISTIC = {"response": "pessimistic"}


@dataclass(frozen=True)
class Case:
    """min c x + d.y over integer x in [0, top]; the follower: min e.y over B y <= a + A x, 0 <= y <= 4, with ties."""

    c: float
    d: np.ndarray
    e: np.ndarray
    A: np.ndarray
    B: np.ndarray
    a: np.ndarray
    top: int
    coupled: float | None


def make(seed: int) -> Case:
    rng = np.random.default_rng([7, seed])
    k, rows = int(rng.integers(2, 4)), int(rng.integers(1, 4))
    B = rng.integers(-2, 3, (rows, k)).astype(float)
    # The follower's objective is often a row's left side, so that whole faces are optimal.
    e = -B[0] if rng.random() < 0.7 else rng.integers(-1, 2, k).astype(float)
    return Case(
        c=float(rng.integers(-3, 4)),
        d=rng.integers(-3, 4, k).astype(float),
        e=e,
        A=rng.integers(-2, 3, rows).astype(float),
        B=B,
        a=rng.integers(0, 7, rows).astype(float),
        top=3,
        coupled=float(rng.integers(1, 9)) if rng.random() < 0.4 else None,
    )


def vertices(rows: np.ndarray, sides: np.ndarray) -> list[np.ndarray]:
    """All vertices of {rows y <= sides}."""
    k = rows.shape[1]
    found = []
    for chosen in itertools.combinations(range(len(rows)), k):
        square = rows[list(chosen)]
        if abs(np.linalg.det(square)) < 1e-9:
            continue
        y = np.linalg.solve(square, sides[list(chosen)])
        if (rows @ y <= sides + 1e-9).all():
            found.append(y)
    return found


def truth(case: Case, *, of_the_answers: Callable[[Iterable[float]], float] = max) -> float | None:
    """The pessimistic optimum (with ``min`` instead of ``max`` the optimistic one, where the leader has no constraint)
    by enumeration of x and of the vertices of the follower's optimal face.
    """
    k = len(case.d)
    best = None
    for x in range(case.top + 1):
        rows = np.vstack([case.B, np.eye(k), -np.eye(k)])
        sides = np.concatenate([case.a + case.A * x, np.full(k, 4.0), np.zeros(k)])
        corners = vertices(rows, sides)
        if not corners:
            continue
        least = min(case.e @ y for y in corners)
        optimal = [y for y in corners if case.e @ y <= least + 1e-9]
        if case.coupled is not None and max(y.sum() for y in optimal) > case.coupled + 1e-9:
            continue
        worst = case.c * x + of_the_answers(case.d @ y for y in optimal)
        best = worst if best is None else min(best, worst)
    return best


@pytest.mark.parametrize("seed", range(60))
def test_random_linear_followers_against_enumeration(seed: int) -> None:
    case = make(seed)
    m = pyo.ConcreteModel(name="random")
    m.x = pyo.Var(domain=pyo.Integers, bounds=(0, case.top))
    m.follower = f = bl.Follower()
    k = range(len(case.d))
    f.y = pyo.Var(k, bounds=(0, 4))
    f.rows = pyo.ConstraintList()
    for r, side in enumerate(case.a):
        left = sum(float(case.B[r, j]) * f.y[j] for j in k) - float(case.A[r]) * m.x
        if case.B[r].any() or case.A[r]:
            f.rows.add(left <= float(side))
    f.objective = pyo.Objective(expr=sum(float(case.e[j]) * f.y[j] for j in k))
    m.objective = pyo.Objective(expr=case.c * m.x + sum(float(case.d[j]) * f.y[j] for j in k))
    if case.coupled is not None:
        m.row = pyo.Constraint(expr=sum(f.y[j] for j in k) <= case.coupled)
    right = truth(case)
    r = bl.solve(m, solver="kkt", options=PESSIMISTIC)
    if right is None:
        assert r.status == "infeasible"
        return
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(right, abs=1e-6)
    optimistic = bl.solve(m, solver="kkt")
    if case.coupled is None:
        assert optimistic.upper_objective is not None
        assert optimistic.upper_objective <= right + 1e-6


def test_the_cases_are_worth_testing() -> None:
    assert sum(truth(make(s)) is None for s in range(60)) >= 1
    assert sum(make(s).coupled is not None for s in range(60)) >= 15
    free = [make(s) for s in range(60) if make(s).coupled is None]
    assert sum(truth(c) != truth(c, of_the_answers=min) for c in free) >= 10
