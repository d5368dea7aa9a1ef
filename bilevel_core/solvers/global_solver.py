"""`global`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import math

from bilevel_core.backends.scip import SCIP_FUNCTIONS, Scip
from bilevel_core.problems.base import AlgebraicProblem
from bilevel_core.result import Claim, Result, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.assemble import with_point, without_point
from bilevel_core.solvers.base import Accepted, Refused, Solver
from bilevel_core.solvers.global_bounds import bounded_columns
from bilevel_core.solvers.global_followers import Followers
from bilevel_core.solvers.global_optimistic import Optimistic
from bilevel_core.solvers.global_tree import Tree
from bilevel_core.traits import Traits


@dataclass(frozen=True)
class Global(Solver):
    leader_absolute: float = 1e-3
    leader_relative: float = 1e-3
    max_iterations: int = 100000

    def accepts(self, traits: Traits) -> Accepted | Refused:
        return Accepted("x", Claim.GLOBAL)

    def run(self, problem: AlgebraicProblem, context: RunContext) -> Result:
        program = problem.program()
        followers = Followers(program, context)
        columns = bounded_columns(program, followers)
        seen = set()
        for f in program.followers:
            for g in (f.objective, *(r.function for r in f.rows)):
                seen |= g.columns
        linking = tuple(i for i in program.leader.columns if i in seen and not columns[i].fixed)
        side = Optimistic(program, followers)
        tree = Tree(side, columns, linking, program.leader, absolute=self.leader_absolute, relative=self.leader_relative, max_nodes=self.max_iterations, context=context)
        tree.run()
        counts = {"relaxations": tree.relaxations, "lower_solves": followers.solves, "cuts": side.cuts, "nodes": tree.nodes}
        if tree.best is None:
            return without_point(Termination.INFEASIBLE if tree.closed else Termination.TIME_LIMIT, context, "; ".join(tree.troubles), counts=counts)
        return with_point(problem, tree.best, context, termination=Termination.CONVERGED if tree.closed else Termination.TIME_LIMIT,
            claim=Claim.GLOBAL if tree.closed else Claim.FEASIBLE, bound=tree.bound, counts=counts, versions={"scip": Scip().version()}, message="; ".join(tree.troubles))
