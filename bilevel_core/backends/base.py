"""What a backend is: something that solves a single-level `Program`, and says how far its answer can be trusted."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import numpy as np

from bilevel_core.errors import BackendError, BilevelError
from bilevel_core.program import Function, Program, Row, Variable


class SolveStatus(enum.StrEnum):
    """How a backend's solve ended."""

    OPTIMAL = "optimal"
    LOCALLY_OPTIMAL = "locally-optimal"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    INFEASIBLE_OR_UNBOUNDED = "infeasible-or-unbounded"
    TIME_LIMIT = "time-limit"
    OTHER_LIMIT = "other-limit"
    INTERRUPTED = "interrupted"
    ERROR = "error"


@dataclass(frozen=True)
class Solution:
    """What a backend found. ``values`` is None where there is no point.

    ``objective`` is always recomputed from ``values`` by the program's own function.
    """

    status: SolveStatus
    values: np.ndarray | None = None
    objective: float = np.nan
    bound: float = -np.inf
    nodes: int = 0
    message: str = ""

    @property
    def solved(self) -> bool:
        """Whether the point is (locally) optimal according to the backend."""
        return self.status in (SolveStatus.OPTIMAL, SolveStatus.LOCALLY_OPTIMAL)


@dataclass(frozen=True)
class Availability:
    """Whether a backend works here, found out by solving a tiny problem, not by asking it."""

    available: bool
    version: str = ""
    reason: str = ""


@dataclass(frozen=True)
class SolveSettings:
    """How to solve.

    Attributes:
        time_limit: seconds; None for no limit.
        seed: the backend's random seed.
        gap: relative optimality gap at which a branch-and-bound may stop; None for the backend's own.
        absolute_gap: the same in the objective's own unit; None for no such stop. Near an optimum of 0 a
            relative gap is never met.
        start: a point to start from (also partial: NaN where unknown).
        options: passed to the backend as they are.
        progress: called with (objective or None, bound, nodes) during the solve; returns True to stop.
    """

    time_limit: float | None = None
    seed: int = 0
    gap: float | None = None
    absolute_gap: float | None = None
    start: np.ndarray | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    progress: Callable[[float | None, float | None, int], bool] | None = None


class Backend(ABC):
    """A solver of single-level programs."""

    name: ClassVar[str]
    summary: ClassVar[str]
    scope: ClassVar[str]
    """``global`` where its answers hold globally for every program it accepts, else ``local``."""
    takes_indicators: ClassVar[bool] = False
    """Whether it takes programs with indicators. Those that say nothing are never handed one."""

    @abstractmethod
    def accepts(self, program: Program) -> str | None:
        """None when the backend takes this program, else why not."""

    def refusal(self, program: Program) -> str | None:
        """`accepts`, and before it what every backend refuses unless it says otherwise."""
        if program.indicators and not self.takes_indicators:
            return f"{self.name} takes no indicators (SCIP does); express the pairs by sets or binaries with bounds"
        return self.accepts(program)

    @abstractmethod
    def version(self) -> str:
        """The backend's version. May raise ImportError."""

    def solve(self, program: Program, settings: SolveSettings | None = None) -> Solution:
        """Solve the program. Never raises for infeasible, unbounded or limits: those are statuses.

        Raises:
            BackendError: the backend does not take the program, broke, or contradicted itself.
            UsageError: an option that it does not know.
        """
        reason = self.refusal(program)
        if reason is not None:
            raise BackendError(reason)
        return self._solve(program, settings or SolveSettings())

    @abstractmethod
    def _solve(self, program: Program, settings: SolveSettings) -> Solution:
        """`solve` for a program that `accepts` takes."""

    def available(self) -> Availability:
        """Smoke-solve ``min x + y`` over x + 2 y >= 2, x, y in [0, 5], whose optimum is 1."""
        return _smoke(self.name, type(self))


@cache
def _smoke(name: str, backend: type[Backend]) -> Availability:
    program = Program(
        (Variable("x", 0.0, 5.0), Variable("y", 0.0, 5.0)),
        Function(0.0, {0: 1.0, 1: 1.0}),
        (Row("r", Function(0.0, {0: 1.0, 1: 2.0}), lower=2.0),),
    )
    instance = backend()
    try:
        version = instance.version()
        solution = instance.solve(program)
    except (ImportError, OSError, BilevelError, RuntimeError, AttributeError, ValueError, TypeError) as error:
        return Availability(False, reason=f"{type(error).__name__}: {error}")
    if solution.values is None or not solution.solved or abs(solution.objective - 1.0) > 1e-5:
        return Availability(False, version, f"a tiny linear problem ended {solution.status}, not at its optimum 1")
    return Availability(True, version)
