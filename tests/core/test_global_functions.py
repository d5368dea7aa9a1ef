"""`global` on random small programs beyond polynomials, with equations and several kinds of constraints, against points
that are found by brute force.

Every point of a grid of x, with the follower's answer found on a grid and improved there, is a bilevel feasible point:
a proven bound must not exceed its value, and an optimum must not be worse. That the optimum is not too good either is
for the check, which re-solves the follower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyomo.environ as pyo
import pytest
from scipy import optimize

import bilevel_core as bl

NAMES = ("exp", "log", "sqrt", "sin", "cos")
NUMPY = SimpleNamespace(**{n: getattr(np, n) for n in NAMES}, abs=np.abs)
PYOMO = SimpleNamespace(**{n: getattr(pyo, n) for n in NAMES}, abs=abs)

OF_Y = (
    "{c} * y", "{c} * y**2", "{c} * y**3", "{c} * f.abs(y - {p})", "{c} * f.sqrt(y + 1.5)", "{c} * f.log(y + 1.4)",
    "{c} * f.exp({c} * y)", "{c} * f.sin(3 * y)", "{c} * f.cos(4 * y)", "{c} / (y + 1.6)", "{c} * (y + 1.2) ** 1.5",
)  # fmt: skip
OF_BOTH = (
    "{c} * x * y", "{c} * x * y**2", "{c} * x**2 * y", "{c} * f.abs(y - x)", "{c} * y / (x + 1.7)",
    "{c} * f.exp(x * y)", "{c} * f.sin(2 * y + x)", "{c} * f.sqrt(y - x + 2.5)",
)  # fmt: skip
ROWS = (
    "y - {p} - {c} * x", "y**2 - x - 1.2", "x * y - 0.4", "(y - x)**2 - 0.6", "x**2 + y**2 - 1.3", "f.exp(y) - 1.8 - x",
    "0.1 - y**2", "f.abs(y) - f.abs(x) - 0.3",
)  # fmt: skip
EQUATIONS = ("{c} * y + {c} * f.exp(x)", "{c} * y + f.abs(x)", "{c} * y + {c} * x**2", "y + {c} * x")
LEADERS = (
    "{c} * x", "{c} * (x - {p})**2", "{c} * x * y", "{c} * f.abs(y - {p})", "{c} * f.sin(2 * x)", "{c} * f.exp(y / 2)",
)  # fmt: skip
COUPLINGS = ("y - x - 0.4", "x - y - 0.4", "y**2 - 0.5", "0.05 - y**2")


@dataclass(frozen=True)
class Case:
    """Texts in ``x``, ``y``, ``w`` and ``f`` (where functions are found): rows are at most zero; w is given by an
    equation of the follower's.
    """

    upper: str
    lower: str
    row: str | None
    coupling: str | None
    w: str | None
    integer: bool
    senses: tuple[float, float]

    def model(self) -> Any:
        m: Any = pyo.ConcreteModel(name="random")
        m.x = pyo.Var(bounds=(-1, 1))
        m.follower = bl.Follower()
        m.follower.y = pyo.Var(bounds=(-1, 1), domain=pyo.Integers if self.integer else pyo.Reals)
        at = {"x": m.x, "y": m.follower.y, "f": PYOMO}
        if self.w is not None:
            m.follower.w = pyo.Var()  # its bounds are derived
            at["w"] = m.follower.w
            m.follower.tie = pyo.Constraint(expr=m.follower.w == value(self.w, at))
        if self.row is not None:
            m.follower.row = pyo.Constraint(expr=value(self.row, at) <= 0)
        if self.coupling is not None:
            m.coupling = pyo.Constraint(expr=value(self.coupling, at) <= 0)
        m.objective = pyo.Objective(expr=value(self.upper, at), sense=self.senses[0])
        m.follower.objective = pyo.Objective(expr=value(self.lower, at), sense=self.senses[1])
        return m

    def at(self, x: float, y: Any) -> dict[str, Any]:
        point = {"x": x, "y": y, "f": NUMPY}
        return point if self.w is None else point | {"w": value(self.w, point)}

    def answer(self, x: float) -> float | None:
        """The follower's at x."""
        axis = np.array([-1.0, 0.0, 1.0]) if self.integer else np.linspace(-1.0, 1.0, 401)
        point = self.at(x, axis)
        f = self.senses[1] * value(self.lower, point)
        if self.row is not None:
            f = np.where(value(self.row, point) <= 0.0, f, math.inf)
        k = int(np.argmin(f))
        if math.isinf(f[k]):
            return None
        if self.integer:
            return float(axis[k])
        low, high = (self._edge(x, axis, k, k + step) for step in (-1, 1))
        choices = [low, high, float(axis[k])]
        if low < high:
            found = optimize.minimize_scalar(
                lambda y: self._lower(x, y), bounds=(low, high), method="bounded", options={"xatol": 1e-11}
            )
            choices.append(float(found.x))
        return min(choices, key=lambda y: self._lower(x, y))

    def _lower(self, x: float, y: float) -> float:
        return float(self.senses[1] * value(self.lower, self.at(x, y)))

    def _edge(self, x: float, axis: np.ndarray, k: int, beside: int) -> float:
        """How far from one point of the grid to the one beside it the follower's constraint holds."""
        inside, outside = float(axis[k]), float(axis[min(max(beside, 0), len(axis) - 1)])
        if self.row is None or value(self.row, self.at(x, outside)) <= 0.0:
            return outside
        for _ in range(60):
            middle = 0.5 * (inside + outside)
            if value(self.row, self.at(x, middle)) <= 0.0:
                inside = middle
            else:
                outside = middle
        return inside

    def best(self) -> float:
        """The leader's least value, in the minimised sense, over a grid of x."""
        best = math.inf
        for x in np.linspace(-1.0, 1.0, 101):
            y = self.answer(float(x))
            if y is None:
                continue
            point = self.at(float(x), y)
            if self.coupling is None or value(self.coupling, point) <= 0.0:
                best = min(best, float(self.senses[0] * value(self.upper, point)))
        return best


def value(text: str, at: Mapping[str, Any]) -> Any:
    return eval(text, {}, dict(at))


def random_case(seed: int) -> Case:
    rng = np.random.default_rng([1618, seed])

    def text(choices: tuple[str, ...]) -> str:
        out = str(rng.choice(choices))
        while "{" in out:
            number = rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 1.5)
            out = out.replace("{c}", f"{number:.2f}", 1) if "{c}" in out else out.replace("{p}", f"{number / 3:.2f}", 1)
        return out

    w = text(EQUATIONS) if seed % 3 == 0 else None
    lower = [text(OF_Y), text(OF_BOTH), text(OF_Y + OF_BOTH)] + (
        [] if w is None else [text(("{c} * w", "{c} * w * y"))]
    )
    upper = [text(LEADERS), text(LEADERS), text(("{c} * y",) if w is None else ("{c} * w",))]
    return Case(
        upper=" + ".join(upper),
        lower=" + ".join(lower),
        row=text(ROWS) if seed % 2 else None,
        coupling=text(COUPLINGS) if seed % 5 == 0 else None,
        w=w,
        integer=seed % 7 == 0,
        senses=(-1.0 if seed % 4 == 1 else 1.0, -1.0 if seed % 4 == 2 else 1.0),
    )


@pytest.mark.parametrize("seed", range(30))
def test_no_point_beats_the_bound_or_the_optimum(seed: int) -> None:
    case = random_case(seed)
    result = bl.solve(case.model(), solver="global", options={"max_iterations": 5})
    best = case.best()
    if result.termination == "infeasible":
        assert math.isinf(best)
        return
    sense = case.senses[0]
    assert result.bound is not None
    assert sense * result.bound <= best + 1e-6
    assert result.status in ("optimal", "feasible"), f"{result.message} {result.certificate}"
    if result.status == "optimal":
        assert result.upper_objective is not None
        assert sense * result.upper_objective <= best + 1e-3 * max(1.0, abs(best)) + 1e-6
