"""`branch-and-cut`: mixed-integer linear bilevel programs with integer linking variables, exactly.

Good at: followers with integer variables; interdiction; leaders with many integer variables; several followers.
Bad at: large linear followers without integers (`kkt` is faster); followers that take seconds to solve at a given x.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from bilevel_core.errors import UsageError
from bilevel_core.problems.base import AlgebraicProblem, Problem
from bilevel_core.program import BilevelProgram, Function
from bilevel_core.result import Claim, Result
from bilevel_core.run import RunContext
from bilevel_core.solvers.base import Accepted, Refused, Solver
from bilevel_core.traits import Traits


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


def _no_options() -> dict[str, Any]:
    return {}


LEAST_EPSILON = 1e-6
"""SCIP's feasibility tolerance: points nearer to a jump than this count as beyond it, and a search would not end."""


@dataclass(frozen=True)
class BranchAndCut(Solver):
    """Branch and cut over the high-point relaxation.

    At integer values of the linking variables each follower is solved; points that are not optimal for it are cut off
    by intersection cuts of bilevel-free sets, and where these stall by branching on such a set. Finite where every
    leader's variable that a follower sees is integer and bounded.

    Source: Fischetti, Ljubic, Monaci and Sinnl (2017), A new general-purpose algorithm for mixed-integer bilevel linear
    programs, Operations Research 65; and (2018), On the use of intersection cuts for bilevel optimization, Mathematical
    Programming 172; Wang and Xu (2017), The watermelon algorithm, SIAM Journal on Optimization 27, for the branching.
    """

    response: Literal["optimistic", "pessimistic"] = _option(
        "optimistic", "which of several optimal answers the followers give: the leader's best or its worst"
    )
    gap: float = _option(0.0, "relative optimality gap at which the search may stop")
    cuts: bool = _option(True, "whether points are cut off before the search branches on them")
    max_nodes: int | None = _option(None, "most nodes of the search tree; no limit by default")
    epsilon: float | None = _option(
        None,
        "continuous linking variables: how far x keeps from where another answer of the follower becomes feasible, in "
        "units of its constraints; without it such problems are refused, since an optimum need not exist",
    )
    backend_options: dict[str, Any] = field(
        default_factory=_no_options, metadata={"help": "parameters of SCIP: backend_options.NAME=VALUE"}
    )

    def __post_init__(self) -> None:
        if not 0.0 <= self.gap < 1.0:
            raise UsageError(f"Expected a gap in [0, 1), got {self.gap!r}.")
        if self.max_nodes is not None and self.max_nodes < 1:
            raise UsageError(f"Expected max_nodes >= 1, got {self.max_nodes}.")
        if self.epsilon is not None and not LEAST_EPSILON <= self.epsilon < float("inf"):
            raise UsageError(
                f"Expected a number of at least {LEAST_EPSILON:g} for epsilon, got {self.epsilon!r}: the search's own "
                "tolerances cannot tell shorter distances from none."
            )
        if self.epsilon is not None and self.response == "pessimistic":
            raise UsageError("response=pessimistic needs integer linking variables: leave epsilon out.")

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Algebraic problems that are linear at both levels, with integer linking variables."""
        if traits.form != "algebraic":
            return Refused("its levels are callables, not expressions", "a differentiable solver")
        if traits.game:
            return Refused("a follower's problem contains another follower's variables (a Nash game)", "kkt")
        elsewhere = "global" if traits.lower_integers else "kkt"
        for what, kind in (("objective", traits.upper_objective), ("constraints", traits.upper_constraints)):
            if kind != "linear":
                return Refused(
                    f"the leader's {what} {'is' if what == 'objective' else 'are'} {kind}",
                    f"{elsewhere}, or linear terms",
                )
        for f in traits.followers:
            for what, kind in (("objective", f.objective), ("constraints", f.constraints)):
                if kind != "linear":
                    return Refused(f"follower {f.name!r} has a {kind} {what}", elsewhere)
            if f.matrix_varies:
                return Refused(
                    f"constraints of follower {f.name!r} multiply its variables by the leader's",
                    "a product linearised by hand: binary times bounded variable",
                )
        continuous = traits.linking_continuous
        if continuous and self.epsilon is None:
            what = f"{len(continuous)} leader's variable(s) that a follower sees ({', '.join(continuous[:3])}) "
            if traits.lower_integers:
                return Refused(
                    f"{what}are continuous while a follower has integers: the leader's infimum need not be attained",
                    "epsilon=1e-3, which keeps x that far from where the follower's answer jumps",
                )
            return Refused(f"{what}are continuous", "kkt")
        if self.epsilon is not None and not continuous:
            return Refused(
                "epsilon is for continuous linking variables, and here all that a follower sees is integer",
                "this solver without epsilon, which is exact then",
            )
        if continuous and any(f.integers < f.variables for f in traits.followers):
            return Refused(
                "leader's variables that a follower sees are continuous, and so is part of its own answer",
                "a follower whose variables are all integer, or integer leader's variables",
            )
        how = "branch and cut over the high-point relaxation (SCIP), followers solved by HiGHS"
        if continuous:
            return Accepted(f"{how}, x {self.epsilon:g} away from jumps", Claim.FEASIBLE)
        return Accepted(how, Claim.GLOBAL)

    def refuses(self, problem: Problem) -> Refused | None:
        """Products of leader's and follower's variables in a follower's objective."""
        if isinstance(problem, AlgebraicProblem):
            return _products(problem.program())
        return None

    def run(self, problem: AlgebraicProblem, context: RunContext) -> Result:
        """See `Solver.run`."""
        from bilevel_core.solvers.branch_cut.run import Run

        return Run(self, problem, context).result()


def _products(program: BilevelProgram) -> Refused | None:
    for follower in program.followers:
        f: Function = follower.objective
        own = set(follower.columns)
        mixed = next(((i, j) for i, j in f.quadratic if (i in own) != (j in own)), None)
        if mixed is not None or (f.nonlinear is not None and not f.columns.isdisjoint(own)):
            names = (
                "" if mixed is None else f" ({program.columns[mixed[0]].name} times {program.columns[mixed[1]].name})"
            )
            return Refused(
                f"the objective of follower {follower.name!r} has terms in leader's and its own variables{names}",
                "a product linearised by hand: binary times bounded variable",
            )
    return None
