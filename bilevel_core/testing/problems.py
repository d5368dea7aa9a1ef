"""Small problems of the kit's own, beside those of the library: an unbounded leader, PyTorch, functions."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from bilevel_core.plugins.specs import KnownOptimum
from bilevel_core.problems.base import Problem
from bilevel_core.problems.nested import Answer, Call, NestedProblem
from bilevel_core.sampling.space import Categorical, Continuous
from bilevel_core.testing.check import NotApplicable
from bilevel_core.testing.runner import Case

LIBRARY = (
    "classic/bard-511",
    "classic/moore-bard",
    "trap/small-bound",
    "trap/two-limits",
    "trap/follower-bounds",
    "trap/two-followers",
    "smd/smd1",
    "trap/leaders-wish",
    "trap/follower-unbounded",
    "trap/follower-infeasible",
)
"""Names of library problems that solvers are run on: linear and smooth, integer, maximising, several followers, and
some without a solution."""


def leader_unbounded() -> Problem:
    """min -x over x >= 0; the follower minimises y over y >= x: the leader's objective has no floor."""
    from bilevel_core.problems.pyomo import Follower, PyomoProblem

    pyo: Any = importlib.import_module("pyomo.environ")  # no types
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, None))
    follower: Any = Follower()
    m.follower = follower
    follower.y = pyo.Var(bounds=(0, None))
    m.objective = pyo.Objective(expr=-m.x)
    follower.objective = pyo.Objective(expr=follower.y)
    follower.row = pyo.Constraint(expr=follower.y >= m.x)
    return PyomoProblem(m, name="kit/leader-unbounded")


UNBOUNDED = Case(
    "kit/leader-unbounded", leader_unbounded, KnownOptimum(None, "by hand: y = x, and x grows", "unbounded")
)

SHIFT = (1.0, -2.0, 0.5)
OFFSET = 3.0


def tensors(dtype: Any, device: str, seen: list[Any]) -> Problem:
    """min |y - c|^2 + |x|^2 / 2 over x; the follower minimises |y - x|^2 / 2 - 3 sum y, so that y = x + 3.

    With c = (1, -2, 0.5) the leader's condition 2 (x + 3 - c) + x = 0 gives x = 2 (c - 3) / 3.

    Args:
        dtype: of all tensors.
        device: where they are.
        seen: gets the dtype and the place of each x and y that the objectives are called with.
    """
    import torch

    from bilevel_core.problems.torch import TorchProblem

    target: Any = torch.tensor(SHIFT, dtype=dtype, device=device)

    def upper(x: Any, y: Any) -> Any:
        seen.extend((t.dtype, t.device.type) for t in (x, y))
        return ((y - target) ** 2).sum() + 0.5 * (x**2).sum()

    def lower(x: Any, y: Any) -> Any:
        seen.extend((t.dtype, t.device.type) for t in (x, y))
        return 0.5 * ((y - x) ** 2).sum() - OFFSET * y.sum()

    zero: Any = torch.zeros(3, dtype=dtype, device=device)
    return TorchProblem(upper, lower, zero, zero.clone(), x_bounds=(-10.0, 10.0), name="kit/tensors")


def tensors_optimum() -> float:
    """The leader's optimal value of `tensors`, by hand: y - c = -(x / 2), so F = x^2 / 4 + x^2 / 2 in each entry."""
    return sum(0.75 * (2.0 * (c - OFFSET) / 3.0) ** 2 for c in SHIFT)


def tensors_case() -> Problem:
    """`tensors` in double precision on the CPU.

    Raises:
        NotApplicable: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise NotApplicable("torch is not installed") from error
    return tensors(torch.float64, "cpu", [])


def follow(x: dict[str, Any], call: Call) -> Answer:
    """The follower of `functions`."""
    return evaluate(x, {"y": 2.0 * x["a"] + (1.0 if x["kind"] == "dear" else 0.0)})


def evaluate(x: dict[str, Any], y: Mapping[str, Any]) -> Answer:
    """Values of `functions` at any point."""
    fee = 1.0 if x["kind"] == "dear" else 0.0
    answer = float(y["y"])
    return Answer(dict(y), upper=(answer - 3.0) ** 2 + fee, lower=(answer - 2.0 * x["a"] - fee) ** 2 - 4.0)


def functions() -> Problem:
    """min (y - 3)^2 + fee over a in [0, 1] and a kind; the follower answers y = 2a + fee, and gets -4.

    Cheap (fee 0) leaves y at most 2, and the leader 1; dear (fee 1) reaches y = 3, and costs the leader 1 as well.
    """
    space = (Continuous("a", 0.0, 1.0), Categorical("kind", ("cheap", "dear")))
    return NestedProblem(space, follow, evaluate=evaluate, exact=True, name="kit/functions")


OTHER_FORMS = (
    Case("kit/tensors", tensors_case, KnownOptimum(tensors_optimum(), "by hand: x = 2 (c - 3) / 3")),
    Case("kit/functions", functions, KnownOptimum(1.0, "by hand: a = 1, whichever the kind")),
)
"""Problems that are no expressions: there what is returned must be true, and need not be the optimum."""
