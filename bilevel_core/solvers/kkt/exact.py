"""`kkt` with exact modes: one chain, a global search, and what its end amounts to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bilevel_core.backends import Solution, SolveStatus
from bilevel_core.backends.scip import Scip
from bilevel_core.errors import BackendError, RefusedError
from bilevel_core.problems.base import AlgebraicProblem
from bilevel_core.program import BilevelProgram, Program, Row
from bilevel_core.reductions import Chain, Reduction
from bilevel_core.reductions.bigm import BigM
from bilevel_core.reductions.bounds import derive_bounds, derive_multiplier_bounds, enlarge, first_bounds, unproven
from bilevel_core.reductions.conic_duality import ConicConditions, has_cones
from bilevel_core.reductions.indicator import Indicator
from bilevel_core.reductions.kkt import OptimalityConditions
from bilevel_core.reductions.sos1 import Sos1
from bilevel_core.reductions.strong_duality import StrongDuality
from bilevel_core.result import Claim, Result, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.assemble import with_point, without_point
from bilevel_core.solvers.diagnose import plainly_infeasible, why_infeasible
from bilevel_core.solvers.kkt.backend import Solves
from bilevel_core.solvers.kkt.modes import Plan, make_plan
from bilevel_core.solvers.single_level import TRACE, pick, polish
from bilevel_core.solvers.start import first_point
from bilevel_core.solvers.unbounded import examine, floor, probed, ray
from bilevel_core.solvers.units import largest_term, restated

if TYPE_CHECKING:
    from bilevel_core.solvers.kkt.solver import KKT

CLAIM_GAP = 1e-5
"""A point is called globally optimal when the proven bound is this close, relative to the largest term of the leader's
objective without its constant, whatever gap was asked for."""
AGREEMENT = 1e-5
"""Difference, relative to the same, between a branch-and-bound's objective and that of its cleaned point that is put
down to tolerances; beyond it they were abused (a large bound times a small binary) and nothing is claimed."""


class ExactRun:
    """One run: the chain, the backend's solves, and what they amount to."""

    def __init__(
        self, options: KKT, problem: AlgebraicProblem, context: RunContext, *, doubt: str = "", meant: str | None = None
    ) -> None:
        self.options = options
        self.problem = problem
        self.context = context
        self.program, self.unit = restated(problem.program())
        self.solves = Solves(options, context, self.program.leader, self.unit, meant)
        self.doubt = doubt
        self.exact = not doubt
        self.proven = True
        self.notes: list[str] = []
        self.first: np.ndarray | None = None
        self.floor: tuple[BilevelProgram, float] | None = None

    def result(self) -> Result:
        """What the search comes to, or what was known when it was cut short."""
        if self.context.expired:
            return self._pointless(Termination.TIME_LIMIT, "No time was left to start.")
        self.context.report("phase", message=f"optimality conditions, pairs by {self.options.modes_text}")
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
            bound=self._bound(solution),
            counts={"nodes": self.solves.nodes},
            versions=self.solves.versions,
            message=" ".join([*self.notes, *self.solves.notes]),
        )

    def _bound(self, solution: Solution) -> float | None:
        """The proven bound on the leader's objective: of the search, or of the relaxation that it started from."""
        if not (self.proven and self.exact):
            return None
        lowest = self.floor[1] if self.floor is not None and self.floor[0] is self.program else -np.inf
        return self.unit.back(max(lowest, solution.bound))

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
        assert solution.values is not None
        gap = abs(solution.objective - solution.bound) / largest_term(self.program, solution.values)
        if solution.status is not SolveStatus.OPTIMAL or not self.proven:
            if not self.notes:
                open_gap = f"at a relative gap of {gap:.2g}" if np.isfinite(gap) else "before it had any bound"
                self.notes.append(f"The search ended {open_gap}: better points are not excluded.")
            return Claim.FEASIBLE
        if not self.exact:
            self.notes.append(
                f"{self.doubt}: the point is stationary, and better ones that have no multipliers are not excluded."
            )
            return Claim.STATIONARY
        if not gap <= CLAIM_GAP:
            self.notes.append(
                f"The search stopped at a relative gap of {gap:.2g}: better points within it are not excluded."
            )
            return Claim.FEASIBLE
        return Claim.GLOBAL

    def solve_system(self, program: BilevelProgram, *, watch: bool = False) -> Solution:
        """Solve the optimality system of a bilevel program; values are those of the bilevel program's columns."""
        cones = has_cones(program)
        conditions = ConicConditions() if cones else OptimalityConditions()
        chain = Chain(program).then(conditions)
        start: np.ndarray | None = None
        if watch and not cones:
            start = first_point(program, chain.target, conditions.multipliers, self.solves.briefly)
            self.first = None if start is None else chain.invert(start)
        plan = make_plan(
            program,
            chain.target,
            conditions.multipliers,
            self.options.complementarity,
            self.options.modes,
            self.options.multiplier_bounds,
            self.options.slack_bounds,
        )
        if cones and (plan.followers or plan.pairs("bigm")):
            raise RefusedError(
                "A follower has second-order cones, whose dual vectors have no bounds and no linear dual: use "
                "complementarity=sos1 or indicator."
            )
        relaxed = _with_cutoff(program, chain.target, start)
        plain = conditions.conditions if isinstance(conditions, ConicConditions) else conditions
        chain = self._express(chain, plain, plan, relaxed)
        if plan.pairs("bigm"):
            return self._search_big_m(chain, plain, plan, relaxed, start, watch=watch)
        return self._search_once(chain, start, watch=watch, tight=bool(plan.followers))

    def _express(self, chain: Chain, conditions: OptimalityConditions, plan: Plan, relaxed: Program) -> Chain:
        """The chain with every mode but big-M applied to its pairs."""
        steps: list[Reduction[Program, Program]] = []
        if plan.followers:
            found = {p[0] for p in plan.pairs("strong-duality")}
            program, system = chain.stages
            own = {i for k in plan.followers for i in program.followers[k].columns}
            slacks = {m.slack_column for m in conditions.multipliers}
            for row in conditions.stationarity:
                if not own.isdisjoint(row.function.columns):
                    found |= {i for i in row.function.columns if i >= len(program.columns) and i not in slacks}
            bounds = derive_multiplier_bounds(system, relaxed, conditions, found, lambda: self.context.expired)
            steps.append(StrongDuality(program, conditions, plan.followers, bounds))
        if plan.pairs("indicator"):
            steps.append(Indicator(plan.pairs("indicator")))
        if plan.pairs("sos1"):
            steps.append(Sos1(plan.pairs("sos1")))
        for step in steps:
            reason = step.accepts(chain.target)
            if reason is not None:
                raise RefusedError(f"The mode does not take this problem: {reason}. Use complementarity=sos1 for it.")
            chain = chain.then(step)
        for step in steps:
            if isinstance(step, StrongDuality) and not plan.pairs("bigm"):
                self._trust(step.largest, chain.target)
        return chain

    def _search_once(self, chain: Chain, start: np.ndarray | None, *, watch: bool, tight: bool) -> Solution:
        """Search; once more with tight tolerances where the first answer leaned on loose ones."""
        full = None if start is None else chain.extend(start, stage=1)
        solution = self._search(chain, full, watch=watch, tight=tight)
        clean, fault = self._cleaned(chain, solution)
        again = not tight and "numerics/feastol" not in self.options.backend_options
        if fault and again and not self.context.expired:
            self.context.report("phase", message="searching again with tight tolerances")
            solution = self._search(chain, full, watch=watch, tight=True)
            repeated, fault = self._cleaned(chain, solution)
            clean = clean if repeated.values is None else repeated
        if fault and tight and self.options.backend in ("auto", "scip") and not self.context.expired:
            return self._by_sets(chain.until(1), start, clean, fault, watch=watch)
        self._note(fault)
        return clean

    def _by_sets(self, chain: Chain, start: np.ndarray | None, clean: Solution, fault: str, *, watch: bool) -> Solution:
        """Sets have the last word where rows of strong duality, one for many pairs, were leaned on."""
        self.context.report("phase", message="strong duality holds within tolerances only: searching with sets")
        longer = chain.then(Sos1())
        full = None if start is None else longer.extend(start, stage=1)
        again, still = self._cleaned(longer, self._search(longer, full, watch=watch))
        if again.values is None or again.status is SolveStatus.UNBOUNDED:
            self._note(fault)
            return again if again.status in (SolveStatus.UNBOUNDED, SolveStatus.INFEASIBLE) else clean
        self._note(still)
        self.notes.append(
            "Strong duality's row held within tolerances only, so special ordered sets took its place for this answer."
        )
        return again

    def _trust(self, bound: float, target: Program) -> None:
        """Nothing is proven with a bound that is too large for the backend's tolerances."""
        if bound > (most := self.solves.trusted(target)):
            self._note(
                f"A bound of {bound:.2g} is proven, but too large for the backend's tolerances (more than {most:.2g}): "
                "a binary that is nearly 0 lets a multiplier through. complementarity=sos1 needs no bounds."
            )

    def _note(self, fault: str) -> None:
        if fault:
            self.proven = False
            self.notes.append(fault)

    def _search(self, chain: Chain, start: np.ndarray | None, *, watch: bool, tight: bool = False) -> Solution:
        target: Program = chain.target
        self.solves.meant = self.solves.meant or pick(target, self.options.backend).name
        if not np.isneginf(self._floor(chain)):
            solution = self.solves.solve(target, start, watch=watch, tight=tight)
            if solution.status not in (SolveStatus.UNBOUNDED, SolveStatus.INFEASIBLE_OR_UNBOUNDED):
                return solution

        def solve(program: Program, limit: float | None) -> Solution:
            known = start if start is not None and program.violation(start) <= 1e-6 else None
            return self.solves.solve(program, known, watch=watch and limit is None, tight=tight, limit=limit)

        def look(values: np.ndarray) -> tuple[bool, float | None]:
            return examine(chain.stages[1], chain.invert(values, to=1), self.context.remaining)

        found = probed(target, solve, look)
        self._note(found.doubt)
        return Solution(SolveStatus.UNBOUNDED) if found.unbounded else found.solution

    def _floor(self, chain: Chain) -> float:
        """A proven lower bound of the leader's objective over the relaxation that the search starts from."""
        program: BilevelProgram = chain.stages[0]
        if self.floor is None or self.floor[0] is not program:
            priced = {d.column for d in program.duals}
            bare = priced.isdisjoint(program.leader.objective.columns)
            relaxed: Program = program.high_point() if bare else chain.stages[1]
            self.floor = program, floor(relaxed, self.context.remaining)
        return self.floor[1]

    def _search_big_m(
        self,
        chain: Chain,
        conditions: OptimalityConditions,
        plan: Plan,
        relaxed: Program,
        start: np.ndarray | None,
        *,
        watch: bool,
    ) -> Solution:
        options = self.options
        pairs = plan.pairs("bigm")
        derived = derive_bounds(chain.stages[1], relaxed, conditions, lambda: self.context.expired, pairs)
        bounds = first_bounds(
            derived,
            [plan.multiplier_bounds.get(p, options.multiplier_bound) for p in pairs],
            [plan.slack_bounds.get(p, options.slack_bound) for p in pairs],
        )
        leaning = False
        for attempt in range(options.max_enlargements + 1):
            reduction = BigM(bounds, pairs)
            longer = chain.then(reduction)
            full = None if start is None else longer.extend(start, stage=1)
            solution = self._search(longer, full, watch=watch, tight=True)
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
        if leaning and solution.values is not None and ray(chain.stages[1], longer.invert(solution.values, to=1)):  # pyright: ignore[reportPossiblyUnboundVariable]
            return Solution(SolveStatus.UNBOUNDED)
        if open_bounds:
            self.proven = False
            self.notes.append(
                f"{len(open_bounds)} bound(s) of multipliers or slacks could not be proven"
                + (", and the answer leans on some of them" if leaning else "")
                + ": better points may be cut off. complementarity=sos1 needs no bounds."
            )
        largest = max((max(b.multiplier, b.slack) for b in bounds), default=0.0)
        largest = max([largest, *(step.largest for step in longer.steps if isinstance(step, StrongDuality))])  # pyright: ignore[reportPossiblyUnboundVariable]
        if not open_bounds:
            self._trust(largest, longer.target)  # pyright: ignore[reportPossiblyUnboundVariable]
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

        def shown(value: float) -> float:
            return self.program.leader.in_users_sense(self.unit.back(value))

        if clean is None or clean.values is None:
            loose = max((min(abs(values[i]), abs(values[j])) for i, j in system.complementarities), default=0.0)
            fault = (
                "The search's point satisfies complementarity only within tolerances, and no exact point was found "
                "beside it."
            )
            if loose > TRACE and self.first is not None:
                return replace(solution, values=self.first), f"{fault} Given is the point that the search started from."
            return replace(solution, values=chain.invert(solution.values)), fault if loose > TRACE else ""
        fault = ""
        if abs(clean.objective - solution.objective) > AGREEMENT * largest_term(system, clean.values):
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
            return self._infeasible()
        if solution.status in (SolveStatus.TIME_LIMIT, SolveStatus.OTHER_LIMIT, SolveStatus.INTERRUPTED):
            return self._pointless(_TERMINATIONS[solution.status], "No point was found before the stop.")
        raise BackendError(solution.message or f"The backend ended {solution.status} without a point.")

    def _infeasible(self) -> Result:
        """Infeasible within unproven bounds proves nothing: sets, which need no bounds, have the last word."""
        plain = plainly_infeasible(self.program, self.context.remaining)
        if plain is not None:
            return self._pointless(*plain)
        if not self.exact:
            return self._pointless(
                Termination.CONVERGED,
                f"The optimality conditions have no solution, which proves no infeasibility. {self.doubt}.",
            )
        exact = self
        if not self.proven:
            if self.options.backend == "highs" or not Scip().available().available:
                return self._pointless(Termination.CONVERGED, "No point within the bounds tried. " + self.notes[-1])
            meant = self.solves.meant
            exact = ExactRun(self.options.with_sets(), self.problem, self.context, doubt=self.doubt, meant=meant)
            if exact.solve_system(self.program).status is not SolveStatus.INFEASIBLE:
                return self._pointless(
                    Termination.CONVERGED, "No point within the bounds tried, but complementarity=sos1 finds one."
                )
        termination, message = why_infeasible(self.program, exact.solve_system, self.context.remaining)
        if exact is not self:
            message += " Confirmed with special ordered sets, since bounds could not be proven."
            self.solves.notes += [n for n in exact.solves.notes if n not in self.solves.notes]
        return self._pointless(termination, message)

    def _pointless(self, termination: Termination, message: str) -> Result:
        message = " ".join([message, *self.solves.notes])
        counts, versions = {"nodes": self.solves.nodes}, self.solves.versions
        return without_point(termination, self.context, message, counts=counts, versions=versions)


def _with_cutoff(program: BilevelProgram, system: Program, start: np.ndarray | None) -> Program:
    """The high-point relaxation without points that are worse than one known: that makes more bounds finite."""
    relaxed = program.high_point()
    if start is None:
        return relaxed
    worst = system.objective.evaluate(start)
    cut = Row("cutoff", relaxed.objective, upper=worst + 1e-6 * largest_term(system, start))
    return replace(relaxed, rows=(*relaxed.rows, cut))


_TERMINATIONS = {
    SolveStatus.OPTIMAL: Termination.CONVERGED,
    SolveStatus.LOCALLY_OPTIMAL: Termination.CONVERGED,
    SolveStatus.TIME_LIMIT: Termination.TIME_LIMIT,
    SolveStatus.OTHER_LIMIT: Termination.ITERATION_LIMIT,
    SolveStatus.INTERRUPTED: Termination.STOPPED_BY_USER,
}
