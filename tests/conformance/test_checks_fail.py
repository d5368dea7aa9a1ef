"""Checks of the kit that no faulty solver of `faulty.py` fails: each fails where something is wrong, and says what."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core import Claim, Termination
from bilevel_core.solvers.assemble import without_point
from bilevel_core.solvers.hypergradient.solver import HypergradientDescent
from bilevel_core.testing import Failed, NotApplicable, solver_checks
from bilevel_core.testing.enumeration import draw
from bilevel_core.testing.runner import Runner, case_of

from .faulty import Wishful

BARD = case_of("classic/bard-511")


@dataclass(frozen=True)
class Forgetful(HypergradientDescent):
    """Keeps how often it has stepped beside its state, where no checkpoint sees it, and steps by it."""

    calls: ClassVar[Iterator[int]] = itertools.count()

    def step(self, oracle: Any, state: Any, context: Any) -> Any:
        new = super().step(oracle, state, context)
        shifted = new.candidate.x + 1e-3 * (1 + next(self.calls))
        return replace(new, candidate=replace(new.candidate, x=np.clip(shifted, oracle.x_lower, oracle.x_upper)))


@dataclass(frozen=True)
class Widening(HypergradientDescent):
    """Computes in double precision whatever the user's tensors are."""

    def run(self, problem: Any, context: Any) -> Any:
        problem.upper(problem.x0.double(), problem.y0.double())
        return without_point(Termination.CONVERGED, context, "nothing")


@dataclass(frozen=True)
class Boastful(Wishful):
    """Returns the worst point of its search, and calls it globally optimal."""

    def run(self, problem: Any, context: Any) -> Any:
        result = super(Wishful, self).run(problem, context)
        if not result.has_point or result.upper_objective is None:
            return result
        return replace(result, claim=Claim.GLOBAL, upper_objective=result.upper_objective + 1.0)


@dataclass(frozen=True)
class Bounding(Wishful):
    """Gives the value of a point as a bound on all others."""

    def run(self, problem: Any, context: Any) -> Any:
        result = super(Wishful, self).run(problem, context)
        if not result.has_point or result.upper_objective is None:
            return result
        return replace(result, claim=Claim.FEASIBLE, bound=result.upper_objective + 1.0)


@dataclass(frozen=True)
class Despairing(Wishful):
    """Says of whatever it gets that there is no solution."""

    end: ClassVar[Termination] = Termination.INFEASIBLE

    def run(self, problem: Any, context: Any) -> Any:
        return without_point(self.end, context, "nothing")


@dataclass(frozen=True)
class Dizzy(Despairing):
    end = Termination.UNBOUNDED


def test_state_that_no_checkpoint_sees() -> None:
    smooth = case_of("smd/smd1")
    solver_checks.resume_equals_uninterrupted(Runner(HypergradientDescent), smooth)
    with pytest.raises(Failed, match=r"stopped and resumed ends with .* Whatever a step needs belongs into the state"):
        solver_checks.resume_equals_uninterrupted(Runner(Forgetful), smooth)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_another_dtype(dtype: str) -> None:
    pytest.importorskip("torch")
    solver_checks.dtype_and_device_kept(Runner(HypergradientDescent), dtype, "cpu")
    if dtype == "float32":
        with pytest.raises(Failed, match=r"tensors of \(torch.float64, 'cpu'\). Expected \(torch.float32, cpu\)"):
            solver_checks.dtype_and_device_kept(Runner(Widening), dtype, "cpu")
    else:
        solver_checks.dtype_and_device_kept(Runner(Widening), dtype, "cpu")


def words_of(factory: Any, kind: Any) -> list[str]:
    """What the comparison with enumeration says of some random problems."""
    said: list[str] = []
    for seed in range(8):
        try:
            solver_checks.agrees_with_enumeration(Runner(factory), draw(kind, seed))
        except (Failed, NotApplicable) as error:
            said.append(str(error))
    return said


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (Boastful, "claims that"),
        (Bounding, "as a proven bound"),
        (Despairing, "says that it is infeasible"),
        (Dizzy, "says that it is unbounded"),
    ],
)
def test_what_enumeration_knows_better(factory: Any, words: str) -> None:
    said = words_of(factory, "continuous")
    assert any(words in s and "the optimum by enumeration is" in s for s in said), said


def test_a_claim_beyond_what_was_promised() -> None:
    result = bl.solve(BARD.make(), "kkt")
    solver_checks.claim_as_promised("it", result, "global")
    with pytest.raises(Failed, match="claims global, and its `accepts` promised local at most"):
        solver_checks.claim_as_promised("it", result, "local")
    with pytest.raises(Failed, match="claims local and returns no point"):
        solver_checks.claim_as_promised("it", bl.Result(Termination.CONVERGED, claim=Claim.LOCAL), "global")


def test_results_that_do_not_travel() -> None:
    result = bl.solve(BARD.make(), "kkt")
    solver_checks.result_travels("it", result)
    with pytest.raises(Failed, match="another one after pickling"):
        solver_checks.result_travels("it", replace(result, details={"where": Elsewhere()}))


class Elsewhere:
    """Equal to nothing but itself."""

    def __reduce__(self) -> Any:
        return (Elsewhere, ())


@pytest.mark.parametrize(
    ("name", "termination", "words"),
    [
        ("trap/follower-infeasible", "unbounded", "says of .* that it is unbounded"),
        ("trap/follower-unbounded", "unbounded", "says of .* that it is unbounded"),
    ],
)
def test_another_reason_for_there_being_no_solution(name: str, termination: str, words: str) -> None:
    case = case_of(name)
    problem = case.make()
    right = bl.solve(problem, "kkt")
    solver_checks.no_solution_said("it", right, case, problem)
    with pytest.raises(Failed, match=words):
        solver_checks.no_solution_said("it", replace(right, termination=Termination(termination)), case, problem)
    with pytest.raises(Failed, match="no message why"):
        solver_checks.no_solution_said("it", replace(right, message=""), case, problem)


FAULTY = """
from bilevel_core.testing import SolverConformance
from faulty import Careless, Deaf, Minimised, Wishful


class Few(SolverConformance):
    problems = ("classic/bard-511", "trap/small-bound")
    enumerated = 2
    tolerance = 0.5


class TestWishful(Few):
    factory = Wishful


class TestMinimised(Few):
    factory = Minimised


class TestDeaf(Few):
    factory = Deaf


class TestCareless(Few):
    factory = Careless
"""


def test_the_classes_fail_as_their_checks_do(tmp_path: Path) -> None:
    """An author sees it as a failed test of pytest's, with the words of the check."""
    import subprocess
    import sys

    (tmp_path / "faulty.py").write_text((Path(__file__).parent / "faulty.py").read_text())
    (tmp_path / "test_them.py").write_text(FAULTY)
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "--tb=line", "-p", "no:cacheprovider", "--rootdir=."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 1, done.stdout + done.stderr
    failed = {line.split("::", 1)[1].split(" - ")[0] for line in done.stdout.splitlines() if line.startswith("FAILED")}
    tests: dict[str, set[str]] = {}
    for name in failed:
        owner, test = name.split("::")
        tests.setdefault(owner, set()).add(test.split("[")[0])
    assert tests.keys() == {"TestWishful", "TestMinimised", "TestDeaf", "TestCareless"}
    assert tests["TestWishful"] >= {"test_not_better_than_the_optimum", "test_lower_level_is_optimal"}
    assert "test_objective_is_that_of_the_point" in tests["TestMinimised"]
    assert not tests["TestMinimised"] & {"test_seed_reproduces", "test_stop_is_honoured", "test_input_is_unchanged"}
    assert tests["TestDeaf"] >= {"test_zero_time_claims_little", "test_stop_is_honoured"}
    assert tests["TestCareless"] >= {
        "test_seed_reproduces",
        "test_input_is_unchanged",
        "test_unknown_option_is_refused",
    }
