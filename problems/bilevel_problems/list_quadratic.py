"""Descriptions of the problems whose followers are convex quadratic programs."""

from __future__ import annotations

from bilevel_core.plugins.specs import ProblemSpec
from bilevel_problems.describe import problem


def quadratic_problems() -> list[ProblemSpec]:
    """Problems from the literature with convex quadratic followers."""
    return [
        problem(
            "classic/bard-1988-1",
            "quadratic:bard_1988_1",
            17.0,
            "convex quadratic, two variables; a local optimum 25 beside the global one",
            "Bard (1988), Convex two-level optimization, Mathematical Programming 40, example 1",
            "quadratic",
        ),
        problem(
            "classic/clark-westerberg-1990b",
            "quadratic:clark_westerberg_1990b",
            5.0,
            "convex quadratic, two variables; the follower's answer has kinks",
            "Clark and Westerberg (1990), Bilevel programming for steady-state chemical process design I, Computers & "
            "Chemical Engineering 14",
            "quadratic",
        ),
        problem(
            "classic/shimizu-aiyoshi-1",
            "quadratic:shimizu_aiyoshi_1",
            100.0,
            "convex quadratic, two variables; a leader's constraint contains the follower's variable",
            "Shimizu and Aiyoshi (1981), A new computational method for Stackelberg and min-max problems by use of a "
            "penalty method, IEEE Transactions on Automatic Control 26, example 1",
            "quadratic coupling",
        ),
        problem(
            "classic/aiyoshi-shimizu-2",
            "quadratic:aiyoshi_shimizu_2",
            0.0,
            "convex quadratic follower, four variables; older tables give the local optimum 5",
            "Aiyoshi and Shimizu (1984), A solution method for the static constrained Stackelberg problem via penalty "
            "method, IEEE Transactions on Automatic Control 29, example 2; optimum recomputed",
            "quadratic coupling",
        ),
        problem(
            "classic/falk-liu",
            "quadratic:falk_liu",
            -2.25,
            "convex quadratic, four variables; older tables give -2.1962",
            "Falk and Liu (1995), On bilevel programming, Part I: general nonlinear cases, Mathematical Programming "
            "70; optimum recomputed",
            "quadratic",
        ),
        problem(
            "classic/bard-1988-3",
            "quadratic:bard_1988_3",
            -12.6787109375,
            "convex quadratic follower, four variables; constraints shift with x squared",
            "Bard (1988), Convex two-level optimization, Mathematical Programming 40, example 3; optimum recomputed",
            "quadratic",
        ),
        problem(
            "classic/shimizu-aiyoshi-2",
            "quadratic:shimizu_aiyoshi_2",
            225.0,
            "convex quadratic, four variables; the answer is the nearest point of a box",
            "Shimizu and Aiyoshi (1981), A new computational method for Stackelberg and min-max problems by use "
            "of a penalty method, IEEE Transactions on Automatic Control 26, example 2",
            "quadratic",
        ),
        problem(
            "classic/de-silva",
            "quadratic:de_silva",
            -1.0,
            "convex quadratic, four variables; the optimum is at a kink",
            "De Silva (1978), Sensitivity formulas for nonlinear factorable programming, George Washington University",
            "quadratic",
        ),
        problem(
            "classic/bard-1998-813",
            "quadratic:bard_1998_813",
            203401 / 2501,
            "convex quadratic, two variables; a steep answer",
            "Bard (1998), Practical Bilevel Optimization, example 8.1.3; Macal and Hurter (1997)",
            "quadratic",
        ),
        problem(
            "classic/bard-1998-813-nonnegative",
            "quadratic:bard_1998_813_nonnegative",
            1.0,
            "the same with y >= 0: far from the optimum without it",
            "Bard (1998), Practical Bilevel Optimization, example 8.1.3, second part",
            "quadratic",
        ),
        problem(
            "classic/bard-1998-721",
            "quadratic:bard_1998_721",
            0.0,
            "convex quadratic, three variables",
            "Bard (1998), Practical Bilevel Optimization, example 7.2.1, misprint corrected as in BASBLib",
            "quadratic",
        ),
        problem(
            "classic/sahin-ciric-3",
            "quadratic:sahin_ciric_3",
            9.0,
            "convex quadratic, two variables; all constraints are the leader's",
            "Sahin and Ciric (1998), A dual temperature simulated annealing approach for solving bilevel "
            "programming problems, Computers & Chemical Engineering 23, example 3",
            "quadratic coupling",
        ),
        problem(
            "classic/outrata-1a",
            "quadratic:outrata_1a",
            -8.917202956,
            "strongly convex quadratic, four variables",
            "Outrata (1990), On the numerical solution of a class of Stackelberg problems, Zeitschrift für "
            "Operations Research 34, example 1a; optimum recomputed",
            "quadratic",
        ),
        problem(
            "classic/outrata-1b",
            "quadratic:outrata_1b",
            -7.578458164,
            "strongly convex quadratic, four variables; x is dearer than in outrata-1a",
            "Outrata (1990), On the numerical solution of a class of Stackelberg problems, Zeitschrift für "
            "Operations Research 34, example 1b; optimum recomputed",
            "quadratic",
        ),
        problem(
            "classic/outrata-2a",
            "quadratic:outrata_2a",
            0.501501498,
            "strongly convex quadratic, three variables; a path of answers with bends",
            "Outrata (1990), On the numerical solution of a class of Stackelberg problems, Zeitschrift für "
            "Operations Research 34, example 2a; optimum recomputed",
            "quadratic",
        ),
        problem(
            "classic/henderson-quandt",
            "quadratic:henderson_quandt",
            -9800 / 3,
            "convex quadratic, two variables: a duopoly",
            "Henderson and Quandt (1958), Microeconomic Theory",
            "quadratic",
        ),
        problem(
            "classic/muu-quy-1",
            "quadratic:muu_quy_1",
            -27 / 13,
            "strongly convex quadratic, three variables",
            "Muu and Quy (2003), A global optimization method for solving convex quadratic bilevel programming "
            "problems, Journal of Global Optimization 26, example 1",
            "quadratic",
        ),
        problem(
            "classic/hatz",
            "quadratic:hatz",
            0.0,
            "convex quadratic, three variables; the optimum is a kink",
            "Hatz, Leyffer, Schlöder and Bock (2013), Regularizing bilevel nonlinear programs by lifting",
            "quadratic",
        ),
        problem(
            "classic/lampariello-sagratella",
            "quadratic:lampariello_sagratella",
            0.5,
            "convex quadratic, two variables",
            "Lampariello and Sagratella (2017), example 3.2, as stated in the collection BOLIB",
            "quadratic",
        ),
    ]
