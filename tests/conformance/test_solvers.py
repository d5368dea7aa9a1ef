"""Every registered solver on every problem of the library that it accepts.

Of each run it is asked whether what it returns is true, and whether it is the optimum.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry
from bilevel_core.solvers.base import Accepted, Refused

from .table import SAMPLED, SOLVERS, UNCHECKED

LIBRARY = {
    n: s
    for n, s in get_registry().problems.items()
    if n.startswith(("classic/", "trap/", "smd/", "basblib/", "bolib/"))
}
TIME_LIMIT = 25.0
"""Seconds for one run: far more than any needs, so that a solver that hangs is found out."""
TABLES_LIMIT = 4.0
"""The same for the collections, where the search for a proof may be longer than a test should be."""
PLENTY = 60.0
"""The same for local searches there, on busy machines."""
COLLECTIONS = bool(os.environ.get("BILEVEL_COLLECTIONS"))
"""Whether local solvers are run on the collections, too."""


@dataclass(frozen=True)
class Outcome:
    """One run: the problem, its text before and after, the verdict on it, and the result or the error."""

    problem: Any
    before: str
    after: str
    promise: str
    result: bl.Result


def text(problem: Any) -> str:
    """All of a Pyomo model: components, values, bounds, what is fixed and active."""
    out = io.StringIO()
    problem.model.pprint(ostream=out)
    return out.getvalue()


@functools.cache
def load(name: str) -> Any:
    return LIBRARY[name].load()()


@functools.cache
def verdicts(name: str) -> dict[str, Any]:
    return dict(bl.classify(load(name)).verdicts)


def in_tables(name: str) -> bool:
    return name.startswith(("basblib/", "bolib/"))


def importable(solver: str) -> bool:
    """Whether the package that a sampling solver needs is installed."""
    needs = {"sample.bayes": "optuna", "sample.cma": "cma", "sample.nsga2": "pymoo"}
    return solver not in needs or importlib.util.find_spec(needs[solver]) is not None


def takes(solver: str, name: str) -> bool:
    return isinstance(verdicts(name).get(solver), Accepted)


def accepted(solver: str, name: str) -> bool:
    """Whether the solver is run on the problem here: of the large collections local solvers get those with convex
    followers, which are those that the exact solver takes, and these when BILEVEL_COLLECTIONS is set: they take long.
    """
    column = SOLVERS[solver]
    if column.sampling:
        return name in SAMPLED and importable(solver) and takes(solver, name)
    if column.only is not None:
        return name in column.only
    if not takes(solver, name):
        return False
    if solver == "kkt" or not in_tables(name):
        return True
    return COLLECTIONS and column.starts is not None and name not in column.benchmarked and takes("kkt", name)


def options_for(solver: str, name: str) -> dict[str, Any]:
    """The options of a run: few starts on the collections, where most problems have no traps."""
    column = SOLVERS[solver]
    if name in column.one_start:
        return column.options | {"starts": 1}
    if column.starts is None or not in_tables(name):
        return column.options
    return column.options | {"starts": column.starts.get(name, 1)}


def limit_for(solver: str, name: str) -> float | None:
    """Seconds: few where the search for a proof goes on for as long as it may, plenty where it ends by itself; None for
    sampling solvers, which have a budget of solves, and some of which import much before the first.
    """
    column = SOLVERS[solver]
    if column.sampling or column.limit is not None:
        return column.limit
    if not in_tables(name):
        return TIME_LIMIT
    return TABLES_LIMIT if solver == "kkt" else PLENTY


@functools.cache
def run(solver: str, name: str) -> Outcome:
    problem = load(name)
    before = text(problem)
    result = bl.solve(
        problem,
        solver=solver,
        options=options_for(solver, name),
        time_limit=limit_for(solver, name),
        seed=0,
        verify=name not in UNCHECKED,
    )
    return Outcome(problem, before, text(problem), verdicts(name)[solver].claim, result)


def cases() -> list[Any]:
    """Solver and problem, for those that accept."""
    return [
        pytest.param(solver, name, id=f"{solver}-{name}")
        for solver in SOLVERS
        for name in LIBRARY
        if accepted(solver, name)
    ]


def test_every_registered_solver_is_in_the_table() -> None:
    assert set(SOLVERS) == set(get_registry().solvers)


def test_misses_are_of_problems_that_are_run() -> None:
    """A name in the list of misses that is misspelt, or refused by now, would go unnoticed."""
    for solver, column in SOLVERS.items():
        listed = [*column.misses, *column.refuted, *column.late, *column.one_start, *(column.only or ())]
        listed += column.starts or () if COLLECTIONS else ()
        assert [n for n in listed if n not in LIBRARY or not accepted(solver, n)] == []
        assert [n for n in sorted(column.benchmarked) if n not in LIBRARY or not takes(solver, n)] == []


@pytest.mark.parametrize(("solver", "name"), [(s, n) for s, c in SOLVERS.items() for n in sorted(c.refusals)])
def test_refusals_by_numbers_are_told_when_a_problem_is_classified(solver: str, name: str) -> None:
    verdict = verdicts(name)[solver]
    assert isinstance(verdict, Refused)
    assert "negative curvature" in verdict.reason
    with pytest.raises(bl.RefusedError, match=r"(?s)nonconvex.*global"):
        run(solver, name)


@pytest.mark.parametrize("solver", [s for s, column in SOLVERS.items() if column.local])
def test_local_solvers_promise_no_more_than_local(solver: str) -> None:
    for name in LIBRARY:
        if takes(solver, name):
            assert bl.Claim(verdicts(name)[solver].claim) <= bl.Claim.LOCAL


@pytest.mark.parametrize("name", LIBRARY)
def test_a_solver_for_each_problem_unless_it_needs_another(name: str) -> None:
    takers = [s for s, column in SOLVERS.items() if not column.sampling and takes(s, name)]
    if "integer" in LIBRARY[name].tags and not LIBRARY[name].needs:
        assert set(takers) - {"global"} == {"branch-and-cut"}
    if LIBRARY[name].needs:  # what kkt finds there is stationary at most
        assert LIBRARY[name].needs in takers
    assert takers


@pytest.mark.parametrize(("solver", "name"), cases())
def test_what_is_returned_is_true_and_the_optimum(solver: str, name: str) -> None:
    outcome = run(solver, name)
    check_truth(solver, name, outcome)
    check_optimum(solver, name, outcome.result)


def check_truth(solver: str, name: str, outcome: Outcome) -> None:
    """That nothing is claimed that does not hold, whatever was found."""
    problem, result = outcome.problem, outcome.result
    known = LIBRARY[name].known
    assert known is not None

    assert outcome.before == outcome.after
    assert result.claim <= bl.Claim(outcome.promise)
    if SOLVERS[solver].local:
        assert result.claim <= bl.Claim.LOCAL
    copy = bl.Result.from_json(result.to_json())
    assert copy.to_json() == result.to_json()
    assert copy.status == result.status

    if known.upper_objective is None or not result.has_point:
        # No point where there is none; and no claim without a point.
        assert not result.has_point
        assert result.claim == bl.Claim.NONE
        assert result.message
        return

    certificate = result.certificate
    assert (certificate is None) == (name in UNCHECKED)
    if certificate is not None:
        assert (certificate.verdict == "refuted") == (name in SOLVERS[solver].refuted), certificate.reason
    values = problem.vector(result.x, result.y)
    for column, value in zip(problem.program().columns, values, strict=True):
        assert column.lower - 1e-6 <= value <= column.upper + 1e-6, column.name
    again = problem.evaluate(values).upper_objective
    assert result.upper_objective == pytest.approx(again, rel=1e-9, abs=1e-9)

    # No bilevel point beats the optimum; tolerances on constraints buy a little.
    gain = known.upper_objective - again
    if problem.program().leader.maximise:
        gain = -gain
    assert name in SOLVERS[solver].refuted or gain <= 1e-4 * max(1.0, abs(known.upper_objective))


def check_optimum(solver: str, name: str, result: bl.Result) -> None:
    """That the known optimum was found; or, where the table says that it is missed, that this is still so."""
    column, known = SOLVERS[solver], LIBRARY[name].known
    assert known is not None
    if known.upper_objective is None or name in column.late:
        return
    found = False
    if result.has_point:
        error = abs(float(np.float64(result.upper_objective)) - known.upper_objective)
        found = error <= column.tolerance * max(1.0, abs(known.upper_objective))
    missed = column.misses.get(name)
    if missed is None:
        assert found, f"{result.upper_objective if result.has_point else None}: {result.message}"
    else:
        assert not found, f"It is found by now, take it off the list of misses: {missed}"
