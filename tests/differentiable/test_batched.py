"""Lower levels solved together give what each gives alone, and sampling with batches what it gives without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevel_core as bl

torch = pytest.importorskip("torch")

from bilevel_core.lower import LowerSettings, respond  # noqa: E402
from bilevel_core.lower.batched import respond_many, upper_many  # noqa: E402
from bilevel_core.oracles import make_oracle  # noqa: E402
from bilevel_core.oracles.base import NonFiniteError  # noqa: E402

RNG = torch.Generator().manual_seed(3)
INPUTS, TARGETS = torch.randn(40, 3, generator=RNG).double(), torch.randn(40, generator=RNG).double()


def loss(x: Any, y: Any, rows: slice) -> Any:
    """A network of one hidden layer with the weights ``y``, regularised by exp(x)."""
    hidden = torch.tanh(INPUTS[rows] @ y["a"])
    return ((hidden @ y["b"] - TARGETS[rows]) ** 2).mean()


def ridge(**more: Any) -> bl.TorchProblem:
    start = {"a": torch.full((3, 4), 0.1).double() + 0.1 * torch.arange(4).double(), "b": torch.ones(4).double()}
    return bl.TorchProblem(
        lambda x, y: loss(x, y, slice(20, 40)),
        lambda x, y: loss(x, y, slice(0, 20)) + x.exp().sum() * sum((v**2).sum() for v in y.values()),
        torch.zeros(2).double(),
        start,
        x_bounds=(-6.0, 2.0),
        **more,
    )


@pytest.mark.parametrize("method", ["adam", "sgd", "rmsprop"])
def test_the_same_as_one_by_one(method: str) -> None:
    problem = ridge()
    settings = LowerSettings(method=method, max_iterations=60, learning_rate=0.05, tolerance=0.02)
    x = np.array([[-4.0, -3.0], [0.5, 0.0], [-1.0, -5.0]])
    oracle: Any = make_oracle(problem)
    alone = [respond(oracle, point, None, settings) for point in x]
    upper = [oracle.upper(point, found.y) for point, found in zip(x, alone, strict=True)]
    together = respond_many(oracle, x, torch.stack([oracle.y_start()] * 3), settings)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other.y.numpy(), one.y.numpy(), rtol=1e-9, atol=1e-12)
        assert (other.value, other.residual) == pytest.approx((one.value, one.residual), rel=1e-8)
        assert (other.iterations, other.converged) == (one.iterations, one.converged)
    np.testing.assert_allclose(upper_many(oracle, x, [found.y for found in together]), upper, rtol=1e-9)


def test_one_that_breaks_costs_the_others_nothing() -> None:
    problem = bl.TorchProblem(
        lambda x, y: (y**2).sum(),
        lambda x, y: ((y - x) ** 2).sum() + torch.where(x > 1.0, torch.log(-y), torch.zeros(())).sum(),
        torch.zeros(1),
        torch.ones(1),
    )
    oracle: Any = make_oracle(problem)
    settings = LowerSettings(method="sgd", max_iterations=50)
    good, bad = respond_many(oracle, np.array([[0.5], [2.0]]), torch.ones(2, 1), settings)
    assert float(good.y) == pytest.approx(0.5, abs=1e-3)
    assert isinstance(bad, NonFiniteError)


@pytest.mark.parametrize("solver", ["sample.sobol", "sample.evolution", "sample.halving"])
def test_sampling_in_batches_finds_the_same(solver: str) -> None:
    options = {"lower_solves": 12, "lower_method": "adam", "lower_iterations": 40, "parallel": 4}
    one = bl.solve(ridge(), solver, options, verify=False)
    many = bl.solve(ridge(), solver, {**options, "batch": 4}, verify=False)
    assert [e["objective"] for e in many.trace] == pytest.approx([e["objective"] for e in one.trace], rel=1e-7)
    assert many.counts["lower_solves"] == one.counts["lower_solves"]


def test_what_cannot_be_solved_together_is_refused() -> None:
    with pytest.raises(bl.UsageError, match=r"newton-cg|'auto'.*batch=1"):
        bl.solve(ridge(), "sample.random", {"batch": 4})
    with pytest.raises(bl.UsageError, match="entry by entry"):
        bl.solve(ridge(), "sample.random", {"batch": 4, "lower_method": "adafactor"})
    with pytest.raises(bl.UsageError, match="constraints or bounds"):
        bl.solve(ridge(y_bounds=(-9.0, 9.0)), "sample.random", {"batch": 4, "lower_method": "adam"})


def test_points_are_verified_and_runs_resumed(tmp_path: Path) -> None:
    options = {"lower_solves": 8}
    whole = bl.solve(ridge(), "sample.local", options)
    assert whole.certificate is not None
    assert whole.certificate.verdict == "verified"
    assert whole.status == "feasible"
    assert sorted(whole.x) == ["x"]
    cut = bl.solve(
        ridge(), "sample.local", options, out=tmp_path / "run", callbacks=[lambda e: e.data.get("iteration") == 5]
    )
    assert cut.termination == "stopped-by-user"
    again = bl.resume(ridge(), tmp_path / "run")
    assert [e["objective"] for e in again.trace] == [e["objective"] for e in whole.trace]
    np.testing.assert_array_equal(again.x["x"], whole.x["x"])
    np.testing.assert_array_equal(again.y["a"], whole.y["a"])
    loose = bl.solve(ridge(), "sample.random", {"lower_solves": 3, "lower_method": "sgd", "lower_iterations": 2})
    assert "3 lower-level solves ended before" in loose.message
    assert loose.certificate is not None
    assert loose.certificate.verdict == "refuted"
