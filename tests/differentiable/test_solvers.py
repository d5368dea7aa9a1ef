"""Solvers end to end on differentiable problems with known optima; claims, work done, starts, seeds, resumed runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="differentiable problems need torch")

import bilevel_core as bl  # noqa: E402
from bilevel_core.oracles.torch_curvature import TorchCurvature  # noqa: E402
from bilevel_core.result import Claim, Termination  # noqa: E402

F64 = torch.float64
GENERATOR = torch.Generator().manual_seed(4)
TRAIN = torch.randn(9, 5, generator=GENERATOR, dtype=F64)
VALID = torch.randn(15, 5, generator=GENERATOR, dtype=F64)
TRUTH = torch.tensor([1.0, -2.0, 0.0, 0.0, 0.5], dtype=F64)
TRAIN_OUT = TRAIN @ TRUTH + 1.5 * torch.randn(9, generator=GENERATOR, dtype=F64)
VALID_OUT = VALID @ TRUTH + 0.8 * torch.randn(15, generator=GENERATOR, dtype=F64)

SOLVERS: list[tuple[str, dict[str, Any]]] = [
    ("hypergradient", {}),
    ("hypergradient", {"mode": "minres"}),
    ("hypergradient", {"outer": "adam", "outer_rate": 0.1, "max_iterations": 600, "tolerance": 1e-5}),
    ("hypergradient", {"outer": "sgd", "outer_rate": 0.3, "outer_momentum": 0.8, "max_iterations": 600}),
    ("auxiliary", {}),
    ("auxiliary", {"norm": "2", "tolerance": 1e-4}),
    ("auxiliary", {"norm": "inf", "tolerance": 1e-4}),
    ("auxiliary", {"norm": "quasi-newton"}),
    ("trust-region", {}),
    ("penalty", {}),
]
NAMES = ["-".join([name, *(str(v) for v in list(o.values())[:1])]) for name, o in SOLVERS]
every = pytest.mark.parametrize(("solver", "options"), SOLVERS, ids=NAMES)


def ridge(count: int) -> bl.TorchProblem:
    """Log-regularisers of ridge regression: one for all weights, or one each."""
    return bl.TorchProblem(
        lambda x, y: ((VALID @ y - VALID_OUT) ** 2).mean(),
        lambda x, y: ((TRAIN @ y - TRAIN_OUT) ** 2).mean() + (torch.exp(x) * y * y).sum(),
        torch.full((count,), -1.0, dtype=F64),
        torch.zeros(5, dtype=F64),
        x_bounds=(-6.0, 3.0),
        name=f"ridge-{count}",
    )


def ridge_value(x: np.ndarray) -> float:
    a, b = TRAIN.numpy(), TRAIN_OUT.numpy()
    w = np.linalg.solve(a.T @ a / 9 + np.diag(np.broadcast_to(np.exp(x), 5)), a.T @ b / 9)
    return float(np.mean((VALID.numpy() @ w - VALID_OUT.numpy()) ** 2))


def ridge_optimum(count: int) -> float:
    from scipy.optimize import minimize

    found = [
        minimize(ridge_value, np.full(count, s), bounds=[(-6.0, 3.0)] * count, method="L-BFGS-B", tol=1e-14).fun
        for s in (-1.0, -4.0, 1.0)
    ]
    return float(min(found))


def check_claim(result: bl.Result) -> None:
    assert result.claim in (Claim.FEASIBLE, Claim.STATIONARY, Claim.LOCAL)


@every
def test_ridge_with_one_regulariser(solver: str, options: dict[str, Any]) -> None:
    result = bl.solve(ridge(1), solver, options, verify=False)
    assert result.termination is Termination.CONVERGED, result.message
    assert result.upper_objective == pytest.approx(ridge_optimum(1), rel=1e-5)
    assert result.upper_objective == pytest.approx(ridge_value(result.x["x"]), rel=1e-6)
    check_claim(result)
    assert result.claim is not Claim.FEASIBLE, result.message


@pytest.mark.parametrize(("solver", "options"), [SOLVERS[k] for k in (0, 4, 8)], ids=[NAMES[k] for k in (0, 4, 8)])
def test_ridge_with_five_and_bounds_that_bind(solver: str, options: dict[str, Any]) -> None:
    result = bl.solve(ridge(5), solver, options, verify=False)
    assert result.upper_objective == pytest.approx(ridge_optimum(5), rel=1e-5)
    x = result.x["x"]
    assert ((x >= -6.0) & (x <= 3.0)).all()
    assert ((x <= -6.0 + 1e-9) | (x >= 3.0 - 1e-9)).any(), "irrelevant features want the largest weight"
    check_claim(result)


H = torch.tensor([[2.0, 0.3, 0.0], [0.3, 1.0, -0.2], [0.0, -0.2, 0.7]], dtype=F64)
C = torch.tensor([[1.0, 0.5], [0.0, 1.0], [-1.0, 0.4]], dtype=F64)
AIM = torch.tensor([1.0, -1.0, 2.0], dtype=F64)


def quadratic(**more: Any) -> bl.TorchProblem:
    return bl.TorchProblem(
        lambda x, y: 0.5 * ((y - AIM) ** 2).sum() + 0.05 * x @ x,
        lambda x, y: 0.5 * y @ H @ y - (C @ x) @ y,
        torch.zeros(2, dtype=F64),
        torch.zeros(3, dtype=F64),
        **more,
    )


def quadratic_optimum(fixed: float | None = None) -> np.ndarray:
    """Phi's minimum; with the second variable fixed, over the first."""
    s = np.linalg.solve(H.numpy(), C.numpy())
    hessian, right = s.T @ s + 0.1 * np.eye(2), s.T @ AIM.numpy()
    if fixed is None:
        return np.linalg.solve(hessian, right)
    return np.array([(right[0] - hessian[0, 1] * fixed) / hessian[0, 0], fixed])


@every
def test_a_quadratic_problem_in_closed_form(solver: str, options: dict[str, Any]) -> None:
    result = bl.solve(quadratic(), solver, options)
    assert result.x["x"] == pytest.approx(quadratic_optimum(), abs=3e-4)
    y = np.linalg.solve(H.numpy(), C.numpy() @ result.x["x"])
    assert result.y["y"] == pytest.approx(y, abs=1e-7)
    check_claim(result)
    assert result.certificate is not None
    assert result.certificate.verdict.value != "refuted"


@every
def test_bounds_on_x_that_bind(solver: str, options: dict[str, Any]) -> None:
    high = float(quadratic_optimum()[1]) - 0.7
    problem = quadratic(x_bounds=(None, torch.tensor([9.0, high], dtype=F64)))
    result = bl.solve(problem, solver, options, verify=False)
    assert result.x["x"] == pytest.approx(quadratic_optimum(high), abs=3e-4)
    assert result.x["x"][1] == high
    check_claim(result)


def smd1() -> bl.TorchProblem:
    """SMD1 of Sinha, Malo and Deb with 2 + 1 and 2 + 1 variables: optimum 0 at 0."""
    p = 2

    def lower(x: Any, y: Any) -> Any:
        return (x[:p] ** 2).sum() + (y[:p] ** 2).sum() + ((x[p:] - torch.tan(y[p:])) ** 2).sum()

    return bl.TorchProblem(
        lambda x, y: (
            (x[:p] ** 2).sum() + (y[:p] ** 2).sum() + (x[p:] ** 2).sum() + ((x[p:] - torch.tan(y[p:])) ** 2).sum()
        ),
        lower,
        torch.tensor([3.0, -2.0, 1.5], dtype=F64),
        torch.tensor([1.0, 1.0, 0.5], dtype=F64),
        x_bounds=(-5.0, 10.0),
    )


@every
def test_smd1(solver: str, options: dict[str, Any]) -> None:
    result = bl.solve(smd1(), solver, options, verify=False)
    assert result.upper_objective == pytest.approx(0.0, abs=1e-6)
    assert result.x["x"] == pytest.approx(np.zeros(3), abs=2e-3)
    check_claim(result)


def constrained(*, equality: bool) -> bl.TorchProblem:
    """y is the projection of x on y_1 + y_2 = 1 (or <= 1). By hand: with equality and the aim (2, 0), x = (d, -d) with
    d = 10 / 11; with inequality and (2, 2), the kink x = (1/2, 1/2), F = 4.55.
    """
    aim = torch.tensor([2.0, 0.0 if equality else 2.0], dtype=F64)
    row = {"lower_equality" if equality else "lower_inequality": lambda x, y: y.sum() - 1.0}
    return bl.TorchProblem(
        lambda x, y: ((y - aim) ** 2).sum() + 0.1 * x @ x,
        lambda x, y: ((y - x) ** 2).sum(),
        torch.tensor([0.1, -0.2], dtype=F64),
        torch.zeros(2, dtype=F64),
        **row,
    )


@pytest.mark.parametrize("solver", ["hypergradient", "auxiliary", "trust-region"])
def test_a_lower_level_with_an_equality(solver: str) -> None:
    result = bl.solve(constrained(equality=True), solver)
    assert result.x["x"] == pytest.approx([10 / 11, -10 / 11], abs=1e-4)
    assert result.y["y"].sum() == pytest.approx(1.0, abs=1e-9)
    check_claim(result)
    assert result.claim is not Claim.FEASIBLE, result.message


@pytest.mark.parametrize("solver", ["auxiliary", "trust-region"])
def test_an_optimum_at_a_kink(solver: str) -> None:
    result = bl.solve(constrained(equality=False), solver, verify=False)
    # The trust region stops beside the kink, and says that nothing is known.
    assert result.upper_objective == pytest.approx(4.55, abs=1e-5 if solver == "auxiliary" else 1e-2)
    if solver == "auxiliary":
        assert result.x["x"] == pytest.approx([0.5, 0.5], abs=1e-6)
        assert result.claim is not Claim.FEASIBLE
    check_claim(result)


def test_a_kink_is_not_called_stationary() -> None:
    result = bl.solve(constrained(equality=False), "hypergradient", verify=False)
    if result.x["x"] != pytest.approx([0.5, 0.5], abs=1e-4):
        assert result.claim is Claim.FEASIBLE
        assert "kink" in result.message


def test_a_maximum_is_not_called_local() -> None:
    """Phi = -x^2 + x^4 / 4 has its maximum at the start: stationary, and no more may be said."""
    problem = bl.TorchProblem(
        lambda x, y: (-(y**2) + y**4 / 4).sum(),
        lambda x, y: ((y - x) ** 2).sum(),
        torch.zeros(1, dtype=F64),
        torch.zeros(1, dtype=F64),
    )
    for solver in ("hypergradient", "auxiliary", "trust-region"):
        result = bl.solve(problem, solver, verify=False)
        if abs(float(result.x["x"][0])) < 1e-3:
            assert result.claim in (Claim.STATIONARY, Claim.FEASIBLE), solver
    more = bl.solve(problem, "hypergradient", {"starts": 3}, verify=False)
    assert more.upper_objective == pytest.approx(-1.0, abs=1e-6)
    assert more.claim is Claim.LOCAL


def test_damping_and_gauss_newton_claim_nothing() -> None:
    result = bl.solve(quadratic(), "hypergradient", {"damping": 0.1}, verify=False)
    assert result.claim is Claim.FEASIBLE
    assert result.counts["iterations"] < 100  # a gradient that does not point downhill is given up
    first = bl.solve(quadratic(), "hypergradient", {"mode": "unroll", "hypergradient_steps": 100}, verify=False)
    assert first.claim is Claim.FEASIBLE
    assert first.x["x"] == pytest.approx(quadratic_optimum(), abs=1e-3)


# Work done.


@pytest.mark.parametrize("solver", ["hypergradient", "auxiliary"])
def test_no_matrix_is_formed_without_constraints(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("a dense matrix")

    monkeypatch.setattr(TorchCurvature, "dense", refuse)
    monkeypatch.setattr(TorchCurvature, "dense_mixed", refuse)
    for problem in (smd1(), ridge(5)):
        assert bl.solve(problem, solver, verify=False).termination is Termination.CONVERGED


@pytest.mark.parametrize(("solver", "most"), [("hypergradient", 60), ("auxiliary", 60)])
def test_work_on_ridge(solver: str, most: int) -> None:
    result = bl.solve(ridge(1), solver, verify=False)
    assert result.counts["lower_solves"] <= most
    assert result.counts["iterations"] <= 25
    # A Newton step on five weights takes five products at most, an adjoint as many.
    assert result.counts["hessian_products"] <= 40 * most


def test_counts_are_what_was_called() -> None:
    calls = {"upper": 0, "lower": 0}
    problem = quadratic()
    upper, lower = problem.upper, problem.lower

    def counted(name: str, function: Any) -> Any:
        def call(x: Any, y: Any) -> Any:
            calls[name] += 1
            return function(x, y)

        return call

    problem.upper, problem.lower = counted("upper", upper), counted("lower", lower)
    counts = bl.solve(problem, "hypergradient", verify=False).counts
    # Beyond what is counted: a look whether the functions are random, and the result's own objectives.
    upper_work = counts["upper_values"] + counts["upper_gradients"]
    assert upper_work <= calls["upper"] <= upper_work + 4
    lower_work = counts["lower_values"] + counts["lower_gradients"]
    assert lower_work <= calls["lower"] <= lower_work + 4


# Starts, seeds, resumed runs.


def waves() -> bl.TorchProblem:
    return bl.TorchProblem(
        lambda x, y: (torch.sin(3.0 * y) + 0.1 * (y - 1.5) ** 2).sum(),
        lambda x, y: ((y - x) ** 2).sum() + 0.1 * (y**4).sum(),
        torch.tensor([-2.0], dtype=F64),
        torch.zeros(1, dtype=F64),
        x_bounds=(-6.0, 6.0),
    )


def test_more_starts_find_more() -> None:
    one = bl.solve(waves(), "hypergradient", verify=False)
    many = bl.solve(waves(), "hypergradient", {"starts": 12}, verify=False)
    assert many.upper_objective < one.upper_objective - 0.1
    y = np.linspace(-3.0, 3.0, 60001)
    assert many.upper_objective == pytest.approx(float((np.sin(3 * y) + 0.1 * (y - 1.5) ** 2).min()), abs=1e-6)


def dropout(**more: Any) -> bl.TorchProblem:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Dropout(0.3), torch.nn.Linear(4, 1))

    def value(x: Any, y: Any, batch: Any) -> Any:
        return ((y(batch[0]).squeeze(1) - batch[1]) ** 2).mean() + torch.exp(x).sum() * sum(
            (p**2).sum() for p in y.parameters()
        )

    data = torch.utils.data.TensorDataset(TRAIN, TRAIN_OUT)
    return bl.TorchProblem(
        value,
        value,
        torch.tensor([-3.0], dtype=F64),
        module.double(),
        upper_data=[(VALID, VALID_OUT)],
        lower_data=torch.utils.data.DataLoader(data, batch_size=4, shuffle=True),
        **more,
    )


ADAM = {"lower_method": "adam", "lower_iterations": 7, "learning_rate": 0.02, "hypergradient_iterations": 5}
RUNS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "hypergradient": (lambda: ridge(5), "hypergradient", {}),
    "outer adam": (lambda: ridge(5), "hypergradient", {"outer": "adam"}),
    "outer sgd": (lambda: ridge(5), "hypergradient", {"outer": "sgd", "outer_momentum": 0.5}),
    "auxiliary": (lambda: ridge(5), "auxiliary", {}),
    "auxiliary at rows": (lambda: constrained(equality=False), "auxiliary", {}),
    "trust-region": (lambda: ridge(5), "trust-region", {}),
    "penalty": (smd1, "penalty", {}),
    "starts": (waves, "hypergradient", {"starts": 3}),
    "dropout": (dropout, "hypergradient", {"outer": "sgd", "lower_iterations": 1, "hypergradient_iterations": 5}),
    "minibatch adam": (dropout, "hypergradient", {"outer": "adam", **ADAM}),
    "minibatch adam, auxiliary": (dropout, "auxiliary", ADAM),
}


def bits(result: bl.Result) -> tuple[Any, ...]:
    arrays = [(k, v.tobytes()) for values in (result.x, result.y) for k, v in values.items()]
    return (
        result.termination,
        result.claim,
        result.upper_objective,
        result.lower_objective,
        arrays,
        dict(result.counts),
    )


@pytest.mark.parametrize("run", RUNS)
def test_resumed_is_as_never_interrupted(run: str, tmp_path: Path) -> None:
    make, solver, options = RUNS[run]
    options = {"max_iterations": 4, "checkpoint_every": 0.0, **options}
    whole = bl.solve(make(), solver, options, seed=3, verify=False)
    for at in (1, 3):
        folder = tmp_path / str(at)
        seen = [0]

        def stop(event: bl.Event, seen: list[int] = seen, at: int = at) -> bool:
            seen[0] += event.kind == "iteration"
            return seen[0] >= at

        cut = bl.solve(make(), solver, options, seed=3, callbacks=[stop], out=folder, verify=False)
        assert cut.termination is Termination.STOPPED_BY_USER
        torch.manual_seed(999 + at)
        assert bits(bl.resume(make(), folder)) == bits(whole)


@pytest.mark.parametrize("run", ["dropout", "minibatch adam", "starts"])
def test_the_seed_decides(run: str) -> None:
    make, solver, options = RUNS[run]
    options = {"max_iterations": 3, **options}
    torch.manual_seed(1)
    first = bl.solve(make(), solver, options, seed=5, verify=False)
    torch.manual_seed(2)
    again = bl.solve(make(), solver, options, seed=5, verify=False)
    assert bits(first) == bits(again)
    other = bl.solve(make(), solver, options, seed=6, verify=False)
    assert bits(other) != bits(first)


def test_a_problem_that_was_changed_is_not_resumed(tmp_path: Path) -> None:
    def problem(target: float) -> bl.TorchProblem:
        start = torch.zeros(2, dtype=F64)
        return bl.TorchProblem(
            lambda x, y: ((y - target) ** 2).sum() + (x**4).sum(), lambda x, y: ((y - x) ** 2).sum(), start, start
        )

    bl.solve(problem(1.0), "hypergradient", {"max_iterations": 2, "checkpoint_every": 0}, out=tmp_path / "run")
    with pytest.raises(bl.UsageError, match="has changed since"):
        bl.resume(problem(2.0), tmp_path / "run", max_iterations=50)
    assert bl.resume(problem(1.0), tmp_path / "run", max_iterations=50).termination == "converged"
