"""Problem types: how a user states a bilevel problem. Each turns what the user wrote into a `BilevelProgram`."""

from bilevel_core.problems.base import AlgebraicProblem, Group, Problem, Residuals, as_problem

__all__ = ["AlgebraicProblem", "Group", "Problem", "Residuals", "as_problem"]
