"""`kkt` with local modes: pairs relaxed or penalised, Ipopt from several points, then an exact point beside its limit.

The limit is complementary only within tolerances. It is solved again on its piece (of each pair one column at zero);
where both columns of a pair vanish, all pieces that meet there are solved, and the search goes on from a better one.
What is left is stationary on every piece that contains it. No more than that is claimed: other multipliers of the same
answer may open other pieces (Dempe and Dutta 2012).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from bilevel_core.backends import SolveSettings, SolveStatus
from bilevel_core.backends.highs import Highs
from bilevel_core.backends.ipopt import Ipopt
from bilevel_core.errors import BackendError, MissingError, RefusedError
from bilevel_core.problems.base import AlgebraicProblem
from bilevel_core.program import Program
from bilevel_core.reductions import Chain
from bilevel_core.reductions.conic_duality import has_cones
from bilevel_core.reductions.kkt import OptimalityConditions
from bilevel_core.reductions.pairs import Pair
from bilevel_core.reductions.penalised import Penalised
from bilevel_core.reductions.relaxed import Relaxed
from bilevel_core.result import Claim, Result, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.assemble import with_point, without_point
from bilevel_core.solvers.kkt.modes import Plan, make_plan
from bilevel_core.solvers.single_level import piece, polish
from bilevel_core.solvers.start import first_point
from bilevel_core.solvers.units import largest_term, restated
from bilevel_core.traits import derive_traits

if TYPE_CHECKING:
    from bilevel_core.solvers.kkt.solver import KKT

SCHEDULE = tuple(10.0**-k for k in range(9))
"""eps of the relaxed products, one after the other; the penalty's weight is its reciprocal's square root."""
BOTH_ZERO = 1e-6
"""A pair whose columns are both below this may change sides."""
MOST_TIED = 8
"""With more such pairs not all pieces are solved, and the point is claimed feasible only."""
BETTER = 1e-6
MOVES = 20
SPREAD = 10.0
"""Random starting points lie within the bounds, and where there are none within this of the starting point."""


def run_local(options: KKT, problem: AlgebraicProblem, context: RunContext) -> Result:
    """Solve the optimality system locally; see the module.

    Raises:
        MissingError: Ipopt does not work here.
    """
    state = Ipopt().available()
    if not state.available:
        raise MissingError(f"complementarity={options.complementarity} needs Ipopt: {state.reason}. pip install casadi")
    return LocalRun(options, problem, context).result()


class LocalRun:
    """One run: the system, the searches from all starts, and what the best of them is worth."""

    def __init__(self, options: KKT, problem: AlgebraicProblem, context: RunContext) -> None:
        self.options = options
        self.problem = problem
        self.context = context
        self.program, self.unit = restated(problem.program())
        if has_cones(self.program):
            raise RefusedError(
                "A follower has second-order cones, and the optimality conditions that local modes use have no "
                "derivative at their apex: use complementarity=sos1."
            )
        self.conditions = OptimalityConditions()
        self.chain = Chain(self.program).then(self.conditions)
        self.system: Program = self.chain.target
        self.plan: Plan = make_plan(
            self.program, self.system, self.conditions.multipliers, options.complementarity, options.modes, {}, {}
        )
        self.convex = all(f.convex is True for f in derive_traits(problem).followers)
        self.solves = 0

    def result(self) -> Result:
        """The best point from all starts, or why there is none."""
        if self.context.expired:
            return self._pointless(Termination.TIME_LIMIT, "No time was left to start.")
        best: np.ndarray | None = None
        value = np.inf
        termination = Termination.CONVERGED
        try:
            for number, start in enumerate(self._starts()):
                if self.context.expired:
                    termination = Termination.TIME_LIMIT
                    break
                found = self._search(start)
                if found is None:
                    continue
                worth = self.system.objective.evaluate(found)
                if worth < value - BETTER * largest_term(self.system, found):
                    best, value = found, worth
                    shown = self.program.leader.in_users_sense(self.unit.back(worth))
                    self.context.report("incumbent", objective=shown, bound=None, start=number)
        except KeyboardInterrupt:
            if best is None:
                raise
            termination = Termination.STOPPED_BY_USER
        if best is None:
            return self._pointless(
                termination,
                f"Ipopt ended at no complementary point from {self.options.starts} starting point(s). That proves "
                "nothing of the problem: try more starts, or an exact mode.",
            )
        return self._finished(best, termination)

    def _finished(self, values: np.ndarray, termination: Termination) -> Result:
        notes = [f"The best of a local search from {self.options.starts} point(s); better points are not excluded."]
        claim = Claim.FEASIBLE
        if termination is Termination.CONVERGED:
            values, settled = self.settle(values)
            if settled:
                claim = Claim.STATIONARY
            else:
                notes.append("Not every piece that meets at the point could be solved: it need not be stationary.")
        if not self.convex:
            notes.append(
                "The follower's convexity is not known: its conditions do not make its answer optimal, the check does."
            )
        return with_point(
            self.problem,
            self.chain.invert(values),
            self.context,
            termination=termination,
            claim=claim,
            counts={"nlp_solves": self.solves},
            versions={"ipopt": Ipopt().version()},
            message=" ".join(notes),
        )

    def _starts(self) -> Iterator[np.ndarray]:
        """The answer to the high-point relaxation's leader first, then random points."""
        known = first_point(self.program, self.system, self.conditions.multipliers, self.context.remaining)
        centre = np.zeros(len(self.system.columns)) if known is None else known
        lower = np.array([c.lower for c in self.system.columns])
        upper = np.array([c.upper for c in self.system.columns])
        rng = np.random.default_rng([self.context.seed, 2001])
        left = self.options.starts
        if known is not None:
            yield known
            left -= 1
        for _ in range(left):
            low = np.where(np.isfinite(lower), lower, np.where(np.isfinite(upper), upper, centre) - SPREAD)
            high = np.where(np.isfinite(upper), upper, np.maximum(centre, low) + SPREAD)
            yield self._with_slacks(rng.uniform(low, high))

    def _with_slacks(self, values: np.ndarray) -> np.ndarray:
        for m in self.conditions.multipliers:
            slack = m.slack.evaluate(values)
            if m.slack_column >= len(self.program.columns) and np.isfinite(slack):
                values[m.slack_column] = max(0.0, slack)
        return values

    def _search(self, start: np.ndarray) -> np.ndarray | None:
        """The sequence of relaxed or penalised programs from one point, and the exact point beside its end."""
        values = start
        reached = False
        for eps in SCHEDULE:
            if self.context.expired:
                break
            chain = self.chain
            for mode, pairs in self.plan.by_mode.items():
                step = Relaxed(eps, pairs) if mode == "relaxed" else Penalised(eps**-0.5, pairs)
                chain = chain.then(step)
            found = self._solve(chain.target, values)
            if found is None:
                continue
            values, reached = found, True
            if self._product(values) < 1e-12:
                break
        if not reached:
            return None
        clean = polish(self.system, values, self.context.remaining())
        if clean is None or clean.values is None:
            return values if self.system.violation(values) < 1e-7 else None
        return clean.values

    def _product(self, values: np.ndarray) -> float:
        return max((abs(values[i] * values[j]) for i, j in self.system.complementarities), default=0.0)

    def _solve(self, program: Program, start: np.ndarray) -> np.ndarray | None:
        self.solves += 1
        how = SolveSettings(time_limit=self.context.remaining(), start=start, options=self.options.backend_options)
        solution = Ipopt().solve(program, how)
        return solution.values if solution.status is SolveStatus.LOCALLY_OPTIMAL else None

    def settle(self, values: np.ndarray) -> tuple[np.ndarray, bool]:
        """Move to better pieces that meet at the point until none is; and whether all of them were solved."""
        for _ in range(MOVES):
            tied = [p for p in self.system.complementarities if max(abs(values[k]) for k in p) <= BOTH_ZERO]
            if len(tied) > MOST_TIED:
                return values, False
            worth = self.system.objective.evaluate(values)
            best, complete = values, True
            for sides in product((0, 1), repeat=len(tied)):
                if self.context.expired:
                    return best, False
                answer = self._piece(values, tied, sides)
                if answer is None:
                    complete = False
                    continue
                there = self.system.objective.evaluate(answer)
                if there < worth - BETTER * largest_term(self.system, answer):
                    best, worth = answer, there
            if best is values:
                return values, complete
            values = best
        return values, False

    def _piece(self, values: np.ndarray, tied: Sequence[Pair], sides: Sequence[int]) -> np.ndarray | None:
        """The optimum of one piece that contains the point, from the point; None where it could not be solved."""
        keep = {pair: pair[side] for pair, side in zip(tied, sides, strict=True)}

        def choice(v: np.ndarray, group: tuple[int, ...]) -> int:
            return keep.get((group[0], group[1]), max(group, key=lambda k: abs(v[k])))

        rest = piece(self.system, values, choice)
        for backend in (Highs(), Ipopt()):
            if backend.accepts(rest) is not None:
                continue
            self.solves += 1
            try:
                found = backend.solve(rest, SolveSettings(start=values, time_limit=self.context.remaining()))
            except BackendError:
                continue
            if found.values is not None and found.solved and self.system.violation(found.values) < 1e-6:
                return found.values
        return None

    def _pointless(self, termination: Termination, message: str) -> Result:
        return without_point(termination, self.context, message, counts={"nlp_solves": self.solves})
