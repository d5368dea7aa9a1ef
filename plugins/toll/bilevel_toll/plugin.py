"""The hooks of toll setting. Descriptions only; the code is imported on use."""

from __future__ import annotations

from bilevel_core.hooks import hookimpl
from bilevel_core.plugins.specs import (
    CommandSpec,
    FigureSpec,
    KnownOptimum,
    LoaderSpec,
    ProblemSpec,
    ReformulationSpec,
    SolverSpec,
)

BILEVEL_HOOK_API = 1


@hookimpl
def bilevel_problems() -> list[ProblemSpec]:
    """Toll problems: one real network, two toys, and the user's own files."""
    return [
        ProblemSpec(
            "toll/sioux-falls",
            "bilevel_toll.library:sioux_falls",
            "revenue-maximising tolls on the busiest roads of Sioux Falls",
            known=KnownOptimum(
                1_281_700.0,
                "computed: proven by SCIP and by HiGHS, which agree. Network: LeBlanc, Morlok and Pierskalla (1975), "
                "An efficient approach to solving the road network equilibrium traffic assignment problem, "
                "Transportation Research 9",
            ),
            tags=frozenset({"toll", "network", "linear", "followers", "ties"}),
        ),
        ProblemSpec(
            "toll/three-regimes",
            "bilevel_toll.library:three_regimes",
            "one tolled bridge: revenue grows with the toll until users leave",
            known=KnownOptimum(16.0, "by hand: the larger of 4 x 4 (all pay) and 10 x 1 (only the village pays)"),
            tags=frozenset({"toll", "network", "linear", "followers", "ties", "toy"}),
        ),
        ProblemSpec(
            "toll/toy-a",
            "bilevel_toll.library:toy_a",
            "two tolled arcs in a row and ways around them: the bound 16 cannot be reached",
            known=KnownOptimum(
                15.0,
                "by hand: t1 <= 5 by the way around the first arc, t2 <= 10 by the one around the second, and "
                "t1 + t2 <= 16 by the one around both",
            ),
            tags=frozenset({"toll", "network", "linear", "ties", "toy"}),
        ),
        ProblemSpec(
            "toll/network",
            "bilevel_toll.library:from_files",
            "tolls on your own network: -p network=FILE_net.tntp [-p trips=FILE] [-p tollable=1-2,5-9]",
            tags=frozenset({"toll", "network", "linear", "followers", "files"}),
        ),
        ProblemSpec(
            "toll/congested",
            "bilevel_toll.congestion.library:congested_tolls",
            "second-best tolls against user equilibrium: -p network=sioux-falls -p arcs=10 -p objective=time",
            tags=frozenset({"toll", "network", "equilibrium", "nonconvex"}),
        ),
        ProblemSpec(
            "toll/design",
            "bilevel_toll.congestion.library:network_design",
            "capacity added to roads against user equilibrium: -p network=sioux-falls -p arcs=10 -p price=0.1",
            tags=frozenset({"toll", "network", "equilibrium", "nonconvex"}),
        ),
    ]


@hookimpl
def bilevel_solvers() -> list[SolverSpec]:
    """The exact solver; before the general one, since it takes toll problems only."""
    return [
        SolverSpec(
            "toll-pricing",
            "bilevel_toll.solver:TollPricing",
            "exact, toll problems only: strong duality with bounds from distances",
            priority=200,
            structure="network-pricing",
        ),
        SolverSpec(
            "toll-design",
            "bilevel_toll.congestion.solver:TollDesign",
            "local, problems with user equilibrium only: hypergradients from several starts, then COBYQA",
            priority=200,
            structure="congested-traffic",
        ),
    ]


@hookimpl
def bilevel_reformulations() -> list[ReformulationSpec]:
    """The single-level form that the solver uses."""
    return [
        ReformulationSpec(
            "toll-strong-duality",
            "bilevel_toll.reduction:StrongDuality",
            "toll problem to mixed-integer linear program (form std of five): strong duality, products linearised",
        )
    ]


@hookimpl
def bilevel_loaders() -> list[LoaderSpec]:
    """TNTP files: ``bilevel solve X_net.tntp``."""
    return [
        LoaderSpec(
            "tntp",
            "bilevel_toll.tntp:load_tntp",
            "network and trip files of the Transportation Networks collection",
            suffixes=(".tntp",),
        )
    ]


@hookimpl
def bilevel_figures() -> list[FigureSpec]:
    """The map of tolls, of recorded runs."""
    return [
        FigureSpec(
            "toll/map",
            "bilevel_toll.figures:toll_map",
            "tolls (colour) and flows (width) on the network, in a schematic layout",
            install="pip install 'bilevel[plot]'",
        )
    ]


@hookimpl
def bilevel_commands() -> list[CommandSpec]:
    """``bilevel toll ...``."""
    return [
        CommandSpec(
            "toll", "bilevel_toll.commands:app", "Toll setting: prices on a network, and tolls under congestion."
        )
    ]
