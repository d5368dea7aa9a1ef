"""The backend's part of `kkt`: which one solves, with which options and tolerances, and what it took."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bilevel_core.backends import Backend, Solution, SolveStatus
from bilevel_core.backends.scip import tight_feastol
from bilevel_core.errors import BackendError
from bilevel_core.program import Level, Program
from bilevel_core.run import RunContext
from bilevel_core.solvers.single_level import pick, settings
from bilevel_core.solvers.units import Unit

if TYPE_CHECKING:
    from bilevel_core.solvers.kkt.solver import KKT

TOLERATED = 1e-3
"""A bound times the integrality tolerance is what a binary that counts as zero lets through: no more than this."""
INTEGRALITY = {"scip": ("numerics/feastol", 1e-9), "highs": ("mip_feasibility_tolerance", 1e-9)}
"""Which option sets a backend's integrality tolerance, and what it is otherwise with tight tolerances."""
CONFLICTS = "conflict/enable"
BRIEF, SHARE = 10.0, 0.05
"""Seconds, and share of the time left: the lesser is given to what only helps a search along."""
UNKNOWN = 1e-6
"""The integrality tolerance of a backend of which nothing is known."""


class Solves:
    """All solves of a run.

    Attributes:
        nodes: of all branch-and-bound trees.
        versions: of the backends that took part.
        meant: the backend that ``backend_options`` are for: the one that the search begins with. Others, that take
            over where it breaks or judge an infeasibility, have other options and are given none of these.
        notes: what the user should know of that.
    """

    def __init__(self, options: KKT, context: RunContext, leader: Level, unit: Unit, meant: str | None = None) -> None:
        self.options = options
        self.context = context
        self.leader = leader
        self.unit = unit
        self.meant = meant
        self.nodes = 0
        self.versions: dict[str, str] = {}
        self.notes: list[str] = []

    def solve(
        self,
        target: Program,
        start: np.ndarray | None = None,
        *,
        watch: bool = False,
        tight: bool = False,
        limit: float | None = None,
    ) -> Solution:
        """Solve a program, within ``limit`` seconds; with ``backend=auto`` by SCIP where the backend chosen fails."""
        backend = pick(target, self.options.backend)
        try:
            solution = self._by(backend, target, start, watch=watch, tight=tight, limit=limit)
        except BackendError:
            if self.options.backend != "auto" or backend.name == "scip":
                raise
            solution = Solution(SolveStatus.ERROR)
        if solution.status is SolveStatus.ERROR and self.options.backend == "auto" and backend.name != "scip":
            self.context.report("phase", message=f"{backend.name} failed, trying scip")
            solution = self._by(pick(target, "scip"), target, start, watch=watch, tight=tight, limit=limit)
        return solution

    def briefly(self) -> float:
        """The seconds for each solve on the way to a first point, which only helps the search along."""
        left = self.context.remaining()
        return BRIEF if left is None else min(BRIEF, SHARE * left)

    def trusted(self, target: Program) -> float:
        """The largest bound beside a binary with which an answer counts, by the tolerance that is solved with."""
        backend = pick(target, self.options.backend)
        option, tolerance = INTEGRALITY.get(backend.name, ("", UNKNOWN))
        if backend.name == "scip":
            tolerance = tight_feastol(target)
        given = self.options.backend_options.get(option)
        if given is not None and self.meant in (None, backend.name):
            tolerance = float(given)
        return TOLERATED / tolerance if tolerance > 0.0 else np.inf

    def _by(
        self,
        backend: Backend,
        target: Program,
        start: np.ndarray | None,
        *,
        watch: bool,
        tight: bool,
        limit: float | None,
    ) -> Solution:
        self.versions[backend.name] = backend.version()
        options = {"numerics/feastol": tight_feastol(target)} if tight and backend.name == "scip" else {}
        self.meant = self.meant or backend.name
        if backend.name == self.meant:
            options |= self.options.backend_options
        elif self.options.backend_options:
            told = f"backend_options were for {self.meant}; {backend.name}, which was needed as well, solved without."
            if told not in self.notes:
                self.notes.append(told)
        gap = self.options.gap
        how = settings(self.context, self.leader, gap=gap, options=options, start=start, unit=self.unit)
        how = how if watch else replace(how, progress=None)
        how = replace(how, time_limit=min((t for t in (limit, how.time_limit) if t is not None), default=None))
        try:
            solution = backend.solve(target, how)
        except BackendError:
            if backend.name != "scip" or CONFLICTS in options:
                raise
            # SCIP 10.0 now and then breaks down in its conflict analysis, where columns have no bounds.
            self.context.report("phase", message="scip failed, trying again without conflict analysis")
            how = replace(how, time_limit=self.context.remaining(), options={**options, CONFLICTS: False})
            solution = backend.solve(target, how)
        self.nodes += solution.nodes
        return solution
