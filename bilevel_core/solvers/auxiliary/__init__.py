"""`auxiliary`: both levels move together along the direction of a small program of second-order information."""

from bilevel_core.solvers.auxiliary.solver import Auxiliary

__all__ = ["Auxiliary"]
