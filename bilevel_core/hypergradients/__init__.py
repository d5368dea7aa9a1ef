"""The derivative of the leader's objective through the follower's answer, d/dx F(x, y(x)), and what it rests on.

`reduced_gradient` is for solvers, `hypergradient` for users; the modes are in one file each kind.
"""

from bilevel_core.hypergradients.base import MODES, Hypergradient, HypergradientSettings
from bilevel_core.hypergradients.hessian import ReducedHessian
from bilevel_core.hypergradients.reduced import reduced_gradient
from bilevel_core.hypergradients.system import OptimalitySystem

__all__ = ["MODES", "Hypergradient", "HypergradientSettings", "OptimalitySystem", "ReducedHessian", "reduced_gradient"]
