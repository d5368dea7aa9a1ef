"""One run of `branch-and-cut`: matrices, bounds, the tree, and what its end amounts to."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bilevel_core.backends import SolveStatus
from bilevel_core.backends.highs import Highs
from bilevel_core.backends.scip import Scip
from bilevel_core.problems.base import AlgebraicProblem
from bilevel_core.program import INF, Function
from bilevel_core.result import Claim, Result, Termination
from bilevel_core.run import RunContext
from bilevel_core.run.checkpoint import dumps
from bilevel_core.run.record import BEST
from bilevel_core.solvers.assemble import with_point, without_point
from bilevel_core.solvers.branch_cut.answers import LowerUnboundedError, OutOfTimeError
from bilevel_core.solvers.branch_cut.handler import Search
from bilevel_core.solvers.branch_cut.model import build, with_worth
from bilevel_core.solvers.branch_cut.presolve import bounded_linking, endless
from bilevel_core.solvers.branch_cut.responses import Response, Responses
from bilevel_core.solvers.branch_cut.rival import Rival
from bilevel_core.solvers.branch_cut.scip_tree import ScipTree
from bilevel_core.solvers.single_level import pick

if TYPE_CHECKING:
    from bilevel_core.solvers.branch_cut.solver import BranchAndCut

CLAIM_GAP = 1e-6
"""A point is called optimal when the proven bound is this close (relative, at least absolute)."""
EVERY = 0.25
"""Seconds between two reports of progress."""
SAVED = 5.0
"""Seconds between two records of the best point and bound on disk, when no better point comes up."""

_ENDS = {
    "optimal": Termination.CONVERGED,
    "gaplimit": Termination.CONVERGED,
    "infeasible": Termination.INFEASIBLE,
    "timelimit": Termination.TIME_LIMIT,
    "userinterrupt": Termination.STOPPED_BY_USER,
    "nodelimit": Termination.ITERATION_LIMIT,
}


class Run:
    """See the module."""

    def __init__(self, options: BranchAndCut, problem: AlgebraicProblem, context: RunContext) -> None:
        self.options, self.problem, self.context = options, problem, context
        self.program = problem.program()
        self.leader = self.program.leader
        self.best: Response | None = None
        self.bound = -INF
        self.offset = 0.0
        self.nodes = self.cuts = 0
        self.notes: list[str] = []
        self.tree: ScipTree | None = None
        self.search: Search | None = None
        self.rivals: list[Rival] = []
        self.responses: Responses | None = None
        self._told = self._saved = 0.0
        self._endless = False

    def result(self) -> Result:
        """Search, and say what came of it."""
        if self.context.expired:
            return without_point(Termination.TIME_LIMIT, self.context, "No time was left to start.")
        try:
            end = self._search()
        except LowerUnboundedError as error:
            message = f"Follower {error} is unbounded: its objective has no optimum over its constraints."
            return self._pointless(Termination.LOWER_UNBOUNDED, message)
        except OutOfTimeError:
            end = Termination.STOPPED_BY_USER if self.context.stopped else Termination.TIME_LIMIT
        if self.best is None:
            return self._no_point(end)
        if self._endless:
            message = "The leader's objective improves without end along its own variables."
            return self._pointless(Termination.UNBOUNDED, message)
        return self._point(end)

    # The search.

    def _search(self) -> Termination:
        context = self.context
        context.report("phase", message="bounds of what links the levels")
        plain = bounded_linking(build(self.program), self.program, context)
        # A constant would drown differences in tolerances that are relative to values.
        self.offset, plain = plain.constant, replace(plain, constant=0.0)
        if endless(plain, self.program, context):
            self._endless = True
            plain = replace(plain, cost=np.zeros(plain.size))  # any point will do
        pessimistic = self.options.response == "pessimistic"
        model = with_worth(plain) if pessimistic else plain
        guard = self.options.epsilon or 0.0
        self.rivals = [Rival(model, f, guard, self._left) for f in model.followers]
        answers = [r.answers for r in self.rivals]
        self.responses = Responses(plain, answers, self._left, pessimistic=pessimistic)
        self.tree = ScipTree(model, context.seed)
        self.search = Search(
            self.tree,
            self.rivals,
            self.responses,
            watch=self._watch,
            found=self._incumbent,
            cutting=self.options.cuts,
        )
        context.report("phase", message="branch and cut over the high-point relaxation, SCIP")
        parameters = dict(self.options.backend_options)
        if self.options.max_nodes is not None:
            parameters["limits/totalnodes"] = self.options.max_nodes
        self.tree.run(context.remaining(), context.stop, {"limits/gap": self.options.gap, **parameters})
        if self.search.failure is not None:
            raise self.search.failure
        self.bound, self.nodes, self.cuts = self.tree.bound, self.tree.nodes, self.tree.cuts
        self._last_point()
        status = self.tree.status
        return _ENDS.get(status, Termination.ITERATION_LIMIT if status.endswith("limit") else Termination.ERROR)

    def _left(self) -> float | None:
        """Seconds left for subproblems; 0 once the run is to stop."""
        return 0.0 if self.context.stopped else self.context.remaining()

    def _last_point(self) -> None:
        """SCIP's best point without its tolerances: the response at its linking columns."""
        assert self.tree is not None
        assert self.responses is not None
        found = self.tree.best()
        if found is None:
            return
        response = self.responses.at(found[: len(self.program.columns)])
        if response is None:
            self.notes.append("SCIP's best point holds within tolerances only.")
        elif self.best is None or response.value < self.best.value:
            self._incumbent(response)

    # Telling.

    def _incumbent(self, response: Response) -> None:
        self.best = response
        if self._endless:
            return
        value, bound = self._shown(response.value), self._shown_bound()
        nodes = 0 if self.tree is None else self.tree.nodes
        cuts = 0 if self.tree is None else self.tree.cuts
        self.context.report("incumbent", objective=value, bound=bound, nodes=nodes, cuts=cuts)
        self._save()

    def _shown_bound(self) -> float | None:
        return self._shown(self.bound) if math.isfinite(self.bound) else None

    def _shown(self, value: float) -> float:
        return self.leader.in_users_sense(value + self.offset)

    def _watch(self, objective: float | None, bound: float, nodes: int, cuts: int) -> bool:
        self.bound, self.nodes, self.cuts = max(self.bound, bound), nodes, cuts
        now = time.monotonic()
        if now - self._told < EVERY:
            return self.context.stopped
        self._told = now
        if now - self._saved > SAVED and self.best is not None:
            self._save()
        value = None if objective is None else self._shown(objective)
        gap = None
        if objective is not None and math.isfinite(bound):
            gap = (objective - bound) / max(1.0, abs(objective))
        return self.context.report(
            "iteration", objective=value, bound=self._shown_bound(), gap=gap, nodes=nodes, cuts=cuts
        )

    def _save(self) -> None:
        """Leave the best point and the bound on disk, for the case that the run is killed."""
        keeper = self.context.keeper
        self._saved = time.monotonic()
        if keeper is None or not keeper.periodic:
            return
        result = self._point(Termination.STOPPED_BY_USER)
        result = replace(
            result,
            solver="branch-and-cut",
            options=dataclasses.asdict(self.options),
            seed=self.context.seed,
            problem=self.problem.name,
            message="The run has left no result: this is its best point, and its bound, when it last wrote them down.",
        )
        keeper.checkpoint(dumps({BEST: result.to_json()}))

    # What it amounts to.

    @property
    def counts(self) -> dict[str, int]:
        """Nodes, cuts, and solves of followers, directions and responses."""
        return {
            "nodes": self.nodes,
            "cuts": self.cuts,
            "branchings": 0 if self.search is None else self.search.branchings,
            "lower_solves": sum(r.answers.solves for r in self.rivals),
            "direction_solves": sum(r.directions.solves for r in self.rivals),
            "response_solves": 0 if self.responses is None else self.responses.solves,
        }

    def _point(self, end: Termination) -> Result:
        assert self.best is not None
        value, notes = self.best.value, list(self.notes)
        claim, bound = Claim.FEASIBLE, min(self.bound, value)
        if end is Termination.CONVERGED:
            gap = (value - self.bound) / max(1.0, abs(value))
            if gap <= CLAIM_GAP and not self.notes:
                claim = Claim.GLOBAL
            elif gap > CLAIM_GAP:
                notes.append(f"The search ended at a relative gap of {gap:.2g}: better points within it may exist.")
        if self.options.epsilon is not None and self._continuous():
            claim = min(claim, Claim.FEASIBLE, key=lambda c: c.rank)
            bound = -INF
            notes.append(
                f"Linking variables are continuous: the leader's infimum need not be attained. The point is the best "
                f"whose x keeps {self.options.epsilon:g} away (in units of the follower's constraints) from where "
                "another answer of the follower becomes feasible; better ones may exist nearer."
            )
        return with_point(
            self.problem,
            self.best.values,
            self.context,
            termination=end,
            claim=claim,
            bound=bound + self.offset,
            counts=self.counts,
            versions=_versions(),
            message=" ".join(notes),
        )

    def _continuous(self) -> bool:
        columns = self.program.columns
        return any(not columns[int(i)].integer for r in self.rivals for i in r.follower.linking)

    def _pointless(self, end: Termination, message: str) -> Result:
        result = without_point(end, self.context, message, counts=self.counts)
        bound = self._shown_bound() if end is not Termination.INFEASIBLE else None
        return replace(result, versions=_versions(), bound=bound)

    def _no_point(self, end: Termination) -> Result:
        if end is Termination.CONVERGED:
            return self._pointless(Termination.ERROR, " ".join(["The search ended without a point.", *self.notes]))
        if end is not Termination.INFEASIBLE:
            return self._pointless(end, " ".join(["No bilevel feasible point was found.", *self.notes]))
        return self._pointless(*self._why_infeasible())

    def _why_infeasible(self) -> tuple[Termination, str]:
        def feasible(leader_rows: bool) -> bool:
            goal = replace(self.program.high_point(leader_rows=leader_rows), objective=Function())
            return pick(goal).solve(goal).status is not SolveStatus.INFEASIBLE

        if not feasible(leader_rows=False):
            return Termination.LOWER_INFEASIBLE, (
                "The followers' constraints have no common point for any value of the leader's variables."
            )
        if not feasible(leader_rows=True):
            return Termination.INFEASIBLE, (
                "No point satisfies the constraints of both levels, even without the followers' optimality."
            )
        if self.options.epsilon is not None and self._continuous():
            return Termination.ERROR, (
                f"No point was found whose x keeps {self.options.epsilon:g} away from where another answer of the "
                "follower becomes feasible; nearer there may be some: try a smaller epsilon."
            )
        lower = set(self.program.lower_columns)
        coupling = [r.name for r in self.leader.rows if not r.function.columns.isdisjoint(lower)]
        which = "not all" if self.options.response == "pessimistic" else "none"
        return Termination.INFEASIBLE, (
            f"The followers have optimal answers, but {which} of them satisfies the leader's constraints "
            f"({', '.join(coupling)}). Such constraints do not restrict what a follower chooses."
        )


@functools.cache
def _versions() -> dict[str, str]:
    return {"scip": Scip().version(), "highs": Highs().version()}
