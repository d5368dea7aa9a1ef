"""What `kkt` with its options refuses of a problem whose traits it accepts: told before a run, and by explanations.

Only what the options make worth a look is looked at: with those by default nothing is built here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bilevel_core.errors import RefusedError
from bilevel_core.problems.base import AlgebraicProblem
from bilevel_core.program import Program
from bilevel_core.reductions import Chain
from bilevel_core.reductions.bigm import BigM, PairBounds
from bilevel_core.reductions.conic_duality import has_cones
from bilevel_core.reductions.indicator import Indicator
from bilevel_core.reductions.kkt import OptimalityConditions
from bilevel_core.reductions.pessimistic import Pessimistic, matters, unique
from bilevel_core.reductions.sos1 import Sos1
from bilevel_core.reductions.strong_duality import StrongDuality
from bilevel_core.solvers.base import Refused
from bilevel_core.solvers.kkt.modes import LOCAL, Plan, make_plan
from bilevel_core.solvers.pessimistic import ReducedProblem
from bilevel_core.solvers.single_level import pick
from bilevel_core.traits import derive_traits

if TYPE_CHECKING:
    from bilevel_core.solvers.kkt.solver import KKT


def refusal(options: KKT, problem: AlgebraicProblem) -> Refused | None:
    """Why `kkt` does not take a problem with these options; None where it does.

    Raises:
        UsageError: an option names a constraint or follower that there is not, or a bound of a pair in another mode.
    """
    program = problem.program()
    used = {options.complementarity, *options.modes.values()}
    if has_cones(program):
        reason = "a follower has second-order cones, whose dual vectors have no bounds and no linear dual"
        if options.response == "pessimistic":
            return Refused("a follower has second-order cones, and pessimistic solutions are for linear followers")
        if wrong := sorted(used & {"bigm", "strong-duality", *LOCAL}):
            if wrong[0] in LOCAL:
                reason = "a follower has second-order cones, whose functions have no derivative at their apex"
            return Refused(f"{reason}, so {wrong[0]} does not serve them", "complementarity=sos1 or indicator")
        return None
    if options.response == "pessimistic" and (matters(program) or program.duals):
        return _pessimistic(replace(options, response="optimistic"), problem)
    named = bool(options.modes or options.multiplier_bounds or options.slack_bounds)
    if not (named or "strong-duality" in used or options.backend != "auto"):
        return None
    conditions = OptimalityConditions()
    if conditions.accepts(program) is not None:
        return None  # traits say so better
    system: Program = Chain(program).then(conditions).target
    plan = make_plan(
        program,
        system,
        conditions.multipliers,
        options.complementarity,
        options.modes,
        options.multiplier_bounds,
        options.slack_bounds,
    )
    if plan.followers:
        reason = StrongDuality(program, conditions, plan.followers).accepts(system)
        if reason is not None:
            return Refused(f"{reason}, and strong-duality takes linear rows only", "complementarity=sos1")
    if options.local or options.backend == "auto":
        return None
    some = system
    if plan.followers:  # with bounds of all multipliers more products become linear than will in the end
        bounds = dict.fromkeys((e.column for e in (*conditions.multipliers, *conditions.equalities)), (0.0, 1.0))
        some = StrongDuality(program, conditions, plan.followers, bounds).apply(some)
    return _backend(options.backend, some, plan)


def _pessimistic(plain: KKT, problem: AlgebraicProblem) -> Refused | None:
    if unique(problem.program()):
        return refusal(plain, problem)  # optimists and pessimists expect the same
    reduction = Pessimistic(problem.hidden_columns())
    reason = reduction.accepts(problem.program())
    if reason is not None:
        return Refused(f"{reason}, as response=pessimistic needs", "response=optimistic")
    derived = ReducedProblem(reduction.apply(problem.program()))
    verdict = plain.accepts(derive_traits(derived))
    why = verdict if isinstance(verdict, Refused) else refusal(plain, derived)
    return (
        None if why is None else Refused(f"of the pessimistic problem's single-level form, {why.reason}", why.instead)
    )


def _backend(name: str, some: Program, plan: Plan) -> Refused | None:
    """Whether a backend that was asked for takes such a program."""
    if plan.pairs("sos1"):
        some = Sos1(plan.pairs("sos1")).apply(some)
    if plan.pairs("indicator"):
        some = Indicator(plan.pairs("indicator")).apply(some)
    if pairs := plan.pairs("bigm"):
        some = BigM([PairBounds(1.0, 1.0)] * len(pairs), pairs).apply(some)
    try:
        pick(some, name)
    except RefusedError as error:
        return Refused(str(error).rstrip("."), "backend=auto")
    return None
