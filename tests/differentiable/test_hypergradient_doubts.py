"""What the public hypergradient says of points that are no answers, of kinks, scales, and options of other modes."""

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="differentiable problems need torch")

import bilevel_core as bl  # noqa: E402
from bilevel_core.hypergradients import MODES, HypergradientSettings, reduced_gradient  # noqa: E402
from bilevel_core.lower import respond  # noqa: E402

from .tools import TIGHT, hypergradient, oracle_of  # noqa: E402

F64 = torch.float64


def t(*values: float) -> Any:
    return torch.tensor(values, dtype=F64)


def tracking(upper: float = 1.0, lower: float = 1.0, unit: float = 1.0, **more: Any) -> bl.TorchProblem:
    """F = upper (y/unit - 1)^2 and f = lower (y/unit - x)^2: y(x) = unit x, whatever the factors."""
    return bl.TorchProblem(
        lambda x, y: upper * ((y / unit - 1.0) ** 2).sum(),
        lambda x, y: lower * ((y / unit - x) ** 2).sum(),
        t(0.0),
        t(0.0),
        **more,
    )


# Points that are no answers.

SCALES = [(1.0, 1.0, 1.0), (1e-4, 1e-4, 1.0), (1e-8, 1.0, 1.0), (1.0, 1e-8, 1.0), (1e6, 1e-3, 1.0), (1.0, 1.0, 1e3)]


@pytest.mark.parametrize(("upper", "lower", "unit"), SCALES)
@pytest.mark.parametrize("mode", MODES)
def test_far_points_are_told_in_every_mode_and_scale(mode: str, upper: float, lower: float, unit: float) -> None:
    """The slope turns round at y = 1, between the answer and the point; factors change nothing of that."""
    problem = tracking(upper, lower, unit)
    step = 1e-3 * unit * unit / lower
    options: dict[str, Any] = {"step": step, "steps": 3} if mode == "unroll" else {}
    far = bl.hypergradient(problem, t(0.0), t(3.0 * unit), mode, **options)
    assert "wrong sign" in far.message
    for x in (0.0, 0.3):
        at_answer = bl.hypergradient(problem, t(x), t(x * unit), mode)
        assert "wrong sign" not in at_answer.message
        if mode not in ("finite-difference", "first-order"):
            assert float(at_answer.value) == pytest.approx(2.0 * upper * (x - 1.0), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_answers_as_solvers_give_them_are_not_far(dtype: Any) -> None:
    """With a constant in f as well, and with the answer at zero."""
    for target in (0.0, 1.0, 50.0):
        problem = bl.TorchProblem(
            lambda x, y: y.sum(),
            lambda x, y, at=target: (torch.arange(1, 6).to(y) * (y - at * x) ** 2).sum() + 100.0,
            torch.ones(1, dtype=dtype),
            torch.full((5,), 0.3, dtype=dtype),
        )
        oracle = oracle_of(problem)
        response = respond(oracle, oracle.x_start)
        for mode in MODES:
            found = bl.hypergradient(problem, problem.x0, response.y, mode)
            assert "wrong sign" not in found.message, (target, mode)


def test_unrolling_is_judged_where_its_steps_end() -> None:
    problem = tracking()
    from_afar = bl.hypergradient(problem, t(0.0), t(3.0), "unroll", steps=200, step=0.2)
    assert from_afar.message == ""
    assert from_afar.stationarity < 1e-8
    assert float(from_afar.value) == pytest.approx(-2.0, rel=1e-8)


def test_few_unrolled_steps_say_what_they_miss() -> None:
    problem = bl.TorchProblem(
        lambda x, y: ((y - 1.0) ** 2).sum(), lambda x, y: (t(1.0, 1e-4) * (y - x) ** 2).sum(), t(0.0, 0.0), t(0.0, 0.0)
    )
    found = bl.hypergradient(problem, t(0.0, 0.0), t(0.0, 0.0), "unroll")
    assert abs(float(found.value[1])) < 0.1, "the exact entry is -2"
    assert "relative residual of 0.7" in found.message


FENCES: dict[str, dict[str, Any]] = {
    "row": {"lower_inequality": lambda x, y: y - 1.0},
    "small row": {"lower_inequality": lambda x, y: 1e-8 * (y - 1.0)},
    "equality": {"lower_equality": lambda x, y: 1e-3 * (y - 1.0)},
    "bound": {"y_bounds": (None, 1.0)},
}


@pytest.mark.parametrize("mode", ["cg", "dense", "first-order"])
@pytest.mark.parametrize("fence", FENCES)
def test_points_beyond_the_constraints_are_told(fence: str, mode: str) -> None:
    problem = tracking(**FENCES[fence])
    found = bl.hypergradient(problem, t(3.0), t(3.0), mode)
    assert "violates" in found.message
    assert ("bounds" if fence == "bound" else "lower_") in found.message
    inside = bl.hypergradient(problem, t(3.0), t(1.0), mode)
    assert "violates" not in inside.message
    if mode != "first-order":
        assert float(inside.value) == pytest.approx(0.0, abs=1e-12)
        assert inside.message == ""


# Kinks and weak multipliers.


@pytest.mark.parametrize("fence", ["row", "small row", "bound"])
def test_kinks_are_said(fence: str) -> None:
    problem = tracking(**FENCES[fence])
    kink = bl.hypergradient(problem, t(1.0), t(1.0))
    assert not kink.strict
    assert "kink" in kink.message
    for x, y in ((1.01, 1.0), (0.99, 0.99)):
        beside = bl.hypergradient(problem, t(x), t(y))
        assert beside.strict
        assert beside.message == ""


@pytest.mark.parametrize("row", [1e-8, 1.0, 1e6])
@pytest.mark.parametrize("other", [1e-8, 1.0, 1e6])
@pytest.mark.parametrize("part", [1.0, 1e9])
def test_rows_and_parts_of_different_scales(row: float, other: float, part: float) -> None:
    """Two variables that know nothing of each other, each pushed against a row of its own: y(x) does not move."""
    problem = bl.TorchProblem(
        lambda x, y: (y[1] - 5.0) ** 2 + y[0],
        lambda x, y: part * (y[0] - 10.0) ** 2 + (y[1] - x[0]) ** 2,
        t(3.0),
        t(0.0, 0.0),
        lower_inequality=lambda x, y: torch.stack([row * (y[0] - 1.0), other * (y[1] - 1.0)]),
    )
    found = bl.hypergradient(problem, t(3.0), t(1.0, 1.0))
    assert found.strict
    assert float(found.value) == pytest.approx(0.0, abs=1e-9)
    # Off the second row the variable follows again; the first stays.
    free = bl.hypergradient(problem, t(0.5), t(1.0, 0.5))
    assert free.strict
    assert float(free.value) == pytest.approx(-9.0, rel=1e-9)


def test_bounds_of_parts_of_different_scales() -> None:
    problem = bl.TorchProblem(
        lambda x, y: (y[1] - 5.0) ** 2 + y[0],
        lambda x, y: 1e9 * (y[0] - 10.0) ** 2 + (y[1] - x[0]) ** 2,
        t(3.0),
        t(0.0, 0.0),
        y_bounds=(None, 1.0),
    )
    found = bl.hypergradient(problem, t(3.0), t(1.0, 1.0))
    assert found.strict
    assert float(found.value) == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("row", [False, True])
def test_bounds_that_single_precision_cannot_hold(dtype: Any, row: bool) -> None:
    """F_x alone is -1 where y is held: through the solver's answer and through the public function."""
    more = {"lower_inequality": lambda x, y: y - 100.0} if row else {}
    for low, high, x, held in ((0.1, None, -2.0, 0.1), (None, 0.7, 2.0, 0.7), (0.1, 0.7, -2.0, 0.1)):
        problem = bl.TorchProblem(
            lambda x, y: ((y - 5.0) ** 2).sum() + 0.5 * ((x + 1.0) ** 2).sum(),
            lambda x, y: ((y - x) ** 2).sum(),
            torch.tensor([x], dtype=dtype),
            torch.zeros(1, dtype=dtype),
            y_bounds=(low, high),
            **more,
        )
        oracle = oracle_of(problem)
        response = respond(oracle, oracle.x_start, None, TIGHT)
        assert float(response.y) == pytest.approx(held, rel=1e-6)
        solver = reduced_gradient(oracle, oracle.x_start, response)
        public = hypergradient(problem)
        for value, found in ((float(solver.value[0]), solver), (float(public.value), public)):
            assert value == pytest.approx(x + 1.0, abs=1e-6)
            assert found.strict
            assert found.message == ""


# Options that belong to other modes.

VALUES: dict[str, Any] = {
    "tolerance": 1e-3,
    "max_iterations": 7,
    "steps": 9,
    "truncate": 3,
    "step": 0.1,
    "rank": 2,
    "damping": 0.5,
    "curvature": "gauss-newton",
    "seed": 4,
}
SOLVES = {"cg", "minres", "neumann", "nystrom", "fixed-point", "dense"}
USERS: dict[str, set[str]] = {
    "tolerance": SOLVES - {"dense"},
    "max_iterations": {"cg", "minres", "nystrom", "fixed-point"},
    "steps": {"neumann", "unroll"},
    "truncate": {"unroll"},
    "step": {"neumann", "fixed-point", "unroll", "finite-difference"},
    "rank": {"nystrom"},
    "damping": SOLVES,
    "curvature": SOLVES,
    "seed": {"neumann", "nystrom", "fixed-point", "unroll", "finite-difference"},
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("mode", MODES)
def test_options_of_other_modes_are_refused_by_name(mode: str, name: str) -> None:
    problem = bl.TorchProblem(
        lambda x, y: ((y - 1.0) ** 2).sum(),
        lambda x, y, z: ((z - x) ** 2).sum(),
        t(0.0),
        t(0.0),
        outputs=lambda x, y: y,
    )
    default = getattr(HypergradientSettings(), name)
    bl.hypergradient(problem, t(0.3), t(0.2), mode, **{name: default})
    if mode in USERS[name]:
        bl.hypergradient(problem, t(0.3), t(0.2), mode, **{name: VALUES[name]})
        return
    with pytest.raises(bl.UsageError, match=rf"{mode}.* does not use {name}.*\("):
        bl.hypergradient(problem, t(0.3), t(0.2), mode, **{name: VALUES[name]})
    if name not in ("tolerance", "max_iterations"):
        with pytest.raises(bl.UsageError, match=f"does not use {name}"):
            HypergradientSettings(mode=mode, **{name: VALUES[name]})
