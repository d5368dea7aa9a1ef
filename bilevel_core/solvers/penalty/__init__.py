"""`penalty`: what the follower leaves undone is charged to the leader."""

from bilevel_core.solvers.penalty.solver import Penalty

__all__ = ["Penalty"]
