"""Architecture gradients against finite differences of lower levels that are solved anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="architecture search needs torch")

from bilevel_core.hypergradients import HypergradientSettings, reduced_gradient  # noqa: E402
from bilevel_core.lower import LowerSettings, respond  # noqa: E402
from bilevel_nas.data import Data, Part  # noqa: E402
from bilevel_nas.oracle import SupernetOracle, View  # noqa: E402
from bilevel_nas.parts import Parts  # noqa: E402
from bilevel_nas.solver import Supernet  # noqa: E402
from bilevel_nas.steps import SearchState, move_architecture, settings, weight_rate  # noqa: E402

from .small import problem  # noqa: E402


def tiny(parts: Parts, seed: int = 0) -> SupernetOracle:
    """A perceptron of a choice of widths on twelve vectors, smooth, and with weight decay enough for strict minima."""
    rng = np.random.default_rng(seed)
    made = [Part(rng.normal(size=(12, 3)).astype(np.float32), (np.arange(12) % 2).astype(np.int64)) for _ in range(3)]
    data = Data("vectors", *made, 2)
    small = problem("mlp", {"depth": 2, "widths": (2, 3)}, data=data)
    oracle = SupernetOracle(small, parts, activation="softplus", weight_decay=0.05, seed=seed, dtype=torch.float64)
    train, validation = small.tensors("train", oracle.device), small.tensors("validation", oracle.device)
    oracle.view = View((train.x.double(), train.y), (validation.x.double(), validation.y), progress=0.5)
    return oracle


def answer(oracle: SupernetOracle, x: np.ndarray, start: Any) -> Any:
    return respond(oracle, x, start, LowerSettings(method="newton-cg", tolerance=1e-9, max_iterations=500))


def slopes(oracle: SupernetOracle, x: np.ndarray, start: Any, step: float = 1e-4) -> tuple[np.ndarray, np.ndarray]:
    """Two random directions, and the differences of the upper objective along them, the lower level solved anew."""
    directions = np.random.default_rng(8).normal(size=(2, oracle.nx))
    out: list[float] = []
    for d in directions:
        ahead, back = (oracle.upper(x + s * step * d, answer(oracle, x + s * step * d, start).y) for s in (1.0, -1.0))
        out.append((ahead - back) / (2.0 * step))
    return directions, np.array(out)


@pytest.mark.parametrize(
    "parts",
    [
        Parts(relax="softmax", hyper="cg"),
        Parts(relax="sigmoid", hyper="cg", reg="zero-one"),
        Parts(relax="gumbel", hyper="cg"),
        Parts(hyper="cg", reg="beta+entropy+cost"),
    ],
    ids=lambda p: p.text,
)
def test_implicit_gradients_are_those_of_retrained_supernets(parts: Parts) -> None:
    """(Not of Dirichlet draws: their pathwise derivative is one of the distribution, not of the draw of one seed.)"""
    oracle = tiny(parts)
    x = np.random.default_rng(3).normal(size=oracle.nx) * 0.3
    found = answer(oracle, x, oracle.y_start())
    exact = reduced_gradient(oracle, x, found, HypergradientSettings("cg", tolerance=1e-10, examine=False))
    first = reduced_gradient(oracle, x, found, HypergradientSettings("first-order", examine=False))
    directions, expected = slopes(oracle, x, found.y)
    assert np.linalg.norm(expected) > 1e-4
    error = float(np.linalg.norm(directions @ exact.value - expected))
    assert error < 5e-3 * float(np.linalg.norm(expected))
    # The reaction matters: without it the gradient would not pass.
    assert float(np.linalg.norm(directions @ first.value - expected)) > 5e-3 * float(np.linalg.norm(expected))


@pytest.mark.parametrize(("hyper", "steps", "accuracy"), [("unroll:7", 7, 1e-5), ("fd", 1, 1e-3)])
def test_unrolled_gradients_are_those_of_weights_trained_anew_for_so_many_steps(
    hyper: str, steps: int, accuracy: float
) -> None:
    """`fd` is the same for one step, its second derivative by a difference."""
    solver = Supernet(preset="darts1", hyper=hyper, weight_rate=0.5)
    oracle = tiny(solver.parts)
    rng = np.random.default_rng(9)
    x = rng.normal(size=oracle.nx) * 0.3
    start = oracle.y_start() + 0.3 * torch.randn(oracle.ny, generator=torch.Generator().manual_seed(1)).double()
    how = settings(solver, oracle, 0.5)

    def trained(at: np.ndarray) -> float:
        y = start
        for _ in range(steps):
            y = y - weight_rate(solver, 0.5) * oracle.lower_gradient(at, y)[1]
        return oracle.upper(at, y)

    found = reduced_gradient(oracle, x, oracle.response(start), how).value
    directions = rng.normal(size=(3, oracle.nx))
    expected = np.array([(trained(x + 1e-4 * d) - trained(x - 1e-4 * d)) / 2e-4 for d in directions])
    first = reduced_gradient(oracle, x, oracle.response(start), HypergradientSettings("first-order", examine=False))
    size = float(np.linalg.norm(expected))
    assert float(np.linalg.norm(directions @ found - expected)) < accuracy * size
    assert float(np.linalg.norm(directions @ first.value - expected)) > 10.0 * accuracy * size


def test_what_the_presets_ask_for_approaches_the_exact_gradient_in_order() -> None:
    """First order leaves the reaction out; a short Neumann series, a long one and CG take in more and more of it."""
    oracle = tiny(Parts(hyper="cg"))
    x = np.random.default_rng(5).normal(size=oracle.nx) * 0.3
    found = answer(oracle, x, oracle.y_start())
    expected = reduced_gradient(oracle, x, found, HypergradientSettings("dense", examine=False)).value

    def error(**how: Any) -> float:
        value = reduced_gradient(oracle, x, found, HypergradientSettings(examine=False, **how)).value
        return float(np.linalg.norm(value - expected) / np.linalg.norm(expected))

    first = error(mode="first-order")
    short = error(mode="neumann", steps=3, step=0.5)
    long = error(mode="neumann", steps=100, step=0.5)
    assert long < short < first
    assert error(mode="cg", max_iterations=100, tolerance=1e-12) < 1e-6 < long


def test_the_gauss_newton_system_has_no_negative_curvature_away_from_the_answer() -> None:
    oracle = tiny(Parts(hyper="cg"))
    solver = Supernet(preset="implicit", hyper="cg:30", damping=1e-3)
    y = oracle.y_start() + 0.5 * torch.randn(oracle.ny, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = reduced_gradient(oracle, np.zeros(oracle.nx), oracle.response(y), settings(solver, oracle, 0.5))
    assert not found.negative_curvature
    assert found.residual < 1e-2


def test_the_auxiliary_direction_lowers_validation_loss_with_the_follower_following() -> None:
    """The predictor y + d_y is nearer to the retrained weights than y is, and the step is one of descent."""
    oracle = tiny(Parts(hyper="aux:50"))
    x = np.random.default_rng(6).normal(size=oracle.nx) * 0.3
    found = answer(oracle, x, oracle.y_start())
    solver = Supernet(preset="auxiliary", hyper="aux:50", damping=0.0, curvature="hessian", radius=0.05, batch=12,
                      second_order_batch=12)  # fmt: skip
    oracle.batch = lambda level, size, number, rank=0: getattr(oracle.view, level)  # type: ignore[method-assign]
    state = SearchState(x=x, y=found.y, alive=oracle.alive)
    before = oracle.upper(x, found.y)
    move_architecture(solver, oracle, state, 0.5)
    assert state.accepted == [1.0]
    assert oracle.upper(state.x, state.y) < before
    target = answer(oracle, state.x, found.y).y
    assert float((state.y - target).norm()) < 0.2 * float((found.y - target).norm())
    assert max(state.residuals) < 1e-2
