"""Time limits that fall into a solver's work, on a clock that each evaluation moves on: nothing half-solved is kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.lower import LowerFailedError
from bilevel_core.result import Termination
from bilevel_core.run import RunContext

from .fake_iterative import FakeProblem, FakeSolver

torch = pytest.importorskip("torch")

SOLVERS = ["hypergradient", "auxiliary", "trust-region", "penalty"]


class Clock:
    """Seconds are evaluations of the lower level."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("bilevel_core.run.context.time", SimpleNamespace(monotonic=found.monotonic))
    return found


def problem(clock: Clock, **more: Any) -> bl.TorchProblem:
    """The follower's valley is curved, so that it takes many evaluations; y(x) = (x, x^2)."""

    def upper(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (y[0] - 2.0) ** 2 + 0.1 * x[0] ** 2

    def lower(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        clock.now += 1.0
        return 10.0 * (y[1] - y[0] ** 2) ** 2 + (x[0] - y[0]) ** 2

    x, y = torch.ones(1, dtype=torch.float64), torch.tensor([-1.2, 1.0], dtype=torch.float64)
    return bl.TorchProblem(upper, lower, x, y, **more)


def same(a: bl.Result, b: bl.Result) -> None:
    for one, other in ((a.x, b.x), (a.y, b.y)):
        assert all(np.array_equal(one[name], other[name]) for name in one)
    assert (a.termination, a.claim, a.message, a.counts) == (b.termination, b.claim, b.message, b.counts)


@pytest.mark.parametrize("solver", SOLVERS)
def test_cut_in_the_first_solve_gives_no_point_and_is_resumed_bit_for_bit(
    solver: str, clock: Clock, tmp_path: Path
) -> None:
    whole = bl.solve(problem(clock), solver, verify=False)
    cut = bl.solve(problem(clock), solver, verify=False, out=tmp_path / "run", time_limit=4.0)
    assert cut.termination is Termination.TIME_LIMIT
    assert not cut.has_point
    assert "before the lower level was solved" in cut.message
    same(bl.resume(problem(clock), tmp_path / "run"), whole)


@pytest.mark.parametrize("solver", SOLVERS)
def test_cut_anywhere_it_is_resumed_bit_for_bit(solver: str, clock: Clock, tmp_path: Path) -> None:
    begin = clock.now
    whole = bl.solve(problem(clock), solver, verify=False)
    lasted = clock.now - begin
    for share in (0.2, 0.45, 0.7, 0.9):
        out = tmp_path / str(share)
        cut = bl.solve(problem(clock), solver, verify=False, out=out, time_limit=share * lasted)
        assert cut.termination is Termination.TIME_LIMIT
        same(bl.resume(problem(clock), out), whole)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_limit_is_overrun_by_a_few_evaluations_only(solver: str, clock: Clock) -> None:
    for limit in (4.0, 30.0):
        begin = clock.now
        bl.solve(problem(clock), solver, verify=False, time_limit=limit)
        assert clock.now - begin <= limit + 25.0  # one line search at most


def test_work_is_hurried_where_it_was_told_or_used_up_what_it_was_given(clock: Clock) -> None:
    context = RunContext(time_limit=10.0)
    context.watch()
    assert not context.expired
    clock.now += 20.0
    assert not context.hurried  # nobody asked in time to be cut short by it
    assert context.expired
    assert context.hurried
    context = RunContext(time_limit=10.0)
    context.watch()
    assert context.remaining() == 10.0
    clock.now += 5.0
    assert not context.hurried
    clock.now += 4.95
    assert context.hurried
    context.watch()
    assert not context.hurried
    context.stop()
    assert not context.hurried
    assert context.stopped
    assert context.hurried


@pytest.mark.parametrize("at", [0, 3])
def test_a_failure_in_a_hurry_is_no_failure(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, oracle: Any, seen: Any) -> None:
        context.stop()
        assert context.stopped
        raise LowerFailedError("Not solved.")

    monkeypatch.setattr(FakeSolver, "_fail", fail)
    context = RunContext()
    result = FakeSolver(at=at, starts=3).run(FakeProblem(), context)
    assert result.termination is Termination.STOPPED_BY_USER
    assert "Not solved" not in result.message
    assert result.has_point == (at > 0)
