"""The conformance kit passes what is right, and catches four solvers that are not, with words that say why."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.solvers.hypergradient.solver import HypergradientDescent
from bilevel_core.solvers.kkt.solver import KKT
from bilevel_core.solvers.sample.methods import Grid
from bilevel_core.testing import (
    Failed,
    NotApplicable,
    PluginConformance,
    ProblemConformance,
    SolverConformance,
    problem_checks,
    solver_checks,
)
from bilevel_core.testing.check import later
from bilevel_core.testing.enumeration import KINDS, Kind, draw
from bilevel_core.testing.problem_checks import Subject
from bilevel_core.testing.problems import OTHER_FORMS, tensors, tensors_optimum
from bilevel_core.testing.runner import Case, Runner, case_of

from .faulty import Careless, Deaf, Minimised, Wishful

BARD = case_of("classic/bard-511")


class TestExact(SolverConformance):
    """An exact solver passes, its global claims included."""

    factory = KKT
    enumerated = 3


class TestLocal(SolverConformance):
    """A local solver that keeps checkpoints and computes with tensors passes."""

    factory = HypergradientDescent
    problems = ("smd/smd1", "smd/smd3")
    enumerated = 1


class TestSampled(SolverConformance):
    """A sampling solver passes, on functions of its user's."""

    factory = Grid
    options: ClassVar[dict[str, Any]] = {"lower_solves": 22, "box": 5.0}
    problems = (OTHER_FORMS[1], "classic/moore-bard")
    enumerated = 1


class TestProblem(ProblemConformance):
    problem = "classic/bard-511"
    point = ({"x": 4.0}, {"y": 4.0})


class TestPlugin(PluginConformance):
    plugin = "toll"


def caught(factory: Any, check: Any, *arguments: Any) -> str:
    """What a check says of a faulty solver."""
    with pytest.raises(Failed) as failure:
        check(Runner(factory), *arguments)
    return str(failure.value)


def run(factory: Any, name: str) -> tuple[Any, Any, Any]:
    case = case_of(name)
    problem = case.make()
    return case, problem, Runner(factory).run(problem)


def test_the_relaxation_called_optimal_is_caught() -> None:
    case, problem, result = run(Wishful, "classic/bard-511")
    with pytest.raises(Failed, match=r"better than the optimum -12 .*Either the follower's answer is not optimal"):
        solver_checks.not_better_than_optimum("Wishful", result, case, problem)
    with pytest.raises(Failed, match=r"fails the independent check.*the follower could do better by"):
        solver_checks.lower_level_optimal("Wishful", result, problem)
    with pytest.raises(Failed, match=r"Wishful gives classic/bard-511 the leader's value .* Expected -12"):
        solver_checks.known_optimum("Wishful", result, case, 1e-4)
    found = [draw("continuous", seed) for seed in range(5)]
    words = [str(e) for e in (_failure(solver_checks.agrees_with_enumeration, Runner(Wishful), r) for r in found) if e]
    assert any("the optimum by enumeration is" in w and "Wishful returns a point" in w for w in words)


def test_objectives_in_the_wrong_sense_are_caught() -> None:
    _, problem, result = run(Minimised, "trap/small-bound")
    with pytest.raises(Failed, match=r"objective of the leader, and the model has .*other sign: results are"):
        solver_checks.objective_of_point("Minimised", result, problem)


@pytest.mark.parametrize(
    ("case", "solver"), [(OTHER_FORMS[0], "hypergradient"), (OTHER_FORMS[1], "sample.random")], ids=lambda c: str(c)[:9]
)
def test_objectives_of_tensors_and_functions_are_evaluated(case: Case, solver: str) -> None:
    if case.name == "kit/tensors":
        pytest.importorskip("torch")
    problem = case.make()
    result = bl.solve(problem, solver, verify=False)
    solver_checks.objective_of_point("it", result, problem)
    upper, lower = result.upper_objective, result.lower_objective
    assert upper is not None
    assert isinstance(lower, float)
    turned = replace(result, upper_objective=-upper)
    with pytest.raises(Failed, match=r"objective of the leader, and the model has .* It has the other sign"):
        solver_checks.objective_of_point("it", turned, problem)
    with pytest.raises(Failed, match="objective of follower 0, and the model has"):
        solver_checks.objective_of_point("it", replace(result, lower_objective=lower + 1e-5), problem)


def test_a_follower_that_answers_otherwise_has_no_value_to_compare() -> None:
    noise = np.random.default_rng(0)

    def follow(x: dict[str, Any], call: Any) -> bl.Answer:
        y = float(noise.normal())
        return bl.Answer({"y": y}, upper=y, lower=0.0)

    problem = bl.NestedProblem((bl.Continuous("a", 0.0, 1.0),), follow)
    result = bl.solve(problem, "sample.random", {"lower_solves": 3}, verify=False)
    with pytest.raises(NotApplicable, match="answers otherwise when it is asked again"):
        solver_checks.objective_of_point("it", result, problem)


def test_a_solver_that_hears_nothing_is_caught() -> None:
    assert "time limit of 0 seconds" in caught(Deaf, solver_checks.zero_time_claims_little, BARD)
    assert "asked to stop before it began" in caught(Deaf, solver_checks.stop_honoured, BARD)


def test_carelessness_is_caught() -> None:
    assert "default_rng(context.seed)" in caught(Careless, solver_checks.seed_reproduces, BARD)
    assert "changes the problem that it is given" in caught(Careless, solver_checks.input_unchanged, BARD)
    assert "swallows what it does not know" in caught(Careless, solver_checks.unknown_option_refused)


def test_what_is_right_with_the_faulty_ones_passes() -> None:
    """The checks do not fail whatever comes along."""
    solver_checks.seed_reproduces(Runner(Minimised), BARD)
    solver_checks.zero_time_claims_little(Runner(Minimised), BARD)
    solver_checks.stop_honoured(Runner(Minimised), BARD)
    solver_checks.input_unchanged(Runner(Deaf), BARD)
    solver_checks.unknown_option_refused(Runner(Deaf))
    _, problem, result = run(Deaf, "classic/bard-511")
    solver_checks.objective_of_point("Deaf", result, problem)
    solver_checks.lower_level_optimal("Deaf", result, problem)


@pytest.mark.parametrize("kit", [SolverConformance, ProblemConformance, PluginConformance])
def test_every_check_says_in_which_version_it_came(kit: Any) -> None:
    versions = kit.checks()
    assert versions
    assert not [name for name, version in versions.items() if later(version, bl.__version__)]
    for name in versions:
        assert (getattr(kit, name).__doc__ or "").strip()


def test_checks_of_a_later_version_are_left_out() -> None:
    assert later("0.10", "0.9")
    assert not later("0.1", "0.1")
    assert not later("9.9", "")


@pytest.mark.parametrize("kind", KINDS)
def test_the_enumeration_agrees_with_the_exact_solvers(kind: Kind) -> None:
    """Two ways that have nothing in common: trying all candidates, and the solvers of the core."""
    solved = 0
    for seed in range(20, 26):
        random = draw(kind, seed)
        best = random.optimum()
        result = bl.solve(random.problem())
        if not math.isfinite(best):
            assert result.status == "infeasible"
            continue
        solved += 1
        assert result.status == "optimal", result.message
        assert result.upper_objective == pytest.approx(best, abs=1e-6)
    assert solved >= 3


def test_the_optimum_of_the_problem_of_tensors() -> None:
    torch = pytest.importorskip("torch")
    problem = tensors(torch.float64, "cpu", [])
    result = bl.solve(problem, "hypergradient")
    assert result.upper_objective == pytest.approx(tensors_optimum(), rel=1e-6)


def _failure(check: Any, *arguments: Any) -> Exception | None:
    try:
        check(*arguments)
    except (Failed, NotApplicable) as error:
        return error
    return None


class TestFaultyProblems:
    """Problems that are wrong in one way each."""

    @staticmethod
    def spec(name: str, **more: Any) -> bl.ProblemSpec:
        return bl.ProblemSpec("faulty/problem", f"{__name__}:{name}", **{"summary": "a problem", **more})

    def test_a_wrong_optimum(self) -> None:
        spec = self.spec("line", known=bl.KnownOptimum(-7.0, "made up for this test"))
        with pytest.raises(Failed, match=r"proves -3, and the declared optimum is -7|declared -7"):
            problem_checks.declared_optimum_found(Subject(spec), 30.0)
        with pytest.raises(Failed, match=r"the declared point is refuted"):
            problem_checks.declared_point_holds(Subject(spec, {}, ({"x": 3.0}, {"y": 1.0})))

    def test_a_point_of_functions_with_another_value(self) -> None:
        place = "bilevel_core.testing.problems:functions"
        spec = bl.ProblemSpec("faulty/functions", place, "x", known=bl.KnownOptimum(0.5, "made up for this test"))
        point = ({"a": 1.0, "kind": "cheap"}, {"y": 2.0})
        with pytest.raises(Failed, match=r"leader's value 1, and the declared optimum is 0.5"):
            problem_checks.declared_point_holds(Subject(spec, {}, point))
        right = replace(spec, known=OTHER_FORMS[1].known)
        problem_checks.declared_point_holds(Subject(right, {}, point))

    def test_no_source_and_no_documentation(self) -> None:
        spec = self.spec("line", known=bl.KnownOptimum(-3.0, ""), summary=" ")
        with pytest.raises(Failed, match="Expected a reference"):
            problem_checks.source_cited(Subject(spec))
        with pytest.raises(Failed, match="no summary"):
            problem_checks.documented(Subject(spec))
        with pytest.raises(Failed, match="parameters without a text: size"):
            problem_checks.documented(Subject(self.spec("line")))

    def test_another_problem_each_time(self) -> None:
        with pytest.raises(Failed, match="made twice gives two problems"):
            problem_checks.deterministic(Subject(self.spec("drawn")))

    def test_bounds_that_leave_nothing(self) -> None:
        with pytest.raises(Failed, match=r"bounds 3 and 2, which leave no value"):
            problem_checks.bounds_sound(Subject(self.spec("empty")))

    def test_a_gradient_that_is_wrong(self) -> None:
        pytest.importorskip("torch")
        with pytest.raises(Failed, match="gradient of the leader's objective"):
            problem_checks.gradients_agree(Subject(self.spec("bent")), 1e-5)


def line(*, size: float = 3.0) -> bl.PyomoProblem:
    import pyomo.environ as pyo

    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, size))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(0, None))
    m.objective = pyo.Objective(expr=-m.follower.y)
    m.follower.objective = pyo.Objective(expr=m.follower.y)
    m.follower.row = pyo.Constraint(expr=m.follower.y >= m.x)
    return bl.PyomoProblem(m)


def drawn() -> bl.PyomoProblem:
    return line(size=float(np.random.default_rng().uniform(1.0, 2.0)))


def empty() -> Any:
    import torch

    def square(x: Any, y: Any) -> Any:
        return (x - y).square().sum()

    zero: Any = torch.zeros(1, dtype=torch.float64)
    problem = bl.TorchProblem(square, square, zero, zero.clone())
    problem.x_bounds[0][:], problem.x_bounds[1][:] = 3.0, 2.0
    return problem


def bent() -> Any:
    """Detaching one factor halves the derivative."""
    import torch

    def upper(x: Any, y: Any) -> Any:
        return (x * x.detach()).sum() + y.sum()

    def lower(x: Any, y: Any) -> Any:
        return (x - y).square().sum()

    zero: Any = torch.zeros(2, dtype=torch.float64)
    return bl.TorchProblem(upper, lower, zero + 1.5, zero, name="bent")


@pytest.mark.parametrize("kit", [SolverConformance, ProblemConformance, PluginConformance])
def test_every_check_stands_in_the_documentation(kit: Any) -> None:
    text = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text()
    rows = re.findall(r"^\| `(test_\w+)` \| ([\d.]+) \|", text, re.MULTILINE)
    assert set(kit.checks().items()) <= set(rows)
    known = {**SolverConformance.checks(), **ProblemConformance.checks(), **PluginConformance.checks()}
    assert {name for name, _ in rows} == set(known)


def test_the_checks_of_plugins_need_no_pytest() -> None:
    """`bilevel plugins check` runs where only bilevel is installed."""
    code = "import sys; sys.modules['pytest'] = None; from bilevel_core.testing.plugin_checks import run_all; "
    code += "print({row['outcome'] for row in run_all('toll')})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "{'passed'}", done.stderr
