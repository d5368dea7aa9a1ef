"""The hooks of the problem library. Descriptions only: Pyomo is imported when a problem is asked for."""

from __future__ import annotations

from bilevel_core.hooks import hookimpl
from bilevel_core.plugins.specs import KnownOptimum, ProblemSpec

BILEVEL_HOOK_API = 1

BRANCH_AND_CUT = "branch-and-cut"
GLOBAL = "global"


def _problem(
    name: str,
    place: str,
    optimum: float | None,
    summary: str,
    source: str,
    tags: str,
    *,
    termination: str = "converged",
    needs: str = "",
) -> ProblemSpec:
    """One description. ``place`` is "module:function" inside this package; ``tags`` are separated by blanks."""
    return ProblemSpec(
        name,
        f"bilevel_problems.{place}",
        summary,
        known=KnownOptimum(optimum, source, termination=termination),
        needs=needs,
        tags=frozenset(tags.split()),
    )


@hookimpl
def bilevel_problems() -> list[ProblemSpec]:
    """Problems from the literature, and traps on which software has returned wrong answers."""
    return [*_linear(), *_quadratic(), *_integer(), *_nonconvex(), *_traps()]


def _linear() -> list[ProblemSpec]:
    return [
        _problem(
            "classic/bard-511",
            "linear:bard_511",
            -12.0,
            "linear, two variables; a local optimum -7 beside the global one",
            "Bard (1998), Practical Bilevel Optimization, example 5.1.1",
            "linear",
        ),
        _problem(
            "classic/candler-townsley",
            "linear:candler_townsley",
            -29.2,
            "linear, five variables; large bounds on multipliers have led to -36 and -58",
            "Candler and Townsley (1982), A linear two-level programming problem, Computers & Operations Research 9",
            "linear",
        ),
        _problem(
            "classic/clark-westerberg-1988",
            "linear:clark_westerberg_1988",
            -37.0,
            "linear, two variables",
            "Clark and Westerberg (1988), A note on the optimality conditions for the bilevel programming problem, "
            "Naval Research Logistics 35",
            "linear",
        ),
        _problem(
            "classic/anandalingam-white",
            "linear:anandalingam_white",
            -49.0,
            "linear, two variables; leader and follower pull in opposite directions",
            "Anandalingam and White (1990), A solution method for the linear static Stackelberg problem using penalty "
            "functions, IEEE Transactions on Automatic Control 35",
            "linear",
        ),
        _problem(
            "classic/bard-1991-1",
            "linear:bard_1991_1",
            2.0,
            "the leader sets a price in the follower's objective; the answer jumps",
            "Bard (1991), Some properties of the bilevel programming problem, Journal of Optimization Theory and "
            "Applications 68, example 1",
            "linear bilinear-objective ties",
        ),
        _problem(
            "classic/bard-1991-2",
            "linear:bard_1991_2",
            -1.0,
            "linear; the follower has many optimal answers, and the optimistic one counts",
            "Bard (1991), Some properties of the bilevel programming problem, Journal of Optimization Theory and "
            "Applications 68, example 2",
            "linear ties",
        ),
    ]


def _quadratic() -> list[ProblemSpec]:
    return [
        _problem(
            "classic/bard-1988-1",
            "quadratic:bard_1988_1",
            17.0,
            "convex quadratic, two variables; a local optimum 25 beside the global one",
            "Bard (1988), Convex two-level optimization, Mathematical Programming 40, example 1",
            "quadratic",
        ),
        _problem(
            "classic/clark-westerberg-1990b",
            "quadratic:clark_westerberg_1990b",
            5.0,
            "convex quadratic, two variables; the follower's answer has kinks",
            "Clark and Westerberg (1990), Bilevel programming for steady-state chemical process design I, Computers & "
            "Chemical Engineering 14",
            "quadratic",
        ),
        _problem(
            "classic/shimizu-aiyoshi-1",
            "quadratic:shimizu_aiyoshi_1",
            100.0,
            "convex quadratic, two variables; a leader's constraint contains the follower's variable",
            "Shimizu and Aiyoshi (1981), A new computational method for Stackelberg and min-max problems by use of a "
            "penalty method, IEEE Transactions on Automatic Control 26, example 1",
            "quadratic coupling",
        ),
        _problem(
            "classic/aiyoshi-shimizu-2",
            "quadratic:aiyoshi_shimizu_2",
            0.0,
            "convex quadratic follower, four variables; older tables give the local optimum 5",
            "Aiyoshi and Shimizu (1984), A solution method for the static constrained Stackelberg problem via penalty "
            "method, IEEE Transactions on Automatic Control 29, example 2; optimum recomputed",
            "quadratic coupling",
        ),
        _problem(
            "classic/falk-liu",
            "quadratic:falk_liu",
            -2.25,
            "convex quadratic, four variables; older tables give -2.1962",
            "Falk and Liu (1995), On bilevel programming, Part I: general nonlinear cases, Mathematical Programming "
            "70; optimum recomputed",
            "quadratic",
        ),
    ]


def _integer() -> list[ProblemSpec]:
    moore_bard = "Moore and Bard (1990), The mixed integer linear bilevel programming problem, Operations Research 38"
    return [
        _problem(
            "classic/moore-bard",
            "integer:moore_bard",
            -22.0,
            "integer linear, two variables; the relaxation's bound is -42",
            moore_bard,
            "integer",
            needs=BRANCH_AND_CUT,
        ),
        _problem(
            "classic/moore-bard-continuous",
            "integer:moore_bard_continuous",
            -18.0,
            "the same with continuous variables: worse for the leader than with integers",
            f"{moore_bard}; without integrality",
            "linear",
        ),
        _problem(
            "classic/mibs-manual",
            "integer:mibs_manual",
            -41.0,
            "integer linear, two variables; leader's constraints contain the follower's variable",
            "DeNegre, Ralphs and Tahernejad, manual of the solver MibS, introductory example",
            "integer coupling",
            needs=BRANCH_AND_CUT,
        ),
        _problem(
            "classic/knapsack-interdiction",
            "integer:knapsack_interdiction",
            12.0,
            "binary; the leader removes one item from the follower's knapsack",
            "of the form in DeNegre (2011), Interdiction and discrete bilevel linear programming, Lehigh University; "
            "small data, optimum by enumeration",
            "integer interdiction",
            needs=BRANCH_AND_CUT,
        ),
    ]


def _nonconvex() -> list[ProblemSpec]:
    return [
        _problem(
            "classic/mitsos-barton-313",
            "nonconvex:mitsos_barton_313",
            -1.0,
            "nonconvex follower, two variables; at the optimum every answer is optimal for it",
            "Mitsos and Barton (2006), A test set for bilevel programs, example 3.13, optimistic",
            "nonconvex ties",
            needs=GLOBAL,
        ),
    ]


def _traps() -> list[ProblemSpec]:
    return [
        _problem(
            "trap/small-bound",
            "traps:small_bound",
            102.0,
            "bounds on multipliers and slacks that are too small cut the optimum off",
            "Pineda and Morales (2019), Solving linear bilevel problems using big-Ms: not all that glitters is gold, "
            "IEEE Transactions on Power Systems 34",
            "linear trap",
        ),
        _problem(
            "trap/follower-bounds",
            "traps:follower_bounds",
            1.0,
            "bounds of the follower's variables have multipliers too",
            "by hand: the follower always answers y = 1",
            "linear coupling trap",
        ),
        _problem(
            "trap/two-limits",
            "traps:two_limits",
            7.0,
            "two constraints on the one variable of a maximising follower",
            "by hand: the follower answers y = min(x + 3, 10)",
            "linear trap",
        ),
        _problem(
            "trap/leaders-wish",
            "traps:leaders_wish",
            None,
            "infeasible: the leader's constraint may not help the follower choose",
            "by hand: the follower always answers y = 2, which the leader forbids",
            "linear coupling integer-leader trap",
            termination="infeasible",
        ),
        _problem(
            "trap/two-followers",
            "traps:two_followers",
            18.5,
            "two followers, each with its own objective",
            "by hand: follower i answers z_i = min(8 - x_i, (13 - x_i) / 2, 20)",
            "linear followers trap",
        ),
        _problem(
            "trap/no-multipliers",
            "traps:no_multipliers",
            28.25,
            "no multipliers exist at the optimum; optimality conditions lead to 31.25",
            "Dempe (1992), A necessary and a sufficient optimality condition for bilevel programming problems, "
            "Optimization 25; optimum by hand: the follower answers y = min(sqrt(x), 3)",
            "quadratic trap",
            needs=GLOBAL,
        ),
        _problem(
            "trap/follower-unbounded",
            "traps:follower_unbounded",
            None,
            "the follower has no optimal answer",
            "by hand: y may grow without limit at every x",
            "linear trap",
            termination="lower-unbounded",
        ),
        _problem(
            "trap/follower-infeasible",
            "traps:follower_infeasible",
            None,
            "the follower has no feasible answer",
            "by hand: x <= y <= x - 1 is empty at every x",
            "linear trap",
            termination="lower-infeasible",
        ),
    ]
