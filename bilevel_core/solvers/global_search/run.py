"""`global`: one run, from bounds of the variables to what the end of the search amounts to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bilevel_core.backends import SolveStatus
from bilevel_core.backends.scip import Scip
from bilevel_core.errors import MissingError
from bilevel_core.problems.base import AlgebraicProblem
from bilevel_core.program import BilevelProgram, Variable
from bilevel_core.result import Claim, Result, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.assemble import with_point, without_point
from bilevel_core.solvers.diagnose import feasible_point
from bilevel_core.solvers.global_search.bounds import LowerUnboundedError, bounded_columns
from bilevel_core.solvers.global_search.followers import CutShortError, Followers
from bilevel_core.solvers.global_search.optimistic import Optimistic
from bilevel_core.solvers.global_search.pessimistic import Pessimistic
from bilevel_core.solvers.global_search.tree import Side, Tree
from bilevel_core.traits import derive_traits

if TYPE_CHECKING:
    from bilevel_core.solvers.global_search.solver import Global


class GlobalRun:
    """One run."""

    def __init__(self, options: Global, problem: AlgebraicProblem, context: RunContext, version: str) -> None:
        self.options = options
        self.problem = problem
        self.context = context
        self.program: BilevelProgram = problem.program()
        traits = derive_traits(problem)
        convex = [k for k, f in enumerate(traits.followers) if f.convex is True]
        self.followers = Followers(self.program, context, convex)
        self.versions = {"scip": version}
        self.tree: Tree | None = None

    def result(self) -> Result:
        """What the search comes to, or what was known when it was cut short."""
        state = Scip().available()
        if not state.available:
            raise MissingError(f"global needs SCIP: {state.reason}. pip install pyscipopt")
        if self.context.expired:
            return self._pointless(Termination.TIME_LIMIT, "No time was left to start.")
        interrupted = False
        try:
            self.context.report("phase", message="bounds of the variables")
            side = self._side()
            columns = bounded_columns(self.program, self.followers, side.worth)
            self.tree = self._tree(side, columns)
            self.followers.pulse = self.tree.pulse
            self.context.report("phase", message=f"value-function cuts, {self.options.response}")
            self.tree.run()
        except LowerUnboundedError as error:
            return self._pointless(Termination.LOWER_UNBOUNDED, str(error))
        except CutShortError as error:  # before there is a tree, which knows what to do without an answer
            over = Termination.STOPPED_BY_USER if self.context.stopped else Termination.TIME_LIMIT
            return self._pointless(over, str(error))
        except KeyboardInterrupt:
            if self.tree is None:
                raise
            interrupted = True
        return self._end(self.tree, interrupted=interrupted)

    def _side(self) -> Side:
        options = self.options
        kind = Pessimistic if options.response == "pessimistic" else Optimistic
        return kind(self.program, self.followers, absolute=options.lower_absolute, relative=options.lower_relative)

    def _tree(self, side: Side, columns: tuple[Variable, ...]) -> Tree:
        options, program = self.options, self.program
        return Tree(
            side,
            columns,
            linking(program),
            program.leader,
            absolute=options.upper_absolute,
            relative=options.upper_relative,
            max_relaxations=options.max_iterations,
            context=self.context,
        )

    def _end(self, tree: Tree, *, interrupted: bool) -> Result:
        termination = Termination.CONVERGED
        if interrupted or self.context.stopped:
            termination = Termination.STOPPED_BY_USER
        elif self.context.expired:
            termination = Termination.TIME_LIMIT
        elif tree.limited:
            termination = Termination.ITERATION_LIMIT
        if tree.best is None:
            return self._none(tree, termination)
        if tree.closed:
            termination = Termination.CONVERGED
        return with_point(
            self.problem,
            tree.best,
            self.context,
            termination=termination,
            claim=Claim.GLOBAL if tree.closed else Claim.FEASIBLE,
            bound=tree.bound,
            counts=self._counts(),
            versions=self.versions,
            message=self._message(tree, termination),
        )

    def _message(self, tree: Tree, termination: Termination) -> str:
        options = self.options
        shown = self.program.leader.in_users_sense
        gap = max(0.0, tree.value - tree.bound)
        notes: list[str] = []
        if tree.closed:
            notes.append(
                f"Optimal within epsilon: the leader's value is at most {gap:.3g} from the proven bound (asked for: "
                f"{options.upper_absolute:g} absolute or {options.upper_relative:g} relative)."
            )
        else:
            notes.append(f"The bound leaves a gap of {gap:.3g}: better points within it are not excluded.")
            if termination is Termination.CONVERGED:
                notes.append(
                    "Boxes that are left are too narrow to divide, or the followers' answers in them cannot be told "
                    f"from optimal ones (lower_absolute={options.lower_absolute:g}, "
                    f"lower_relative={options.lower_relative:g})."
                )
        if options.response == "pessimistic":
            notes.append(
                "The bound is that of a leader who expects every answer within "
                f"{options.lower_absolute:g} (absolute) or {options.lower_relative:g} (relative) of the follower's "
                f"optimum; measured so, the value here is {shown(tree.value):.6g}."
            )
        return " ".join([*notes, *tree.troubles[:2]])

    def _none(self, tree: Tree, termination: Termination) -> Result:
        if termination is not Termination.CONVERGED:
            return self._pointless(termination, "No bilevel feasible point was found before the stop.")
        if math.isfinite(tree.bound):
            return self._pointless(
                Termination.CONVERGED,
                "No bilevel feasible point was found, and none excluded: the boxes that are left are too narrow to "
                "divide. " + " ".join(tree.troubles[:2]),
            )
        if self.followers.unbounded:
            return self._pointless(Termination.LOWER_UNBOUNDED, self.followers.unbounded)
        alone = feasible_point(self.program.high_point(leader_rows=False), self.context.remaining())
        if alone.status is SolveStatus.INFEASIBLE:
            return self._pointless(
                Termination.LOWER_INFEASIBLE,
                "The followers' constraints have no common point for any value of the leader's variables.",
            )
        return self._pointless(
            Termination.INFEASIBLE,
            "No choice of the leader's satisfies its constraints together with optimal answers of the followers.",
        )

    def _pointless(self, termination: Termination, message: str) -> Result:
        bound = None if self.tree is None or not math.isfinite(self.tree.bound) else self.tree.bound
        return without_point(
            termination,
            self.context,
            message.strip(),
            counts=self._counts(),
            versions=self.versions,
            bound=None if bound is None else self.program.leader.in_users_sense(bound),
        )

    def _counts(self) -> dict[str, int]:
        tree = self.tree
        counts = {"lower_solves": self.followers.solves}
        if tree is not None:
            counts |= {"relaxations": tree.relaxations, "cuts": tree.side.cuts, "nodes": tree.nodes}
        return counts


def linking(program: BilevelProgram) -> tuple[int, ...]:
    """The leader's columns that followers see."""
    seen: set[int] = set()
    for follower in program.followers:
        for f in (follower.objective, *(r.function for r in follower.rows)):
            seen |= f.columns
    return tuple(i for i in program.leader.columns if i in seen and not program.columns[i].fixed)
