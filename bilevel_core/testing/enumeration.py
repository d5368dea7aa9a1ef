"""Random small linear bilevel problems, and their optimum found by trying all candidates: no solver takes part.

Three kinds: a leader with three binary variables and a continuous follower, the leader's rows on variables of both; a
leader with one continuous variable; integer variables on both levels. The optimum of the second kind lies at a vertex
of the high-point relaxation (Bard 1998, Practical Bilevel Optimization, chapter 5), that of the first, for each x, at a
vertex of the follower's optimal face within the leader's rows.
"""

from __future__ import annotations

import importlib
import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bilevel_core.problems.base import Problem

Kind = Literal["binary-leader", "continuous", "integer"]
KINDS: tuple[Kind, ...] = ("binary-leader", "continuous", "integer")
TOP = 5.0
"""Upper bound of continuous variables; integer ones end at 3. All begin at 0."""
TOLERANCE = 1e-7


@dataclass(frozen=True)
class RandomLinear:
    """min F.(x, y) over x, with G (x, y) <= g; the follower minimises f.y over A (x, y) <= b; bounds 0 and ``top``.

    Attributes:
        kind: which variables are integer.
        seed: what it was drawn with.
        nx, ny: numbers of variables.
        top: upper bounds, shape (nx + ny,).
        leader, follower: objectives, shapes (nx + ny,) and (ny,).
        leader_rows, follower_rows: coefficients and right-hand sides, shapes (m, nx + ny) and (m,).
    """

    kind: Kind
    seed: int
    nx: int
    ny: int
    top: np.ndarray
    leader: np.ndarray
    follower: np.ndarray
    leader_rows: tuple[np.ndarray, np.ndarray]
    follower_rows: tuple[np.ndarray, np.ndarray]

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"random {self.kind} problem {self.seed}"

    def problem(self) -> Problem:
        """The same as a Pyomo model."""
        from bilevel_core.problems.pyomo import Follower, PyomoProblem

        pyo: Any = importlib.import_module("pyomo.environ")  # no types
        m: Any = pyo.ConcreteModel()
        x_domain = pyo.Reals if self.kind == "continuous" else pyo.Integers
        y_domain = pyo.Integers if self.kind == "integer" else pyo.Reals
        nx = self.nx
        m.x = pyo.Var(range(nx), domain=x_domain, bounds=lambda _, j: (0.0, float(self.top[j])))
        follower: Any = Follower()
        m.follower = follower
        follower.y = pyo.Var(range(self.ny), domain=y_domain, bounds=lambda _, j: (0.0, float(self.top[nx + j])))
        every = [*(m.x[j] for j in range(nx)), *(follower.y[j] for j in range(self.ny))]
        m.objective = pyo.Objective(expr=sum(float(c) * v for c, v in zip(self.leader, every, strict=True)))
        follower.objective = pyo.Objective(
            expr=sum(float(c) * v for c, v in zip(self.follower, every[nx:], strict=True))
        )
        m.rows = pyo.ConstraintList()
        follower.rows = pyo.ConstraintList()
        for rows, (a, b) in ((m.rows, self.leader_rows), (follower.rows, self.follower_rows)):
            for row, limit in zip(a, b, strict=True):
                rows.add(sum(float(c) * v for c, v in zip(row, every, strict=True) if c) <= float(limit))
        return PyomoProblem(m, name=self.name)

    def optimum(self) -> float:
        """The leader's optimal value; infinite where no point satisfies both levels."""
        if self.kind == "continuous":
            return self._over_vertices()
        choices = itertools.product(*(range(int(t) + 1) for t in self.top[: self.nx]))
        answer = self._best_integer_answer if self.kind == "integer" else self._best_answer
        return min((answer(np.array(x, dtype=float)) for x in choices), default=math.inf)

    def _over_vertices(self) -> float:
        """Every vertex of the high-point relaxation whose y is an optimal answer."""
        n = self.nx + self.ny
        a = np.vstack([self.leader_rows[0], self.follower_rows[0], np.eye(n), -np.eye(n)])
        b = np.concatenate([self.leader_rows[1], self.follower_rows[1], self.top, np.zeros(n)])
        best = math.inf
        for v in vertices(a, b):
            _, optimal = self._answers(v[: self.nx])
            if float(self.follower @ v[self.nx :]) <= optimal + TOLERANCE:
                best = min(best, float(self.leader @ v))
        return best

    def _polytope(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The follower's feasible set at x."""
        a, b = self.follower_rows
        eye = np.eye(self.ny)
        return (
            np.vstack([a[:, self.nx :], eye, -eye]),
            np.concatenate([b - a[:, : self.nx] @ x, self.top[self.nx :], np.zeros(self.ny)]),
        )

    def _answers(self, x: np.ndarray) -> tuple[list[np.ndarray], float]:
        """The vertices of the follower's feasible set at x, and its optimal value."""
        found = vertices(*self._polytope(x))
        return found, min((float(self.follower @ y) for y in found), default=math.inf)

    def _best_answer(self, x: np.ndarray) -> float:
        """The leader's value at the optimal answer that suits it best among those that satisfy its rows."""
        _, optimal = self._answers(x)
        if not math.isfinite(optimal):
            return math.inf
        a, b = self._polytope(x)
        g, limit = self.leader_rows
        a = np.vstack([a, self.follower, -self.follower, g[:, self.nx :]])
        b = np.concatenate([b, [optimal], [-optimal], limit - g[:, : self.nx] @ x])
        return min((float(self.leader @ np.concatenate([x, y])) for y in vertices(a, b)), default=math.inf)

    def _best_integer_answer(self, x: np.ndarray) -> float:
        """The same by trying every integer answer."""
        answers = [
            np.array(y, dtype=float) for y in itertools.product(*(range(int(t) + 1) for t in self.top[self.nx :]))
        ]
        a, b = self.follower_rows
        g, limit = self.leader_rows
        feasible = [y for y in answers if (a @ np.concatenate([x, y]) <= b + TOLERANCE).all()]
        optimal = min((float(self.follower @ y) for y in feasible), default=math.inf)
        points = [np.concatenate([x, y]) for y in feasible if float(self.follower @ y) <= optimal + TOLERANCE]
        return min((float(self.leader @ p) for p in points if (g @ p <= limit + TOLERANCE).all()), default=math.inf)


def draw(kind: Kind, seed: int) -> RandomLinear:
    """A random problem with small integer coefficients, so that ties are frequent."""
    r = np.random.default_rng([KINDS.index(kind), seed])
    nx = 1 if kind == "continuous" else 3
    ny = 2
    n = nx + ny
    top = np.full(n, TOP)
    if kind == "binary-leader":
        top[:nx] = 1.0
    elif kind == "integer":
        top[:nx], top[nx:] = 1.0, 3.0
    inside = np.minimum(r.integers(0, 3, n), top)

    def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
        a = r.integers(-3, 5, (count, n)).astype(float)
        return a, a @ inside + r.integers(0, 4, count)

    leader_rows = (np.zeros((0, n)), np.zeros(0)) if kind == "continuous" else rows(1)
    follower = r.integers(-2, 3, ny).astype(float)
    return RandomLinear(kind, seed, nx, ny, top, r.integers(-5, 6, n).astype(float), follower, leader_rows, rows(2))


def vertices(a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    """The vertices of the polytope ``a z <= b``, by solving every square system of rows. For a few dimensions only."""
    found: list[np.ndarray] = []
    for chosen in itertools.combinations(range(len(b)), a.shape[1]):
        system = a[list(chosen)]
        if abs(np.linalg.det(system)) < 1e-9:
            continue
        z = np.linalg.solve(system, b[list(chosen)])
        if (a @ z <= b + TOLERANCE).all():
            found.append(z)
    return found
