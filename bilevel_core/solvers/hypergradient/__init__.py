"""`hypergradient`: descent along the derivative of the leader's objective through the answer."""

from bilevel_core.solvers.hypergradient.solver import HypergradientDescent

__all__ = ["HypergradientDescent"]
