"""Every backend on every program that it accepts: objective, feasibility, status."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from bilevel_core.backends import Backend, SolveSettings, SolveStatus
from bilevel_core.backends.base import Solution
from bilevel_core.backends.highs import Highs
from bilevel_core.backends.ipopt import Ipopt
from bilevel_core.backends.scip import LARGE, Scip
from bilevel_core.errors import BackendError, UsageError
from bilevel_core.program import Function, Program, Row, Variable
from bilevel_core.program import expression as ex

INF = math.inf
X, Y = ex.Column(0), ex.Column(1)


def program(objective: Function, *rows: Row, lower: float = 0.0, upper: float = 4.0, integer: bool = False) -> Program:
    columns = (Variable("x", lower, upper, integer), Variable("y", lower, upper))
    return Program(columns, objective, rows)


LINEAR = Row("r", Function(1.0, {0: 1.0, 1: 2.0}), upper=6.0)
CASES = {
    # name: (program, optimum)
    "lp": (program(Function(2.0, {0: -1.0, 1: -1.0}), LINEAR), 2.0 - 4.5),
    "range": (program(Function(0.0, {0: 1.0}), Row("r", Function(0.0, {0: 1.0, 1: 1.0}), 5.0, 6.0)), 1.0),
    "equality": (program(Function(0.0, {0: 1.0}), Row("r", Function(0.0, {0: 1.0, 1: 1.0}), 5.0, 5.0)), 1.0),
    "milp": (
        program(Function(0.0, {0: -2.0, 1: -1.0}), Row("r", Function(0.0, {0: 2.0, 1: 1.0}), upper=6.7), integer=True),
        -6.7,
    ),
    "convex-qp": (program(Function(0.0, {0: -2.0}, {(0, 0): 1.0, (0, 1): 1.0, (1, 1): 1.0}), LINEAR), -1.0),
    "nonconvex-qp": (program(Function(0.0, {}, {(0, 0): -1.0, (0, 1): 1.0}), LINEAR), -16.0),
    "miqp": (program(Function(0.0, {0: -2.5}, {(0, 0): 1.0}), integer=True), -1.5),
    "qcp": (
        program(Function(0.0, {0: -1.0, 1: -1.0}), Row("r", Function(0.0, {}, {(0, 0): 1.0, (1, 1): 1.0}), upper=2.0)),
        -2.0,
    ),
    "nlp": (program(Function(0.0, {1: -1.0}, nonlinear=ex.Call("exp", Y)), lower=-2.0), 1.0),
    "power": (program(Function(0.0, {0: -1.0}, nonlinear=ex.Power(X, ex.Constant(1.5)))), (4 / 9) ** 1.5 - 4 / 9),
    "set": (
        Program((Variable("x", 0.0, 4.0), Variable("y", 0.0, 3.0)), Function(0.0, {0: -1.0, 1: -1.5}), sos1=((0, 1),)),
        -4.5,
    ),
}


def takers(p: Program) -> list[Backend]:
    return [b for b in (Highs(), Scip(), Ipopt()) if b.accepts(p) is None]


@pytest.mark.parametrize("name", CASES)
def test_optimum(name: str) -> None:
    p, optimum = CASES[name]
    assert takers(p)
    for backend in takers(p):
        if backend.scope == "local" and name.startswith("nonconvex"):
            continue
        s = backend.solve(p)
        assert s.status is (SolveStatus.OPTIMAL if backend.scope == "global" else SolveStatus.LOCALLY_OPTIMAL)
        assert s.values is not None
        assert s.objective == pytest.approx(optimum, abs=2e-6), backend.name
        assert s.objective == pytest.approx(p.objective.evaluate(s.values))
        assert p.violation(s.values) < 1e-6


def test_which_backend_takes_what() -> None:
    names = {name: [b.name for b in takers(p)] for name, (p, _) in CASES.items()}
    assert names["lp"] == ["highs", "scip", "ipopt"]
    assert names["milp"] == ["highs", "scip"]
    assert names["convex-qp"] == ["highs", "scip", "ipopt"]
    assert names["nonconvex-qp"] == ["scip", "ipopt"]
    assert names["miqp"] == names["set"] == ["scip"]


@pytest.mark.parametrize("backend", [Highs(), Scip()], ids=lambda b: b.name)
@pytest.mark.parametrize("integer", [False, True])
def test_infeasible_and_unbounded(backend: Backend, integer: bool) -> None:
    none = program(Function(0.0, {0: 1.0}), Row("r", Function(0.0, {0: 1.0}), lower=9.0), integer=integer)
    assert backend.solve(none).status is SolveStatus.INFEASIBLE
    free = program(
        Function(0.0, {0: -1.0}), Row("r", Function(0.0, {0: 1.0, 1: -1.0}), upper=1.0), upper=INF, integer=integer
    )
    s = backend.solve(free)
    assert s.status in (SolveStatus.UNBOUNDED, SolveStatus.INFEASIBLE_OR_UNBOUNDED)
    assert s.values is None


@pytest.mark.parametrize("backend", [Highs(), Scip()], ids=lambda b: b.name)
def test_a_constant_row_that_cannot_hold(backend: Backend) -> None:
    p = program(Function(0.0, {0: 1.0}), Row("r", Function(3.0), upper=1.0))
    assert backend.solve(p).status is SolveStatus.INFEASIBLE
    p = program(Function(0.0, {0: 1.0}), Row("r", Function(1.0), upper=1.0))
    assert backend.solve(p).objective == pytest.approx(0.0)


@pytest.mark.parametrize("backend", [Highs(), Scip(), Ipopt()], ids=lambda b: b.name)
def test_refusals_are_errors_not_answers(backend: Backend) -> None:
    p = Program((Variable("a", 0.0), Variable("b", 0.0)), Function(0.0, {0: 1.0}), complementarities=((0, 1),))
    with pytest.raises(BackendError, match="pairs"):
        backend.solve(p)


def test_unknown_backend_options_are_named() -> None:
    p = CASES["lp"][0]
    with pytest.raises(UsageError, match="no_such"):
        Highs().solve(p, SolveSettings(options={"no_such": 1}))
    with pytest.raises(UsageError, match="no/such"):
        Scip().solve(p, SolveSettings(options={"no/such": 1}))
    with pytest.raises(UsageError, match="no_such"):
        Ipopt().solve(p, SolveSettings(options={"no_such": 1}))


def test_a_known_option_reaches_the_backend() -> None:
    p = knapsack(90, seed=3)
    assert Scip().solve(p, SolveSettings(options={"limits/nodes": 1})).status is SolveStatus.OTHER_LIMIT


def knapsack(n: int, seed: int) -> Program:
    """A strongly correlated ten-row knapsack: hours for a branch-and-bound from about a hundred columns on."""
    rng = np.random.default_rng(seed)
    rows = []
    weights = rng.integers(10, 1000, (10, n))
    for k, w in enumerate(weights):
        rows.append(Row(f"r{k}", Function(0.0, {i: float(v) for i, v in enumerate(w)}), upper=float(w.sum() // 2)))
    value = Function(0.0, {i: -float(v) for i, v in enumerate(weights.mean(axis=0) + 100)})
    return Program(tuple(Variable(f"v{i}", 0.0, 1.0, True) for i in range(n)), value, tuple(rows))


@pytest.mark.parametrize("backend", [Highs(), Scip()], ids=lambda b: b.name)
def test_progress_and_stop(backend: Backend) -> None:
    seen: list[tuple[float | None, float | None, int]] = []

    def stop(objective: float | None, bound: float | None, nodes: int) -> bool:
        seen.append((objective, bound, nodes))
        return True

    s = backend.solve(knapsack(90, seed=1), SolveSettings(progress=stop, time_limit=60.0))
    assert seen
    assert s.status is SolveStatus.INTERRUPTED


@pytest.mark.parametrize("backend", [Highs(), Scip()], ids=lambda b: b.name)
def test_time_limit_keeps_the_point_and_the_bound(backend: Backend) -> None:
    s: Solution = backend.solve(knapsack(200, seed=2), SolveSettings(time_limit=1.0))
    assert s.status is SolveStatus.TIME_LIMIT
    assert s.values is not None
    assert s.bound <= s.objective


def test_a_start_is_used() -> None:
    p, optimum = CASES["milp"]
    for backend in (Highs(), Scip()):
        s = backend.solve(p, SolveSettings(start=np.array([3.0, math.nan])))
        assert s.objective == pytest.approx(optimum)


def test_smoke_solves() -> None:
    for backend in (Highs(), Scip(), Ipopt()):
        state = backend.available()
        assert state.available, state.reason
        assert state.version


def test_a_broken_backend_is_found_out() -> None:
    class Liar(Highs):
        name = "liar"

        def solve(self, program: Program, settings: SolveSettings | None = None) -> Solution:
            return Solution(SolveStatus.OPTIMAL, np.array([5.0, 5.0]), 10.0)

    class Missing(Highs):
        name = "missing"

        def version(self) -> str:
            raise ImportError("no module named 'missing'")

    assert "not at its optimum" in Liar().available().reason
    assert "no module named" in Missing().available().reason


def test_highs_is_asked_again_when_it_contradicts_itself() -> None:
    class Flaky(Highs):
        calls = 0
        faults = 1

        def _attempt(self, program: Program, settings: SolveSettings) -> tuple[Solution, float]:
            self.calls += 1
            solution, told = super()._attempt(program, settings)
            return solution, told - 1.0 if self.calls <= self.faults else told

    p, optimum = CASES["milp"]
    once = Flaky()
    assert once.solve(p, SolveSettings(start=np.array([3.0, 0.7]))).objective == pytest.approx(optimum)
    assert once.calls == 2
    always = Flaky()
    always.faults = 99
    with pytest.raises(BackendError, match="contradicts itself"):
        always.solve(p)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    for backend in (Highs(), Scip(), Ipopt()):
        backend.solve(CASES["lp"][0])
    import ctypes

    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == ""


def test_scip_can_be_called_many_times_in_one_process() -> None:
    """The automatic differentiation in SCIP crashed the process at the 64th thread that ever called it."""
    code = (
        "from bilevel_core.backends.scip import Scip\n"
        "from bilevel_core.program import Function, Program, Variable\n"
        "from bilevel_core.program import expression as ex\n"
        "f = Function(nonlinear=ex.multiply(ex.call('exp', ex.Column(0)), ex.Column(1)))\n"
        "p = Program((Variable('a', -1, 1), Variable('b', -1, 1)), f)\n"
        "print(*{round(Scip().solve(p).objective, 6) for _ in range(80)})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "-2.718282"), done.stderr


def test_scip_bounds_powers_of_sums_without_multiplying_them_out() -> None:
    """(2 y - 10)^4 multiplied out has terms of 10^4 that cancel at y = 5, and no bound near 0."""
    base = ex.Sum((ex.Product((ex.Constant(2.0), ex.Column(0))), ex.Constant(-10.0)))
    program = Program((Variable("y", 0.0, 15.0),), Function(nonlinear=ex.Power(base, ex.Constant(4.0))))
    solution = Scip().solve(program, SolveSettings(time_limit=20.0))
    assert solution.status is SolveStatus.OPTIMAL
    assert solution.nodes <= 10
    assert solution.objective == pytest.approx(0.0, abs=1e-6)
    assert solution.values is not None
    assert solution.values.shape == (1,)
    assert solution.bound is not None
    assert -1e-6 <= solution.bound <= 1e-6


def test_scip_gives_no_large_nonlinear_programs_to_ipopt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The METIS in PySCIPOpt's wheel ended the process with "free(): invalid pointer" on systems of some ten thousand
    rows, in SCIP's heuristic subnlp. That takes a minute; that the heuristic is off is seen on the model.
    """
    import pyscipopt

    seen: list[int] = []
    solution = Scip._solution

    def look(model: pyscipopt.Model, variables: list[object], p: Program) -> Solution:
        seen.append(model.getParam("heuristics/subnlp/freq"))
        return solution(model, variables, p)

    monkeypatch.setattr(Scip, "_solution", staticmethod(look))
    for n in (2, LARGE + 1):
        p = Program(tuple(Variable(f"v{i}", 0.0, 1.0) for i in range(n)), Function(0.0, {0: 1.0}, {(0, 1): -2.0}))
        assert Scip().solve(p).objective == pytest.approx(-1.0, abs=1e-6)
    assert seen[0] >= 0
    assert seen[1] == -1


def test_trial_points_without_a_value_are_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """sqrt(x) - x/4 from x = 1e-3: Ipopt's first steps leave the domain."""
    f = Function(0.0, {0: 0.25}, nonlinear=ex.multiply(ex.MINUS_ONE, ex.Power(X, ex.Constant(0.5))))
    row = Row("r", Function(0.0, {1: 1.0}, nonlinear=ex.Call("log", X)), upper=3.0)
    Ipopt().solve(program(f, row, lower=-INF, upper=INF), SolveSettings(start=np.array([-1.0, 0.0]), time_limit=20.0))
    assert capfd.readouterr().err == ""
