"""Descriptions of the problems whose followers are linear programs."""

from __future__ import annotations

from bilevel_core.plugins.specs import ProblemSpec
from bilevel_problems.describe import problem


def linear_problems() -> list[ProblemSpec]:
    """Problems from the literature with linear followers."""
    return [
        problem(
            "classic/bard-511",
            "linear:bard_511",
            -12.0,
            "linear, two variables; a local optimum -7 beside the global one",
            "Bard (1998), Practical Bilevel Optimization, example 5.1.1",
            "linear",
        ),
        problem(
            "classic/candler-townsley",
            "linear_larger:candler_townsley",
            -29.2,
            "linear, five variables; large bounds on multipliers have led to -36 and -58",
            "Candler and Townsley (1982), A linear two-level programming problem, Computers & Operations Research 9",
            "linear",
        ),
        problem(
            "classic/clark-westerberg-1988",
            "linear:clark_westerberg_1988",
            -37.0,
            "linear, two variables",
            "Clark and Westerberg (1988), A note on the optimality conditions for the bilevel programming problem, "
            "Naval Research Logistics 35",
            "linear",
        ),
        problem(
            "classic/anandalingam-white",
            "linear:anandalingam_white",
            -49.0,
            "linear, two variables; leader and follower pull in opposite directions",
            "Anandalingam and White (1990), A solution method for the linear static Stackelberg problem using penalty "
            "functions, IEEE Transactions on Automatic Control 35",
            "linear",
        ),
        problem(
            "classic/bard-1991-1",
            "linear_larger:bard_1991_1",
            2.0,
            "the leader sets a price in the follower's objective; the answer jumps",
            "Bard (1991), Some properties of the bilevel programming problem, Journal of Optimization Theory and "
            "Applications 68, example 1",
            "linear bilinear-objective ties",
        ),
        problem(
            "classic/bard-1991-2",
            "linear_larger:bard_1991_2",
            -1.0,
            "linear; the follower has many optimal answers, and the optimistic one counts",
            "Bard (1991), Some properties of the bilevel programming problem, Journal of Optimization Theory and "
            "Applications 68, example 2",
            "linear ties",
        ),
        problem(
            "classic/bard-1984a",
            "linear:bard_1984a",
            28 / 9,
            "linear, two variables; the follower pulls against the leader",
            "Bard (1984), as stated in the collection BOLIB, Bard1984a",
            "linear",
        ),
        problem(
            "classic/bard-1984b",
            "linear:bard_1984b",
            -37.6,
            "linear, two variables; the constraints of bard-1984a with other objectives",
            "Bard (1984), as stated in the collection BOLIB, Bard1984b",
            "linear",
        ),
        problem(
            "classic/ben-ayed-blair-2",
            "linear:ben_ayed_blair_2",
            -6.0,
            "linear, two variables",
            "Ben-Ayed and Blair (1990), Computational difficulties of bilevel linear programming, Operations "
            "Research 38",
            "linear",
        ),
        problem(
            "classic/bialas-karwan-2",
            "linear:bialas_karwan_2",
            -11.0,
            "linear, two variables; leader and follower want the opposite",
            "Bialas and Karwan (1984), Two-level linear programming, Management Science 30",
            "linear",
        ),
        problem(
            "classic/haurie-savard-white",
            "linear:haurie_savard_white",
            27.0,
            "linear, two variables without bounds of their own",
            "Haurie, Savard and White (1990), A note on: an efficient point algorithm for a linear two-stage "
            "optimization problem, Operations Research 38",
            "linear",
        ),
        problem(
            "classic/lan-2007",
            "linear:lan_2007",
            -936 / 11,
            "linear, two variables; older tables give -85.0855",
            "Lan, Wen, Shih and Lee (2007), A hybrid neural network approach to bilevel programming problems, "
            "Applied Mathematics Letters 20",
            "linear",
        ),
        problem(
            "classic/liu-hart",
            "linear:liu_hart",
            -16.0,
            "linear, two variables",
            "Liu and Hart (1994), Characterizing an optimal solution to the linear bilevel programming problem, "
            "European Journal of Operational Research 73",
            "linear",
        ),
        problem(
            "classic/mersha-dempe-1",
            "linear:mersha_dempe_1",
            -39.0,
            "linear, two variables; all constraints are the follower's",
            "Mersha and Dempe (2006), Linear bilevel programming with upper level constraints depending on the "
            "lower level solution, Applied Mathematics and Computation 180, example 1; optimum recomputed",
            "linear",
        ),
        problem(
            "classic/mersha-dempe-2",
            "linear:mersha_dempe_2",
            -20.0,
            "linear, two variables; the leader's feasible set is in two parts",
            "Mersha and Dempe (2006), Linear bilevel programming with upper level constraints depending on the "
            "lower level solution, Applied Mathematics and Computation 180, example 2",
            "linear coupling",
        ),
        problem(
            "classic/allende-still-1",
            "linear:allende_still_1",
            0.0,
            "linear, two variables; the follower answers y = x",
            "Allende and Still (2013), Solving bilevel programs with the KKT-approach, Mathematical Programming "
            "138, example 3.1",
            "linear",
        ),
        problem(
            "classic/tuy-2007",
            "linear:tuy_2007",
            22.5,
            "convex quadratic leader over a linear follower; two optima",
            "Tuy, Migdalas and Hoai-Phuong (2007), A novel approach to bilevel nonlinear programming, Journal of "
            "Global Optimization 38, example 1",
            "linear",
        ),
        problem(
            "classic/lucchetti",
            "linear:lucchetti",
            0.0,
            "the leader sets a price; only an optimistic leader has an optimum",
            "Lucchetti, Mignanego and Pieri (1987), Existence theorems of equilibrium points in Stackelberg "
            "games with constraints, Optimization 18, example 4.1",
            "linear bilinear-objective ties",
        ),
        problem(
            "classic/bard-falk-2",
            "linear_larger:bard_falk_2",
            -3.25,
            "linear, four variables; a constraint on x alone is the follower's",
            "Bard and Falk (1982), An explicit solution to the multi-level programming problem, Computers & "
            "Operations Research 9, example 2",
            "linear",
        ),
        problem(
            "classic/tuy-1993",
            "linear_larger:tuy_1993",
            -3.25,
            "linear, four variables; the constraint on x alone is the leader's",
            "Tuy, Migdalas and Värbrand (1993), A global optimization approach for the linear two-level program, "
            "Journal of Global Optimization 3",
            "linear",
        ),
        problem(
            "classic/ben-ayed-blair-1",
            "linear_larger:ben_ayed_blair_1",
            -2.5,
            "linear, three variables; early algorithms stop at other points",
            "Ben-Ayed and Blair (1990), Computational difficulties of bilevel linear programming, Operations "
            "Research 38",
            "linear",
        ),
        problem(
            "classic/bialas-karwan-1",
            "linear_larger:bialas_karwan_1",
            -2.0,
            "linear, three variables",
            "Bialas and Karwan (1984), Two-level linear programming, Management Science 30",
            "linear",
        ),
        problem(
            "classic/clark-westerberg-1990a",
            "linear_larger:clark_westerberg_1990a",
            -13.0,
            "linear, three variables; the follower has many optimal answers",
            "Clark and Westerberg (1990), Bilevel programming for steady-state chemical process design I, "
            "Computers & Chemical Engineering 14, section 3.1",
            "linear ties",
        ),
        problem(
            "classic/glackin",
            "linear_larger:glackin",
            6.0,
            "linear, three variables",
            "Glackin, Ecker and Kupferschmid (2009), Solving bilevel linear programs using multiple objective "
            "linear programming, Journal of Optimization Theory and Applications 140",
            "linear",
        ),
        problem(
            "classic/hu-huang-zhang",
            "linear_larger:hu_huang_zhang",
            -79 / 9,
            "linear, three variables; older tables give -76/9",
            "Hu, Huang and Zhang (2009), as stated in the collection BOLIB, HuHuangZhang2009; optimum recomputed",
            "linear",
        ),
        problem(
            "classic/tuy-1994",
            "linear_larger:tuy_1994",
            6.0,
            "linear, four variables; a leader's constraint contains the follower's",
            "Tuy, Migdalas and Värbrand (1994), A quasiconcave minimization method for solving linear two-level "
            "programs, Journal of Global Optimization 4",
            "linear coupling",
        ),
        problem(
            "classic/wang-jiao-li",
            "linear_larger:wang_jiao_li",
            -1000.0,
            "linear, three variables; the follower's answer is an edge",
            "Wang, Jiao and Li (2005), An evolutionary algorithm for solving nonlinear bilevel programming based "
            "on a new constraint-handling scheme, IEEE Transactions on Systems, Man, and Cybernetics C 35",
            "linear ties",
        ),
        problem(
            "classic/savard",
            "linear_larger:savard",
            -14.6,
            "linear, five variables; a leader's constraint contains the follower's",
            "Savard (1989), Contribution à la programmation mathématique à deux niveaux, École Polytechnique de "
            "Montréal",
            "linear coupling",
        ),
        problem(
            "classic/dempe-franke-1",
            "linear_larger:dempe_franke_1",
            5.0,
            "convex quadratic leader who sets the follower's prices; the answer jumps",
            "Dempe and Franke (2011), example 4.1, as stated in the collection BOLIB, DempeFranke2011Ex41",
            "linear bilinear-objective ties",
        ),
    ]
