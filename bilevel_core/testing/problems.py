"""Small problems of the kit's own, beside those of the library: an unbounded leader, and one in PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

from bilevel_core.plugins.specs import KnownOptimum
from bilevel_core.problems.base import Problem
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
