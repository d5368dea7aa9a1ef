"""The oracle for a problem."""

from __future__ import annotations

from bilevel_core.errors import MissingError, UsageError
from bilevel_core.oracles.base import Oracle
from bilevel_core.problems.base import AlgebraicProblem, Problem


def make_oracle(problem: Problem, *, seed: int = 0, device: str = "auto") -> Oracle:
    """The oracle for a problem; torch or CasADi is imported here.

    Args:
        problem: the problem.
        seed: for everything random in a differentiable problem (dropout, order of minibatches).
        device: ``auto`` (where the problem's tensors are), ``cpu`` or a torch device.

    Raises:
        UsageError: a device other than the CPU for an algebraic problem, or one that torch does not have.
        MissingError: the problem's form has no oracle, or torch is not installed.
    """
    if isinstance(problem, AlgebraicProblem):
        if device not in ("auto", "cpu"):
            raise UsageError(f"Expressions are evaluated on the CPU only; leave out device={device!r}.")
        from bilevel_core.oracles.algebraic import AlgebraicOracle

        return AlgebraicOracle(problem)
    if problem.form == "differentiable":
        from bilevel_core.oracles.torch import TorchOracle
        from bilevel_core.problems.torch import TorchProblem

        if isinstance(problem, TorchProblem):
            return TorchOracle(problem, seed=seed, device=device)
    raise MissingError(f"There are no derivatives for {problem.form} problems of type {type(problem).__name__}.")
