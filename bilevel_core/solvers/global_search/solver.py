"""`global`: followers of any kind that SCIP takes, to global optimality: value-function cuts and subdivision.

Good at: small problems (a few variables a level) whose followers are nonconvex, integer, or have no multipliers.
Bad at: more than some ten variables that followers see: the search then covers boxes in as many dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from bilevel_core.backends.scip import SCIP_FUNCTIONS, Scip
from bilevel_core.errors import UsageError
from bilevel_core.problems.base import AlgebraicProblem, Problem
from bilevel_core.result import Claim, Result
from bilevel_core.run import RunContext
from bilevel_core.solvers.base import Accepted, Refused, Solver
from bilevel_core.solvers.global_search.answers import loose_equation
from bilevel_core.traits import Traits

SMALL = 20
"""Variables of both levels together up to which the search may be expected to end."""


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Global(Solver):
    """Bounding with value-function cuts (Mitsos, Lemonidis and Barton 2008; Mitsos 2010; Djelassi, Glass and Mitsos
    2019) and subdivision of the leader's variables (Paulavičius and Adjiman 2019), on SCIP.

    The answer is optimal within epsilons. ``upper_absolute`` and ``upper_relative``: the leader's value is at most this
    far from the proven bound. ``lower_absolute`` and ``lower_relative``: a follower's answers that differ by no more
    than this in its objective may be taken for equally good by the bound; the answer in the result is far closer to
    optimal, and the certificate says how close.
    """

    response: Literal["optimistic", "pessimistic"] = _option(
        "optimistic", "which of several optimal answers the followers give: the leader's best or its worst"
    )
    upper_absolute: float = _option(1e-3, "how close the bound must come to the leader's value, absolute")
    upper_relative: float = _option(1e-3, "the same relative to the value; the larger of the two counts")
    lower_absolute: float = _option(
        1e-5,
        "followers' answers this close to optimal count as optimal for the bound: where they tell, boxes are not "
        "divided for ever (optimistic), or the leader must expect them (pessimistic)",
    )
    lower_relative: float = _option(1e-5, "the same relative to the follower's optimal value")
    max_iterations: int = _option(100_000, "most relaxations that are solved")

    def __post_init__(self) -> None:
        for name in ("upper_absolute", "upper_relative", "lower_absolute", "lower_relative"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise UsageError(f"Expected {name} >= 0, got {value!r}.")
        for level, least in (("upper", 1e-8), ("lower", 1e-6)):
            both = (getattr(self, f"{level}_absolute"), getattr(self, f"{level}_relative"))
            if max(both) < least:
                raise UsageError(
                    f"Expected {level}_absolute or {level}_relative of at least {least:g}, got {both[0]!r} and "
                    f"{both[1]!r}: SCIP's own tolerances are no smaller."
                )
        if self.max_iterations < 1:
            raise UsageError(f"Expected max_iterations >= 1, got {self.max_iterations}.")

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Algebraic problems of functions that SCIP knows, without games."""
        if traits.form != "algebraic":
            return Refused("its levels are callables, not expressions", "a differentiable solver")
        if traits.game:
            return Refused("the followers play a Nash game, which has no value function", "kkt, for convex followers")
        if names := sorted(traits.functions - SCIP_FUNCTIONS):
            return Refused(
                f"SCIP does not know {', '.join(f'{name}()' for name in names)}", "a local solver, as hypergradient"
            )
        how = (
            f"value-function cuts and subdivision, {self.response}, solved by SCIP; optimal within "
            f"{max(self.upper_absolute, self.upper_relative):g} for the leader"
        )
        size = traits.upper_variables + traits.lower_variables
        slow = f"with {size} variables (more than {SMALL}) the search can hardly be expected to end"
        return Accepted(how, Claim.GLOBAL, slow if size > SMALL else "")

    def refuses(self, problem: Problem) -> Refused | None:
        """Followers' equations that no answer satisfies at more than single points of x."""
        if not isinstance(problem, AlgebraicProblem):
            return None
        found = loose_equation(problem.program())
        if found is None:
            return None
        row, level = found
        return Refused(
            f"equation {row.name!r} of follower {level.name!r} contains others' variables and is not linear in its own "
            "with constant coefficients, so that no answer can be kept feasible when x changes",
            "the same problem with a variable eliminated by that equation",
        )

    def run(self, problem: AlgebraicProblem, context: RunContext) -> Result:
        """See `Solver.run`.

        Raises:
            RefusedError: a variable has no bounds, and none can be derived.
            MissingError: SCIP does not work here.
        """
        from bilevel_core.solvers.global_search.run import GlobalRun

        return GlobalRun(self, problem, context, Scip().version()).result()
