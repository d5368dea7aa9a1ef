"""`kkt`: the follower replaced by its optimality conditions, in exact and local modes."""

from bilevel_core.solvers.kkt.solver import KKT

__all__ = ["KKT"]
