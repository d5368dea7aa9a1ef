"""How each registered solver is run on the library, and what it is known to miss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Run:
    """One solver's column of the table.

    Attributes:
        options: the solver's options.
        tolerance: of the objective, relative to max(1, |optimum|).
        local: whether it may claim at most local optimality, whatever the problem.
        misses: problems on which it does not find the optimum with these options, and why. Each must go on missing:
            one that is found fails the test, and comes off the list.
        refuted: problems on which the check finds that the follower's answer is only a local optimum of the follower's.
            Each must go on being refuted.
        refusals: problems that it accepts by their traits, but refuses once it has looked at numbers: so says their
            classification.
        sampling: whether it samples: then it takes nearly every problem, and is run on `SAMPLED` only.
        starts: starting points on problems of the large collections that have local traps; there is one elsewhere in
            these, where ``options`` say how many for the others. None for a solver that is not run on the collections.
        benchmarked: problems of these collections that take longer than a test should: ``benchmarks/convex.py`` runs
            them, and its README says what comes out.
        late: problems on which its search is not over within the seconds given here. What it returns must be true; the
            optimum is not asked for, since whether it has come up by then depends on the machine.
        limit: seconds for each run, far more than any takes; None for the test's own.
        one_start: problems without local traps, where more starts than one only take time.
        only: the problems that it is run on here; None for all that it accepts, but for the large collections.
    """

    options: dict[str, Any] = field(default_factory=dict[str, Any])
    tolerance: float = 1e-5
    local: bool = True
    misses: dict[str, str] = field(default_factory=dict[str, str])
    refuted: frozenset[str] = frozenset()
    refusals: frozenset[str] = frozenset()
    late: frozenset[str] = frozenset()
    sampling: bool = False
    limit: float | None = None
    one_start: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    starts: dict[str, int] | None = None
    benchmarked: frozenset[str] = frozenset()


SAMPLED = ("classic/bard-511", "classic/moore-bard", "trap/two-limits", "trap/leaders-wish", "trap/follower-unbounded")
"""Problems on which sampling solvers are run here; more of them, with budgets of their own, in tests/sampling."""

UNCHECKED = {"smd/smd5", "smd/smd8"}
"""The follower's valley costs a global solver about a minute at each point: these runs are made without the check."""

RASTRIGIN = "the follower's answer is a local optimum of Rastrigin's function"
CONCAVE = "for x < 0 the follower is concave, and its answer found is a local optimum"
INDIFFERENT = "the optimum needs an answer that the follower gives at x = 0 only, of many that are equally good there"


MITSOS = "classic/mitsos-barton-313"

SMD = frozenset(f"smd/smd{n}" for n in range(1, 13) if n not in (4, 9))
"""All but the one whose follower has Rastrigin's function, and one that local solvers refuse."""

SLOW = frozenset(
    f"bolib/{n}"
    for n in (
        "CalamaiVicente1994b",
        "CalamaiVicente1994c",
        "DempeLohse2011Ex31a",
        "GumusFloudas2001Ex1",
        "IshizukaAiyoshi1992a",
        "NieWangYe2017Ex54",
        "Outrata1990Ex2d",
        "Outrata1990Ex2e",
        "Outrata1993Ex32",
        "ShimizuEtal1997b",
        "TollSettingP1",
        "TollSettingP4",
        "WanWangLv2011",
        "Zlobec2001a",
    )
) | {"basblib/c_2002_05", "basblib/dd_2012_02"}
"""Problems of the collections on which both solvers whose steps are mixed-integer programs take more than a second."""

SOLVERS: dict[str, Run] = {
    "kkt": Run(
        local=False,
        misses={"basblib/dd_2012_01": "no multipliers exist at the optimum"},
        late=frozenset(
            {
                "basblib/c_2002_01",
                "basblib/c_2002_05",
                "basblib/dd_2012_02",
                "basblib/fz_1998_01",
                "bolib/CalamaiVicente1994c",
                "bolib/Colson2002BIPA1",
                "bolib/GumusFloudas2001Ex1",
                "bolib/ShimizuEtal1997b",
                "bolib/TollSettingP1",
            }
        ),
    ),
    "branch-and-cut": Run(local=False),
    "toll-pricing": Run(local=False),
    "supernet": Run(),
    "tune": Run(),
    "hyper-local-search": Run(),
    "toll-design": Run(local=False),
    "global": Run(
        tolerance=1e-3,
        local=False,
        limit=300.0,
        only=frozenset(
            {
                "classic/bard-511",
                "classic/knapsack-interdiction",
                "classic/mibs-manual",
                "classic/moore-bard",
                "trap/follower-bounds",
                "trap/follower-infeasible",
                "trap/follower-unbounded",
                "trap/leaders-wish",
                "trap/no-multipliers",
                "trap/small-bound",
                "trap/two-followers",
                "basblib/c_2002_04",
                "basblib/ka_2014_01",
                "basblib/mb_2006_01",
                "basblib/mb_2007_02",
                "basblib/mb_2007_04",
                "basblib/mb_2007_09",
                "basblib/mb_2007_10",
                "basblib/mb_2007_13v",
                "basblib/mb_2007_16",
                "basblib/mb_2007_18",
                "basblib/mb_2007_18v",
                "basblib/mb_2007_24",
                "basblib/nwj_2017_01",
                "basblib/yz_2010_01",
            }
        ),
    ),
    "auxiliary": Run(
        {"starts": 4},
        1e-4,
        misses={MITSOS: CONCAVE, "smd/smd4": RASTRIGIN},
        refuted=frozenset({MITSOS, "smd/smd4"}),
        one_start=SMD | {"classic/bard-1988-3", "classic/sahin-ciric-3"},
        starts={},
        benchmarked=SLOW
        | {"basblib/b_1998_04", "basblib/cw_1990_02", "basblib/dd_2012_01"}
        | {f"bolib/{n}" for n in ("Outrata1990Ex1c", "Outrata1990Ex2c", "ShimizuEtal1997a", "SinhaMaloDeb2014TP3")},
    ),
    "trust-region": Run(
        {"starts": 4},
        1e-4,
        misses={MITSOS: CONCAVE, "smd/smd4": RASTRIGIN},
        refuted=frozenset({MITSOS, "smd/smd4"}),
        one_start=SMD,
        starts={"bolib/LuDebSinha2016f": 13},
        benchmarked=SLOW
        | {"basblib/as_1981_01", "basblib/c_2002_01"}
        | {f"bolib/{n}" for n in ("DempeFranke2011Ex42", "Outrata1993Ex31", "Outrata1994Ex31")},
    ),
    "hypergradient": Run(
        {"starts": 8},
        1e-4,
        misses={MITSOS: INDIFFERENT, "smd/smd4": RASTRIGIN},
        refuted=frozenset({"smd/smd4"}),
        one_start=SMD - {"smd/smd10", "smd/smd11", "smd/smd12"},
    ),
    "penalty": Run(
        {"starts": 8},
        1e-4,
        refusals=frozenset({MITSOS, *(f"smd/smd{n}" for n in range(1, 13) if n not in (6, 9))}),
        benchmarked=frozenset({"basblib/dd_2012_01", "bolib/TollSettingP1"}),
        starts={
            "basblib/b_1988_01": 8,
            "basblib/cw_1990_02": 8,
            "bolib/Colson2002BIPA2": 8,
            "bolib/GumusFloudas2001Ex1": 4,
            "bolib/LamparielloSagratella2017Ex35": 8,
            "bolib/NieWangYe2017Ex54": 4,
            "bolib/ShimizuEtal1997a": 8,
            "bolib/TollSettingP5": 3,
        },
    ),
    **{
        f"sample.{name}": Run(
            {"lower_solves": 60, **options} | ({} if name == "halving" else {"box": 20.0}),
            0.2,
            local=name != "grid",
            sampling=True,
        )
        for name, options in {
            "grid": {},
            "random": {},
            "sobol": {},
            "local": {},
            "evolution": {},
            "reinforce": {},
            "halving": {},
            "bayes": {"model": "tpe"},
            "cma": {},
            "nsga2": {},
        }.items()
    },
    "bleaq": Run({"lower_solves": 60, "box": 20.0}, 0.05, sampling=True),
}
