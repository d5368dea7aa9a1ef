"""Random small linear problems with a bounded integer leader, against enumeration of the leader.

The reference shares nothing with the core: for each x the follower is a linear program given to SciPy, and a second one
picks, of the follower's optimal answers, the one that suits the leader best and satisfies the leader's constraints.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import pyomo.environ as pyo
import pytest
from scipy.optimize import linprog

import bilevel_core as bl

CASES = range(220)
BOTH_MODES = 3
"""Every so many cases are solved with binaries and bounds as well."""
FACE = 1e-9
"""Relative tolerance on the follower's optimal value; data are small integers, so other vertices are far off."""


@dataclass(frozen=True)
class Case:
    """min c.x + d.y over integer x, P x + Q y <= p; the follower: min e.y over A x + B y <= a, an equality perhaps.

    ``equality``: number of leading rows of the follower's that are equalities. y is in [0, top].
    """

    c: np.ndarray
    d: np.ndarray
    e: np.ndarray
    P: np.ndarray
    Q: np.ndarray
    p: np.ndarray
    A: np.ndarray
    B: np.ndarray
    a: np.ndarray
    equality: int
    x_top: int
    y_top: float | None


@functools.cache
def make(seed: int) -> Case:
    """One case; sizes and coefficients follow from the seed alone."""
    rng = np.random.default_rng([20, seed])

    def whole(*shape: int) -> np.ndarray:
        return rng.integers(-4, 5, shape).astype(float)

    n, k = int(rng.integers(1, 3)), int(rng.integers(1, 4))
    rows, coupling = int(rng.integers(1, 5)), int(rng.integers(0, 3))
    e, y_top = whole(k), 6.0
    if rng.random() < 0.25:
        # No upper bounds on y; positive costs keep the follower's optimum, and the set of its optima, bounded.
        e, y_top = rng.integers(1, 5, k).astype(float), None
    return Case(
        c=whole(n),
        d=whole(k),
        e=e,
        P=whole(coupling, n),
        Q=whole(coupling, k),
        p=rng.integers(-3, 9, coupling).astype(float),
        A=whole(rows, n),
        B=whole(rows, k),
        a=rng.integers(-2, 11, rows).astype(float),
        equality=int(rng.random() < 0.2),
        x_top=int(rng.integers(1, 6)) if n == 1 else int(rng.integers(1, 4)),
        y_top=y_top,
    )


@functools.cache
def truth(seed: int) -> float | None:
    """The optimal value by enumeration; None where no x has an answer that the leader allows."""
    case = make(seed)
    found = [v for x in itertools.product(range(case.x_top + 1), repeat=len(case.c)) if (v := at(case, x)) is not None]
    return min(found, default=None)


def at(case: Case, x: tuple[int, ...]) -> float | None:
    """The leader's value at one x."""
    right = case.a - case.A @ x
    q = case.equality
    rest = {"A_eq": case.B[:q], "b_eq": right[:q]} if q else {}
    bounds = [(0.0, case.y_top)] * len(case.d)
    lower = linprog(case.e, A_ub=case.B[q:], b_ub=right[q:], bounds=bounds, **rest)
    assert lower.status in (0, 2), lower.message
    if lower.status == 2:
        return None
    face = np.vstack([case.B[q:], case.Q, case.e])
    sides = np.concatenate([right[q:], case.p - case.P @ x, [lower.fun + FACE * max(1.0, abs(lower.fun))]])
    best = linprog(case.d, A_ub=face, b_ub=sides, bounds=bounds, **rest)
    assert best.status in (0, 2), best.message
    return None if best.status == 2 else float(case.c @ x + best.fun)


def model(case: Case) -> pyo.ConcreteModel:
    """The case as a user would write it."""
    m = pyo.ConcreteModel(name="random")
    n, k = range(len(case.c)), range(len(case.d))
    m.x = pyo.Var(n, domain=pyo.Integers, bounds=(0, case.x_top))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(k, bounds=(0, case.y_top))
    x, y = m.x, m.follower.y

    def left(over_x: np.ndarray, over_y: np.ndarray) -> pyo.Expression:
        return sum(float(over_x[i]) * x[i] for i in n) + sum(float(over_y[j]) * y[j] for j in k)

    m.objective = pyo.Objective(expr=left(case.c, case.d))
    m.follower.objective = pyo.Objective(expr=sum(float(case.e[j]) * y[j] for j in k))
    m.coupling = pyo.ConstraintList()
    for r, side in enumerate(case.p):
        _add(m.coupling, left(case.P[r], case.Q[r]), float(side), equality=False)
    m.follower.rows = pyo.ConstraintList()
    for r, side in enumerate(case.a):
        _add(m.follower.rows, left(case.A[r], case.B[r]), float(side), equality=r < case.equality)
    return m


def _add(rows: pyo.ConstraintList, body: pyo.Expression, side: float, *, equality: bool) -> None:
    rows.add((side if equality else None, body, side))


def _modes(seed: int) -> list[str]:
    return ["sos1", "bigm"] if seed % BOTH_MODES == 0 else ["sos1"]


@pytest.mark.parametrize(("seed", "mode"), [(s, mode) for s in CASES for mode in _modes(s)])
def test_equal_to_enumeration(seed: int, mode: str) -> None:
    expected = truth(seed)
    r = bl.solve(model(make(seed)), solver="kkt", options={"complementarity": mode})
    if expected is None:
        assert not r.has_point
        assert r.status == "infeasible"
        return
    assert r.upper_objective == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert r.certificate is not None
    assert r.certificate.verdict == "verified"
    if mode == "sos1":
        assert r.status == "optimal"
        assert r.bound == pytest.approx(expected, rel=1e-5, abs=1e-5)
    else:
        # Bounds that cannot be proven cost the claim, and the message says so.
        assert r.status == "optimal" or "could not be proven" in r.message


def test_the_cases_are_varied() -> None:
    cases = [make(s) for s in CASES]
    values = [truth(s) for s in CASES]
    assert len(cases) >= 200
    assert sum(v is None for v in values) >= 15
    assert len({v for v in values if v is not None}) >= 50
    assert sum(len(c.p) > 0 for c in cases) >= 50
    assert sum(c.equality > 0 for c in cases) >= 20
    assert sum(c.y_top is None for c in cases) >= 20
    assert {(len(c.c), len(c.d)) for c in cases} == set(itertools.product((1, 2), (1, 2, 3)))
    high_point = [seed for seed in CASES if values[seed] is not None and relaxed(make(seed)) < values[seed] - 1e-6]
    assert len(high_point) >= 50, "the follower must matter in many of them"


def relaxed(case: Case) -> float:
    """The high-point relaxation of a case that has a solution: the leader chooses y as well; x still integer."""
    q, n, k = case.equality, len(case.c), len(case.d)
    rows = np.vstack([np.hstack([case.A, case.B])[q:], np.hstack([case.P, case.Q])])
    equal = {"A_eq": np.hstack([case.A, case.B])[:q], "b_eq": case.a[:q]} if q else {}
    found = linprog(
        np.concatenate([case.c, case.d]),
        A_ub=rows,
        b_ub=np.concatenate([case.a[q:], case.p]),
        bounds=[(0.0, case.x_top)] * n + [(0.0, case.y_top)] * k,
        integrality=[1] * n + [0] * k,
        **equal,
    )
    # 4 is "unbounded or infeasible", and a point is known.
    assert found.status in (0, 3, 4), found.message
    return float(found.fun) if found.status == 0 else -np.inf
