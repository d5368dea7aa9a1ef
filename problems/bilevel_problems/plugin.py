"""The hooks of the problem library. Descriptions only: Pyomo is imported when a problem is asked for."""

from __future__ import annotations

from bilevel_core.hooks import hookimpl
from bilevel_core.plugins.specs import ProblemSpec
from bilevel_problems.describe import GLOBAL, problem
from bilevel_problems.list_linear import linear_problems
from bilevel_problems.list_quadratic import quadratic_problems
from bilevel_problems.list_smd import smd_problems
from bilevel_problems.tables import table_problems

BILEVEL_HOOK_API = 1


@hookimpl
def bilevel_problems() -> list[ProblemSpec]:
    """Problems from the literature, and traps on which software has returned wrong answers."""
    return [
        *linear_problems(),
        *quadratic_problems(),
        *_integer(),
        *_nonconvex(),
        *_traps(),
        *smd_problems(),
        _market(),
        *table_problems(),
    ]


def _integer() -> list[ProblemSpec]:
    moore_bard = "Moore and Bard (1990), The mixed integer linear bilevel programming problem, Operations Research 38"
    return [
        problem(
            "classic/moore-bard",
            "integer:moore_bard",
            -22.0,
            "integer linear, two variables; the relaxation's bound is -42",
            moore_bard,
            "integer",
        ),
        problem(
            "classic/moore-bard-continuous",
            "integer:moore_bard_continuous",
            -18.0,
            "the same with continuous variables: worse for the leader than with integers",
            f"{moore_bard}; without integrality",
            "linear",
        ),
        problem(
            "classic/mibs-manual",
            "integer:mibs_manual",
            -41.0,
            "integer linear, two variables; leader's constraints contain the follower's variable",
            "DeNegre, Ralphs and Tahernejad, manual of the solver MibS, introductory example",
            "integer coupling",
        ),
        problem(
            "classic/knapsack-interdiction",
            "integer:knapsack_interdiction",
            12.0,
            "binary; the leader removes one item from the follower's knapsack",
            "of the form in DeNegre (2011), Interdiction and discrete bilevel linear programming, Lehigh University; "
            "small data, optimum by enumeration",
            "integer interdiction",
        ),
    ]


def _nonconvex() -> list[ProblemSpec]:
    return [
        problem(
            "classic/mitsos-barton-313",
            "nonconvex:mitsos_barton_313",
            -1.0,
            "nonconvex follower, two variables; at the optimum every answer is optimal for it",
            "Mitsos and Barton (2006), A test set for bilevel programs, example 3.13, optimistic",
            "nonconvex ties",
            needs=GLOBAL,
        ),
    ]


def _market() -> ProblemSpec:
    return problem(
        "market/strategic-generator",
        "market:strategic_generator",
        3300.0,
        "a generator's offer to a power market that pays it the follower's multipliers",
        "of the form in Ruiz and Conejo (2009), Pool strategy of a producer with endogenous formation of locational "
        "marginal prices, IEEE Transactions on Power Systems 24; small data, optimum by enumeration",
        "market duals scalable",
    )


def _traps() -> list[ProblemSpec]:
    return [
        problem(
            "trap/small-bound",
            "traps:small_bound",
            102.0,
            "bounds on multipliers and slacks that are too small cut the optimum off",
            "Pineda and Morales (2019), Solving linear bilevel problems using big-Ms: not all that glitters is gold, "
            "IEEE Transactions on Power Systems 34",
            "linear trap",
        ),
        problem(
            "trap/follower-bounds",
            "traps:follower_bounds",
            1.0,
            "bounds of the follower's variables have multipliers too",
            "by hand: the follower always answers y = 1",
            "linear coupling trap",
        ),
        problem(
            "trap/two-limits",
            "traps:two_limits",
            7.0,
            "two constraints on the one variable of a maximising follower",
            "by hand: the follower answers y = min(x + 3, 10)",
            "linear trap",
        ),
        problem(
            "trap/leaders-wish",
            "traps:leaders_wish",
            None,
            "infeasible: the leader's constraint may not help the follower choose",
            "by hand: the follower always answers y = 2, which the leader forbids",
            "linear coupling integer-leader trap",
            termination="infeasible",
        ),
        problem(
            "trap/two-followers",
            "traps:two_followers",
            18.5,
            "two followers, each with its own objective",
            "by hand: follower i answers z_i = min(8 - x_i, (13 - x_i) / 2, 20)",
            "linear followers trap",
        ),
        problem(
            "trap/no-multipliers",
            "traps:no_multipliers",
            28.25,
            "no multipliers exist at the optimum; optimality conditions lead to 31.25",
            "Dempe (1992), A necessary and a sufficient optimality condition for bilevel programming problems, "
            "Optimization 25; optimum by hand: the follower answers y = min(sqrt(x), 3)",
            "quadratic trap",
            needs=GLOBAL,
        ),
        problem(
            "trap/follower-unbounded",
            "traps:follower_unbounded",
            None,
            "the follower has no optimal answer",
            "by hand: y may grow without limit at every x",
            "linear trap",
            termination="lower-unbounded",
        ),
        problem(
            "trap/follower-infeasible",
            "traps:follower_infeasible",
            None,
            "the follower has no feasible answer",
            "by hand: x <= y <= x - 1 is empty at every x",
            "linear trap",
            termination="lower-infeasible",
        ),
    ]
