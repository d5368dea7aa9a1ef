"""What a problem says of its own lower level: used by solvers, never by the check."""

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="differentiable problems need torch")

import bilevel_core as bl  # noqa: E402
from bilevel_core.lower import LowerSettings, respond  # noqa: E402
from bilevel_core.oracles import make_oracle  # noqa: E402
from bilevel_core.result import Verdict  # noqa: E402
from bilevel_core.verification import differentiable as check  # noqa: E402

F64 = torch.float64
MANY = 300
"""More variables than of which each minimum is examined."""


class Wells(bl.TorchProblem):
    """Each y_k is -1 or 1; 0 is the follower's worst nearby."""

    def __init__(self, n: int, *, convex: bool = False, formula: Any = None) -> None:
        self._convex, self._formula = convex, formula
        start = torch.full((n,), 0.3, dtype=F64)
        super().__init__(
            lambda x, y: ((y - 1) ** 2).sum() + (x**2).sum(),
            lambda x, y: ((y**2 - 1) ** 2).sum() + 0.0 * x.sum(),
            torch.zeros(1, dtype=F64),
            start,
        )

    @property
    def lower_convex(self) -> bool:
        return self._convex

    def closed_form(self, x: Any) -> Any:
        return None if self._formula is None else torch.full_like(self.y0, self._formula)


@pytest.mark.parametrize("n", [3, MANY])
def test_a_formula_that_gives_a_saddle_is_left(n: int) -> None:
    task = Wells(n, formula=0.0)
    found = respond(make_oracle(task), task.x0.numpy())
    torch.testing.assert_close(found.y.abs(), torch.ones(n, dtype=F64))


@pytest.mark.parametrize("n", [3, MANY])
@pytest.mark.parametrize("largest", [1, 20_000])
def test_wrong_words_of_a_problem_are_not_verified(n: int, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "LARGEST", largest)
    result = bl.solve(Wells(n, convex=True, formula=0.0), "hypergradient", {"max_iterations": 2})
    assert result.lower_objective == n
    assert result.certificate is not None
    assert result.certificate.verdict is not Verdict.VERIFIED
    right = bl.solve(Wells(n, formula=1.0), "hypergradient", {"max_iterations": 2})
    assert right.certificate is not None
    assert right.certificate.verdict is Verdict.VERIFIED


def test_methods_by_name_go_by_no_promise() -> None:
    task = Wells(3, convex=True, formula=5.0)
    oracle = make_oracle(task)
    at = torch.zeros(3, dtype=F64)
    found = respond(oracle, task.x0.numpy(), at, LowerSettings(method="newton-cg"))
    torch.testing.assert_close(found.y.abs(), torch.ones(3, dtype=F64))
    assert respond(oracle, task.x0.numpy(), at).y.min() == pytest.approx(1.0)


@pytest.mark.parametrize("formula", [5.0, float("nan")])
def test_a_wrong_formula_is_a_start(formula: float) -> None:
    result = bl.solve(Wells(3, formula=formula), "hypergradient", {"max_iterations": 2})
    assert result.lower_objective == pytest.approx(0.0, abs=1e-12)
    assert result.certificate is not None
    assert result.certificate.verdict is Verdict.VERIFIED
