"""The check of points of torch problems: what it refutes, what it verifies, and what it leaves open."""

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="differentiable problems need torch")

import bilevel_core as bl  # noqa: E402
from bilevel_core.result import Claim, Verdict  # noqa: E402
from bilevel_core.verification.differentiable import LocalTolerances, check_differentiable  # noqa: E402

from .test_saddles import TAILS, double_well  # noqa: E402

F64 = torch.float64


def quadratic(n: int = 2, **more: Any) -> bl.TorchProblem:
    """The follower answers y = x."""
    return bl.TorchProblem(
        lambda x, y: ((y - 1) ** 2).sum(),
        lambda x, y: ((y - x) ** 2).sum(),
        torch.zeros(n, dtype=F64),
        torch.zeros(n, dtype=F64),
        **more,
    )


def test_an_honest_answer_and_a_wrong_one() -> None:
    found = check_differentiable(quadratic(), torch.ones(2), torch.ones(2))
    assert found.verdict is Verdict.VERIFIED
    assert found.lower_gap == pytest.approx(0.0, abs=1e-12)
    wrong = check_differentiable(quadratic(), torch.ones(2), 1.1 * torch.ones(2))
    assert wrong.verdict is Verdict.REFUTED
    assert wrong.lower_gap == pytest.approx(0.02, abs=1e-6)


@pytest.mark.parametrize("tail", TAILS)
def test_a_saddle_is_not_verified(tail: str) -> None:
    problem = double_well(TAILS[tail])
    y = torch.zeros(2 + len(TAILS[tail]), dtype=F64)
    y[0] = 0.5
    found = check_differentiable(problem, torch.tensor([0.5]), y)
    assert found.verdict is Verdict.UNVERIFIABLE
    assert found.lower_gap > 0.5
    assert "reaches" in found.reason


def test_a_lower_value_counts_however_its_search_ended() -> None:
    # Of two wells the start lies in the higher one; nothing converges in three iterations.
    scales = torch.logspace(0, 6, 30, dtype=F64)

    def lower(x: Any, y: Any) -> Any:
        return (y[0] ** 2 - 1) ** 2 + 0.3 * y[0] + 0.5 * (scales * y[1:] ** 2).sum() + 0 * x[0]

    start = torch.zeros(31, dtype=F64)
    start[0] = -1.0
    problem = bl.TorchProblem(lambda x, y: y[0] + x[0] ** 2, lower, torch.zeros(1, dtype=F64), start)
    y = torch.zeros(31, dtype=F64)
    y[0] = 0.9602  # the local minimum near 1, closely enough
    found = check_differentiable(problem, torch.zeros(1), y, LocalTolerances(iterations=3, gap=1e-4))
    assert found.verdict is Verdict.UNVERIFIABLE
    assert found.lower_gap > 0.5


def test_an_infeasible_lower_value_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from bilevel_core.verification import differentiable as module

    problem = quadratic(lower_inequality=lambda x, y: 1.0 - y)
    honest = module.respond

    def outside(oracle: Any, x: Any, start: Any, settings: Any) -> Any:
        found = honest(oracle, x, start, settings)
        here = bool((start == 1.0).all())
        return found if here else replace(found, y=0.5 * found.y, value=-1.0, converged=False)

    monkeypatch.setattr(module, "respond", outside)
    found = check_differentiable(problem, torch.zeros(2), torch.ones(2))
    assert found.verdict is Verdict.VERIFIED
    assert "stopped early" in found.reason


def test_without_time_nothing_is_verified() -> None:
    problem = quadratic()
    stopped = check_differentiable(problem, torch.ones(2), torch.ones(2) + 1e-6, LocalTolerances(time_limit=0.0))
    assert stopped.verdict is Verdict.UNVERIFIABLE
    assert "cut short after 0 s" in stopped.reason


@pytest.mark.parametrize("more", [{}, {"y_bounds": (-50.0, 50.0)}, {"lower_equality": lambda x, y: y[:1] - y[1:2]}])
def test_the_time_limit_holds_within_a_search(more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves by a second at each evaluation: the searches stop soon after the tenth."""
    from bilevel_core.verification import differentiable as module

    clock = [0.0]
    weights = torch.logspace(0, 5, 40, dtype=F64)

    def lower(x: Any, y: Any) -> Any:
        clock[0] += 1.0
        return (weights * (y - x.sum()) ** 2).sum() + ((y - x.sum()) ** 4).sum()

    problem = bl.TorchProblem(
        lambda x, y: (y**2).sum(), lower, torch.ones(1, dtype=F64), torch.zeros(40, dtype=F64), **more
    )
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    y = torch.ones(40, dtype=F64) + 1e-3
    found = check_differentiable(problem, torch.ones(1), y, LocalTolerances(time_limit=10.0, gap=1e9))
    assert found.verdict is Verdict.UNVERIFIABLE
    assert clock[0] <= 40.0


def dropout(*levels: str) -> bl.TorchProblem:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 5, generator=generator, dtype=F64)
    targets = inputs.sum(1) + torch.randn(40, generator=generator, dtype=F64)

    def drop(level: str) -> Any:
        return torch.nn.functional.dropout(inputs, 0.3) if level in levels else inputs

    def lower(x: Any, y: Any) -> Any:
        return ((drop("lower") @ y - targets) ** 2).mean() + 0.1 * x.exp().sum() * (y**2).sum()

    def upper(x: Any, y: Any) -> Any:
        return ((drop("upper") @ y - targets) ** 2).mean() + 0.01 * (x**2).sum()

    return bl.TorchProblem(upper, lower, torch.zeros(1, dtype=F64), torch.zeros(5, dtype=F64))


@pytest.mark.parametrize("levels", [("lower",), ("upper",), ("lower", "upper")])
@pytest.mark.parametrize("solver", ["hypergradient", "auxiliary", "trust-region"])
def test_random_levels_are_left_open_whatever_the_draw(solver: str, levels: tuple[str, ...]) -> None:
    for seed in (0, 1):
        r = bl.solve(dropout(*levels), solver, seed=seed)
        assert r.certificate.verdict is Verdict.UNVERIFIABLE
        assert "draws random numbers" in r.certificate.reason
        assert " and ".join(sorted(levels, reverse=True)) in r.certificate.reason
        assert r.certificate.lower_gap is not None
        assert r.claim is Claim.FEASIBLE
        assert r.status is bl.Status.FEASIBLE


def test_no_draw_excuses_a_follower_without_randomness() -> None:
    found = check_differentiable(dropout("upper"), torch.zeros(1), torch.ones(5))
    assert found.verdict is Verdict.REFUTED


def test_a_draw_excuses_no_violation() -> None:
    problem = dropout("lower")
    bounded = bl.TorchProblem(
        problem.upper, problem.lower, torch.zeros(1, dtype=F64), torch.zeros(5, dtype=F64), y_bounds=(0.0, 1.0)
    )
    assert check_differentiable(bounded, torch.zeros(1), -torch.ones(5)).verdict is Verdict.REFUTED


def _pair(upper: Any, lower: Any, x: float, y: float, **more: Any) -> bl.TorchProblem:
    return bl.TorchProblem(
        upper, lower, torch.tensor([x], dtype=torch.float64), torch.tensor([y], dtype=torch.float64), **more
    )


@pytest.mark.parametrize("solver", ["hypergradient", "auxiliary", "trust-region"])
def test_the_other_well_is_found(solver: str) -> None:
    """For x < 0 the follower's better well lies at y near -2, away from where it starts."""
    problem = _pair(
        lambda x, y: ((y - 1) ** 2 + (x + 0.5) ** 2).sum(),
        lambda x, y: ((y**2 - 4) ** 2 - x * y).sum(),
        -0.5,
        2.0,
        x_bounds=(-1.0, 1.0),
    )
    r = bl.solve(problem, solver)
    assert r.certificate is not None
    assert r.certificate.verdict == "unverifiable"
    assert r.certificate.lower_gap == pytest.approx(2.126, abs=1e-2)


@pytest.mark.parametrize("unit", [1e-9, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("solver", ["hypergradient", "auxiliary", "trust-region"])
def test_the_followers_unit_changes_nothing(solver: str, unit: float) -> None:
    problem = _pair(lambda x, y: ((y - 1) ** 2).sum(), lambda x, y: unit * ((y - x) ** 2).sum(), 0.5, 0.0)
    r = bl.solve(problem, solver)
    assert r.x["x"] == pytest.approx(1.0, abs=1e-4)
    assert r.certificate is not None
    assert r.certificate.verdict == "verified"
    off = bl.verify(problem, {"x": r.x["x"]}, {"y": r.y["y"] + 0.01})
    assert off.verdict == "refuted"
