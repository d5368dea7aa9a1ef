"""Solvers: one file or one folder each. They choose reductions and backends, and never verify themselves."""

from bilevel_core.solvers.base import Accepted, Refused, Solver

__all__ = ["Accepted", "Refused", "Solver"]
