"""`kkt`: each follower replaced by its optimality conditions, the pairs by sets or binaries; solved to optimality.

Good at: linear and convex quadratic followers, any leader that SCIP takes, integer leader variables, several followers.
Bad at: many pairs (hundreds to thousands, by structure), followers with integers or nonconvex ones (refused).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from bilevel_core.backends import Backend, Solution, SolveStatus
from bilevel_core.backends.scip import Scip, tight_feastol
from bilevel_core.errors import BackendError, UsageError
from bilevel_core.problems.base import AlgebraicProblem
from bilevel_core.program import BilevelProgram, Program, Row
from bilevel_core.reductions import Chain
from bilevel_core.reductions.bigm import BigM
from bilevel_core.reductions.bounds import derive_bounds, enlarge, first_bounds, unproven
from bilevel_core.reductions.kkt import OptimalityConditions
from bilevel_core.reductions.sos1 import Sos1
from bilevel_core.result import Claim, Result, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.assemble import with_point, without_point
from bilevel_core.solvers.base import Accepted, Refused, Solver
from bilevel_core.solvers.diagnose import bounded, why_infeasible
from bilevel_core.solvers.single_level import TRACE, pick, polish, settings
from bilevel_core.solvers.start import first_point
from bilevel_core.traits import Traits, derive_traits

TRUSTED = 1e6
"""The largest bound with which an answer is called optimal: times the integrality tolerance of 1e-9 it is 1e-3."""
CLAIM_GAP = 1e-5
"""A point is called globally optimal when the proven bound is this close (relative), whatever gap was asked for."""
AGREEMENT = 1e-5
"""Relative difference between a branch-and-bound's objective and that of its cleaned point that is put down to
tolerances; beyond it the tolerances were abused (a large bound times a small binary) and nothing is claimed."""


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


def _no_options() -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class KKT(Solver):
    """Single-level reformulation by the Karush-Kuhn-Tucker conditions.

    Source: Fortuny-Amat and McCarl (1981). Exact for followers that are convex with linear constraints; for convex
    quadratic constraints multipliers may not exist at the optimum, and the claim is ``stationary`` at most.
    """

    complementarity: Literal["sos1", "bigm"] = _option(
        "sos1", "how pairs are expressed: special ordered sets (SCIP), or binaries with bounds (HiGHS where it can)"
    )
    backend: str = _option("auto", "which backend solves the single-level program: auto, or one of `bilevel backends`")
    gap: float = _option(1e-6, "relative optimality gap at which the search may stop")
    multiplier_bound: float | None = _option(
        None, "bigm: bound on every multiplier; derived where it can be, else a guess that is enlarged"
    )
    slack_bound: float | None = _option(
        None, "bigm: bound on every slack; derived where it can be, else a guess that is enlarged"
    )
    max_enlargements: int = _option(6, "bigm: how often unproven bounds that are leaned on grow tenfold")
    backend_options: dict[str, Any] = field(
        default_factory=_no_options, metadata={"help": "passed to the backend as they are: backend_options.NAME=VALUE"}
    )

    def __post_init__(self) -> None:
        if self.complementarity == "sos1" and self.backend == "highs":
            raise UsageError("HiGHS has no special ordered sets: use complementarity=bigm, or backend=scip.")
        if self.complementarity == "sos1" and (self.multiplier_bound is not None or self.slack_bound is not None):
            raise UsageError("multiplier_bound and slack_bound belong to complementarity=bigm; sos1 needs no bounds.")
        for name in ("multiplier_bound", "slack_bound"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0.0):
                raise UsageError(f"Expected a positive number for {name}, got {value!r}.")
        if not 0.0 <= self.gap < 1.0:
            raise UsageError(f"Expected a gap in [0, 1), got {self.gap!r}.")
        if self.max_enlargements < 0:
            raise UsageError(f"Expected max_enlargements >= 0, got {self.max_enlargements}.")

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Algebraic problems whose followers are known to be convex and continuous."""
        if traits.form != "algebraic":
            return Refused("its levels are callables, not expressions", "a differentiable solver")
        for f in traits.followers:
            if f.integers:
                return Refused(
                    f"follower {f.name!r} has {f.integers} integer variable(s), so it has no optimality conditions",
                    "an exact mixed-integer bilevel solver (branch-and-cut)",
                )
            if f.convex is False:
                return Refused(
                    f"follower {f.name!r} is nonconvex, so points that satisfy its optimality conditions need not be "
                    "optimal for it",
                    "a global solver for nonconvex followers (global)",
                )
            if f.convex is None:
                return Refused(
                    f"follower {f.name!r} has nonlinear terms beyond degree two, whose convexity is not known",
                    "a global solver for nonconvex followers (global)",
                )
        exact = all(f.constraints == "linear" for f in traits.followers)
        backend = {"sos1": "SCIP", "bigm": "HiGHS where it can, else SCIP"}[self.complementarity]
        if self.backend != "auto":
            backend = self.backend
        how = f"optimality conditions, complementarity by {self.complementarity}, solved by {backend}"
        return Accepted(how, "global" if exact else "stationary")

    def run(self, problem: AlgebraicProblem, context: RunContext) -> Result:
        """See `Solver.run`."""
        return _Run(self, problem, context).result()


class _Run:
    """One run: the chain, the backend's solves, and what they amount to."""

    def __init__(self, options: KKT, problem: AlgebraicProblem, context: RunContext) -> None:
        self.options = options
        self.problem = problem
        self.context = context
        self.program = problem.program()
        self.nodes = 0
        self.versions: dict[str, str] = {}
        accepted = options.accepts(derive_traits(problem))
        self.exact = isinstance(accepted, Accepted) and accepted.claim == Claim.GLOBAL
        self.proven = True
        self.notes: list[str] = []
        self.first: np.ndarray | None = None

    def result(self) -> Result:
        if self.context.expired:
            return self._pointless(Termination.TIME_LIMIT, "No time was left to start.")
        self.context.report("phase", message=f"optimality conditions, pairs by {self.options.complementarity}")
        try:
            solution = self._or_first(self.solve_system(self.program, watch=True))
            if solution.values is None:
                return self._no_point(solution)
        except KeyboardInterrupt:
            if self.first is None:
                raise
            solution = Solution(SolveStatus.INTERRUPTED, self.first)
        except BackendError as error:
            if self.first is None:
                raise
            self.notes.append(f"{error} The point shown was known before.")
            solution = Solution(SolveStatus.ERROR, self.first)
        assert solution.values is not None
        return with_point(
            self.problem,
            solution.values,
            self.context,
            termination=_TERMINATIONS.get(solution.status, Termination.ERROR),
            claim=self._claim(solution),
            bound=solution.bound if self.proven and self.exact else None,
            counts={"nodes": self.nodes},
            versions=self.versions,
            message=" ".join(self.notes),
        )

    def _or_first(self, solution: Solution) -> Solution:
        """The search's answer, or the point known before where the search comes back with none."""
        if solution.values is not None or self.first is None or solution.status is SolveStatus.UNBOUNDED:
            return solution
        if solution.status is SolveStatus.INFEASIBLE:
            self._note("The search reports that there is no point, though one was known before: nothing is proven.")
            return Solution(SolveStatus.OPTIMAL, self.first)
        return replace(solution, values=self.first)

    def _claim(self, solution: Solution) -> Claim:
        """What is known of the point: the search's bound must meet it, and every step before must have been exact."""
        if solution.status is not SolveStatus.OPTIMAL or not self.proven:
            return Claim.FEASIBLE
        if not self.exact:
            self.notes.append(
                "A follower has quadratic constraints, and multipliers need not exist at the optimum: the point is "
                "stationary, and better ones without multipliers are not excluded."
            )
            return Claim.STATIONARY
        gap = abs(solution.objective - solution.bound) / max(1.0, abs(solution.objective))
        if not gap <= CLAIM_GAP:
            self.notes.append(
                f"The search stopped at a relative gap of {gap:.2g}: better points within it are not excluded."
            )
            return Claim.FEASIBLE
        return Claim.GLOBAL

    def solve_system(self, program: BilevelProgram, *, watch: bool = False) -> Solution:
        """Solve the optimality system of a bilevel program; values are those of the bilevel program's columns."""
        conditions = OptimalityConditions()
        chain = Chain(program).then(conditions)
        start: np.ndarray | None = None
        if watch:
            start = first_point(program, chain.target, conditions.multipliers, self.context.remaining)
            self.first = None if start is None else chain.invert(start)
        if self.options.complementarity == "sos1":
            return self._search_sets(chain.then(Sos1()), start, watch=watch)
        return self._search_big_m(chain, conditions, start, watch=watch)

    def _search_sets(self, chain: Chain, start: np.ndarray | None, *, watch: bool) -> Solution:
        """Search with sets; once more with tight tolerances where the first answer leaned on them."""
        solution = self._search(chain.target, start, watch=watch)
        clean, fault = self._cleaned(chain, solution)
        if fault and "numerics/feastol" not in self.options.backend_options and not self.context.expired:
            self.context.report("phase", message="searching again with tight tolerances")
            solution = self._search(chain.target, start, watch=watch, tight=True)
            again, fault = self._cleaned(chain, solution)
            clean = clean if again.values is None else again
        self._note(fault)
        return clean

    def _note(self, fault: str) -> None:
        if fault:
            self.proven = False
            self.notes.append(fault)

    def _search(self, target: Program, start: np.ndarray | None, *, watch: bool, tight: bool = False) -> Solution:
        solution = self._solve(target, start, watch=watch, tight=tight)
        if solution.status in (SolveStatus.UNBOUNDED, SolveStatus.INFEASIBLE_OR_UNBOUNDED):
            solution, unbounded = bounded(target, self._solve)
            if unbounded:
                return Solution(SolveStatus.UNBOUNDED)
        return solution

    def _solve(
        self, target: Program, start: np.ndarray | None = None, *, watch: bool = False, tight: bool = False
    ) -> Solution:
        backend = pick(target, self.options.backend)
        try:
            solution = self._solve_by(backend, target, start, watch=watch, tight=tight)
        except BackendError:
            if self.options.backend != "auto" or backend.name == "scip":
                raise
            solution = Solution(SolveStatus.ERROR)
        if solution.status is SolveStatus.ERROR and self.options.backend == "auto" and backend.name != "scip":
            self.context.report("phase", message=f"{backend.name} failed, trying scip")
            solution = self._solve_by(pick(target, "scip"), target, start, watch=watch, tight=tight)
        return solution

    def _solve_by(
        self, backend: Backend, target: Program, start: np.ndarray | None, *, watch: bool, tight: bool
    ) -> Solution:
        self.versions[backend.name] = backend.version()
        extra = {"numerics/feastol": tight_feastol(target)} if tight and backend.name == "scip" else {}
        how = settings(
            self.context,
            self.program.leader,
            gap=self.options.gap,
            options={**extra, **self.options.backend_options},
            start=start,
        )
        solution = backend.solve(target, how if watch else replace(how, progress=None))
        self.nodes += solution.nodes
        return solution

    def _search_big_m(
        self, chain: Chain, conditions: OptimalityConditions, start: np.ndarray | None, *, watch: bool
    ) -> Solution:
        options = self.options
        program, system = chain.stages
        relaxed: Program = program.high_point()
        if start is not None:
            # Points that are worse than one known need not be kept: the cut makes more bounds finite.
            worst = system.objective.evaluate(start)
            cut = Row("cutoff", relaxed.objective, upper=worst + 1e-6 * max(1.0, abs(worst)))
            relaxed = replace(relaxed, rows=(*relaxed.rows, cut))
        derived = derive_bounds(system, relaxed, conditions, lambda: self.context.expired)
        bounds = first_bounds(derived, options.multiplier_bound, options.slack_bound)
        leaning = False
        for attempt in range(options.max_enlargements + 1):
            reduction = BigM(bounds)
            longer = chain.then(reduction)
            full = None if start is None else reduction.extend(start)
            solution = self._search(longer.target, full, watch=watch, tight=True)
            if solution.values is not None:
                touched = reduction.at_bound(solution.values)
            elif solution.status is SolveStatus.INFEASIBLE:
                touched = unproven(bounds)
            else:
                break
            leaning = bool(touched)
            if not touched or attempt == options.max_enlargements or self.context.expired:
                break
            self.context.report("phase", message=f"enlarging {len(touched)} bound(s) that were leaned on")
            bounds = enlarge(bounds, derived, touched)
        open_bounds = unproven(bounds)
        if open_bounds:
            self.proven = False
            self.notes.append(
                f"{len(open_bounds)} bound(s) of multipliers or slacks could not be proven"
                + (", and the answer leans on some of them" if leaning else "")
                + ": better points may be cut off. complementarity=sos1 needs no bounds."
            )
        largest = max((max(b.multiplier, b.slack) for b in bounds), default=0.0)
        if not open_bounds and largest > TRUSTED:
            self._note(
                f"A bound of {largest:.2g} is proven, but too large for the backend's tolerances: a binary that is "
                "nearly 0 lets a multiplier through. complementarity=sos1 needs no bounds."
            )
        clean, fault = self._cleaned(longer, solution)  # pyright: ignore[reportPossiblyUnboundVariable]
        self._note(fault)
        return clean

    def _cleaned(self, chain: Chain, solution: Solution) -> tuple[Solution, str]:
        """The solution in the bilevel program's columns, without tolerances; and what speaks against the search."""
        if solution.values is None:
            return solution, ""
        system: Program = chain.stages[1]
        values = chain.invert(solution.values, to=1)
        clean = polish(system, values, self.context.remaining())
        shown = self.program.leader.in_users_sense
        if clean is None or clean.values is None:
            loose = max((min(abs(values[i]), abs(values[j])) for i, j in system.complementarities), default=0.0)
            fault = (
                "The search's point satisfies complementarity only within tolerances, and no exact point was found "
                "beside it."
            )
            return replace(solution, values=chain.invert(solution.values)), fault if loose > TRACE else ""
        fault = ""
        if abs(clean.objective - solution.objective) > AGREEMENT * max(1.0, abs(clean.objective)):
            fault = (
                f"The search ended at {shown(solution.objective):.6g}, but that leaned on tolerances: with exact "
                f"complementarity the same active constraints give {shown(clean.objective):.6g}."
            )
        return replace(solution, values=chain.until(1).invert(clean.values), objective=clean.objective), fault

    def _no_point(self, solution: Solution) -> Result:
        if solution.status is SolveStatus.UNBOUNDED:
            return self._pointless(
                Termination.UNBOUNDED,
                "The leader's objective improves without end along a ray of bilevel feasible points.",
            )
        if solution.status is SolveStatus.INFEASIBLE:
            if not self.exact:
                return self._pointless(
                    Termination.CONVERGED,
                    "The optimality conditions have no solution. A follower has quadratic constraints, so that does "
                    "not prove the problem infeasible: its solutions may have no multipliers.",
                )
            return self._infeasible()
        if solution.status in (SolveStatus.TIME_LIMIT, SolveStatus.OTHER_LIMIT, SolveStatus.INTERRUPTED):
            return self._pointless(_TERMINATIONS[solution.status], "No point was found before the stop.")
        raise BackendError(solution.message or f"The backend ended {solution.status} without a point.")

    def _infeasible(self) -> Result:
        """Infeasible within unproven bounds proves nothing: sets, which need no bounds, have the last word."""
        exact = self
        if not self.proven:
            if self.options.backend == "highs" or not Scip().available().available:
                return self._pointless(Termination.CONVERGED, "No point within the bounds tried. " + self.notes[-1])
            options = replace(self.options, complementarity="sos1", multiplier_bound=None, slack_bound=None)
            exact = _Run(options, self.problem, self.context)
            if exact.solve_system(self.program).status is not SolveStatus.INFEASIBLE:
                return self._pointless(
                    Termination.CONVERGED, "No point within the bounds tried, but complementarity=sos1 finds one."
                )
        termination, message = why_infeasible(self.program, exact.solve_system, self.context.remaining)
        if exact is not self:
            message += " Confirmed with special ordered sets, since bounds could not be proven."
        return self._pointless(termination, message)

    def _pointless(self, termination: Termination, message: str) -> Result:
        return without_point(termination, self.context, message, counts={"nodes": self.nodes}, versions=self.versions)


_TERMINATIONS = {
    SolveStatus.OPTIMAL: Termination.CONVERGED,
    SolveStatus.LOCALLY_OPTIMAL: Termination.CONVERGED,
    SolveStatus.TIME_LIMIT: Termination.TIME_LIMIT,
    SolveStatus.OTHER_LIMIT: Termination.ITERATION_LIMIT,
    SolveStatus.INTERRUPTED: Termination.STOPPED_BY_USER,
}
