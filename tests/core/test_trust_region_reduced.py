"""`trust-region` on the reduced objective: its parts, and the loop on problems with known answers."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.oracles import make_oracle
from bilevel_core.plugins.registry import get_registry
from bilevel_core.problems.base import as_problem
from bilevel_core.result import Claim
from bilevel_core.run import RunContext
from bilevel_core.solvers.trust_region.reduced import QuasiNewton, bounded_step
from bilevel_core.solvers.trust_region.solver import TrustRegion

torch: Any = pytest.importorskip("torch")


def rosenbrock(n: int, **more: Any) -> bl.TorchProblem:
    """Phi is Rosenbrock's function of n variables: the follower answers y_i = x_i^2. Optimum 0 at (1, ..., 1)."""
    return bl.TorchProblem(
        lambda x, y: ((1.0 - x[:-1]) ** 2).sum() + 100.0 * ((x[1:] - y[:-1]) ** 2).sum(),
        lambda x, y: (0.5 * (y - x**2) ** 2).sum() + 0.25 * ((y - x**2) ** 4).sum(),
        torch.full((n,), -0.5, dtype=torch.float64),
        torch.zeros(n, dtype=torch.float64),
        **more,
    )


def run(solver: TrustRegion, problem: Any, x0: np.ndarray | None = None) -> list[Any]:
    oracle = make_oracle(as_problem(problem))
    context = RunContext()
    states = [solver.init(oracle, oracle.x_start if x0 is None else x0, context)]
    while solver.done(states[-1]) is None and len(states) < 400:
        states.append(solver.step(oracle, states[-1], context))
    return states


@pytest.mark.parametrize("update", ["bfgs", "sr1"])
def test_rosenbrock_over_a_nonquadratic_follower(update: str) -> None:
    states = run(TrustRegion(quasi_newton=update), rosenbrock(6))
    assert states[-1].converged
    assert states[-1].candidate.x == pytest.approx(np.ones(6), abs=1e-5)
    assert states[-1].candidate.claim is Claim.LOCAL
    assert len(states) < 150


def test_bounds_hold_and_are_optimal() -> None:
    # With x <= 0.5 the optimum of the two-variable function is at (0.5, 0.25), where it is 0.25.
    states = run(TrustRegion(), rosenbrock(2, x_bounds=(None, 0.5)))
    assert all((s.candidate.x <= 0.5).all() for s in states)
    assert states[-1].candidate.x == pytest.approx([0.5, 0.25], abs=1e-5)
    assert states[-1].candidate.claim is Claim.LOCAL


def test_values_never_rise_and_the_lower_level_is_solved_loosely_at_first() -> None:
    states = run(TrustRegion(), rosenbrock(4))
    values = [s.candidate.objective for s in states]
    # What a looser lower-level solve promised, a tighter one may take back, but no more than its tolerance allows.
    assert all(b <= a + 1e-5 for a, b in itertools.pairwise(values))
    accuracies = [s.figures["accuracy"] for s in states if "accuracy" in s.figures]
    assert max(accuracies) > 1e-7
    assert states[-1].residual <= 1e-10


def test_through_the_public_door() -> None:
    r = bl.solve(rosenbrock(3), "trust-region")
    assert r.upper_objective == pytest.approx(0.0, abs=1e-9)
    assert r.x["x"] == pytest.approx(np.ones(3), abs=1e-4)
    assert r.claim is Claim.LOCAL


def test_an_algebraic_problem_with_the_reduced_model() -> None:
    problem = get_registry().problems["classic/falk-liu"].load()()
    r = bl.solve(problem, "trust-region", {"model": "reduced"})
    assert r.upper_objective == pytest.approx(-2.25)


def test_a_kink_is_not_called_stationary() -> None:
    # The follower answers y = max(x, 1); Phi = y - 2 x + 1.2 max(x, 1) has a kink at 1 with slopes -2 and 0.2.
    problem = bl.TorchProblem(
        lambda x, y: (2.2 * y - 2.0 * x).sum(),
        lambda x, y: ((y - x) ** 2).sum(),
        torch.zeros(2, dtype=torch.float64),
        torch.zeros(2, dtype=torch.float64),
        y_bounds=(1.0, None),
    )
    states = run(TrustRegion(), problem, np.array([0.1, 0.3]))
    assert states[-1].candidate.x == pytest.approx([1.0, 1.0], abs=0.1)
    assert states[-1].candidate.claim is Claim.FEASIBLE


def test_upper_rows_are_refused() -> None:
    problem = rosenbrock(2, upper_inequality=lambda x, y: x.sum() - 1.0)
    with pytest.raises(bl.RefusedError, match="besides bounds"):
        bl.solve(problem, "trust-region")


def test_a_run_goes_on_from_any_state_bit_for_bit() -> None:
    solver, problem = TrustRegion(), rosenbrock(3)
    states = run(solver, problem)
    oracle = make_oracle(problem)
    state = copy.deepcopy(states[5])
    for expected in states[6:]:
        state = solver.step(oracle, state, RunContext())
        assert np.array_equal(state.candidate.x, expected.candidate.x)
        assert torch.equal(state.candidate.y, expected.candidate.y)
    assert solver.done(state) == solver.done(states[-1])


@pytest.mark.parametrize("kind", ["bfgs", "sr1"])
def test_the_model_fulfils_the_secant_equation(kind: str) -> None:
    rng = np.random.default_rng(3)
    a = rng.normal(size=(6, 6))
    hessian = a @ a.T + np.eye(6)
    steps = rng.normal(size=(5, 6))
    model = QuasiNewton(steps, steps @ hessian, kind, 1.0)
    assert model.product(steps[-1]) == pytest.approx(hessian @ steps[-1], rel=1e-8)
    if kind == "sr1":  # on a quadratic it remembers every pair
        assert model.product(steps[0]) == pytest.approx(hessian @ steps[0], rel=1e-6)


def test_sr1_sees_negative_curvature_and_bfgs_does_not() -> None:
    steps = np.eye(2)
    changes = steps @ np.diag([-3.0, 2.0])
    v = np.array([1.0, 0.0])
    assert v @ QuasiNewton(steps, changes, "sr1", 1.0).product(v) == pytest.approx(-3.0)
    assert v @ QuasiNewton(steps[1:], changes[1:], "bfgs", 1.0).product(v) > 0.0


@pytest.mark.parametrize("seed", range(40))
def test_a_step_stays_inside_and_beats_the_projected_gradient(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    steps = rng.normal(size=(int(rng.integers(0, 5)), n))
    a = rng.normal(size=(n, n))
    model = QuasiNewton(steps, steps @ (a + a.T), "sr1", float(rng.uniform(0.1, 3.0)))
    gradient = rng.normal(size=n)
    radius = float(rng.uniform(0.1, 3.0))
    low = np.where(rng.random(n) < 0.5, -np.inf, -rng.uniform(0.0, 1.0, n) * rng.integers(0, 2, n))
    high = np.where(rng.random(n) < 0.5, np.inf, rng.uniform(0.0, 1.0, n) * rng.integers(0, 2, n))

    def value(d: np.ndarray) -> float:
        return float(gradient @ d + 0.5 * d @ model.product(d))

    d = bounded_step(model, gradient, radius, low, high)
    assert np.linalg.norm(d) <= radius * (1.0 + 1e-9)
    assert (d >= low).all()
    assert (d <= high).all()
    free = ~(((low >= 0.0) & (gradient > 0.0)) | ((high <= 0.0) & (gradient < 0.0)))
    p = np.where(free, -gradient, 0.0)
    if not p.any():
        assert not d.any()
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(p > 0.0, high / p, np.where(p < 0.0, low / p, np.inf)).min()
    longest = min(room, radius / np.linalg.norm(p))
    cauchy = min(value(t * longest * p) for t in np.linspace(0.0, 1.0, 101))
    assert value(d) <= 0.3 * cauchy + 1e-12
    if longest > 0.0:
        assert value(d) < 0.0


def test_an_unbounded_quadratic_in_the_ball_is_solved_by_its_newton_step() -> None:
    steps = np.eye(3)
    hessian = np.diag([1.0, 4.0, 9.0])
    model = QuasiNewton(steps, steps @ hessian, "sr1", 1.0)
    gradient = np.array([1.0, -2.0, 3.0]) * 1e-3
    wide = np.full(3, np.inf)
    d = bounded_step(model, gradient, 10.0, -wide, wide)
    assert d == pytest.approx(-np.linalg.solve(hessian, gradient), rel=0.05)
