"""What the core itself offers, through the same hooks as any plugin. Descriptions only; the code is imported on use."""

from __future__ import annotations

from bilevel_core.hooks import hookimpl
from bilevel_core.plugins.specs import (
    BackendSpec,
    ExecutorSpec,
    ExporterSpec,
    FigureSpec,
    LoaderSpec,
    ReformulationSpec,
    SolverSpec,
)

BILEVEL_HOOK_API = 1


@hookimpl
def bilevel_solvers() -> list[SolverSpec]:
    """The exact solver of the core, and the local ones that improve a point step by step."""
    return [
        SolverSpec(
            "kkt",
            "bilevel_core.solvers.kkt.solver:KKT",
            "exact: the follower replaced by its optimality conditions",
            priority=100,
        ),
        SolverSpec(
            "branch-and-cut",
            "bilevel_core.solvers.branch_cut.solver:BranchAndCut",
            "exact: mixed-integer linear problems whose followers have integer variables",
            priority=90,
        ),
        SolverSpec(
            "global",
            "bilevel_core.solvers.global_search.solver:Global",
            "exact: nonconvex, integer or multiplier-free followers, by value-function cuts and subdivision",
            priority=80,
        ),
        SolverSpec(
            "auxiliary",
            "bilevel_core.solvers.auxiliary.solver:Auxiliary",
            "local: descent along a joint direction that keeps the follower optimal",
            priority=50,
        ),
        SolverSpec(
            "trust-region",
            "bilevel_core.solvers.trust_region.solver:TrustRegion",
            "local: a model of the problem minimised in a region that grows while the model is right",
            priority=40,
        ),
        SolverSpec(
            "hypergradient",
            "bilevel_core.solvers.hypergradient.solver:HypergradientDescent",
            "local: L-BFGS, Adam or SGD on the derivative through the follower's answer",
            priority=60,
        ),
        SolverSpec(
            "penalty",
            "bilevel_core.solvers.penalty.solver:Penalty",
            "local: the follower's optimality penalised, with a weight that rises",
            priority=30,
        ),
        *_sampling(),
    ]


def _sampling() -> list[SolverSpec]:
    """Solvers that sample the upper level. ``auto`` never takes them: they find good points, and prove nothing."""
    extra = "pip install 'bilevel[sampling]'"
    methods = (
        ("grid", "Grid", "every point of a grid; finite spaces whole", ""),
        ("random", "Random", "random points: a baseline", ""),
        ("sobol", "Sobol", "a low-discrepancy sequence", ""),
        ("local", "Local", "hill climbing with restarts", ""),
        ("evolution", "Evolution", "differential evolution, or regularised evolution with ageing", ""),
        ("bayes", "Bayes", "a model of the leader's value: Gaussian process or Parzen estimators (Optuna)", extra),
        ("cma", "Cma", "CMA-ES with restarts (cma)", extra),
        ("nsga2", "Nsga2", "NSGA-II: the Pareto set of several upper objectives (pymoo)", extra),
        ("reinforce", "Reinforce", "REINFORCE with a factorised or recurrent controller", ""),
        ("halving", "Halving", "successive halving and Hyperband on the lower level's budget", ""),
    )
    return [
        SolverSpec(
            f"sample.{name}",
            f"bilevel_core.solvers.sample.methods:{attribute}",
            f"sampling: {summary}",
            install=install,
            priority=-10,
        )
        for name, attribute, summary, install in methods
    ] + [
        SolverSpec(
            "bleaq",
            "bilevel_core.solvers.bleaq:Bleaq",
            "sampling: evolution on models of the follower's answer and of its optimal value",
            priority=-10,
        )
    ]


@hookimpl
def bilevel_backends() -> list[BackendSpec]:
    """The three solvers of single-level programs."""
    return [
        BackendSpec(
            "scip",
            "bilevel_core.backends.scip:Scip",
            "global: mixed-integer, nonconvex and nonlinear programs, special ordered sets",
            install="pip install pyscipopt",
        ),
        BackendSpec(
            "highs",
            "bilevel_core.backends.highs:Highs",
            "global: linear, mixed-integer linear and convex quadratic programs",
            install="pip install highspy",
        ),
        BackendSpec(
            "ipopt",
            "bilevel_core.backends.ipopt:Ipopt",
            "local: smooth continuous programs",
            install="pip install casadi",
        ),
    ]


@hookimpl
def bilevel_reformulations() -> list[ReformulationSpec]:
    """The reductions that the core's solvers chain."""
    return [
        ReformulationSpec(
            "kkt",
            "bilevel_core.reductions.kkt:OptimalityConditions",
            "a follower replaced by stationarity, feasibility and complementary pairs",
        ),
        ReformulationSpec(
            "value-function",
            "bilevel_core.reductions.value_function:ValueFunction",
            "the high-point relaxation with a cut for each known answer of a follower",
        ),
        ReformulationSpec(
            "sos1", "bilevel_core.reductions.sos1:Sos1", "complementary pairs as special ordered sets of type 1"
        ),
        ReformulationSpec(
            "bigm", "bilevel_core.reductions.bigm:BigM", "complementary pairs as binaries with bounds on both sides"
        ),
        ReformulationSpec(
            "indicator", "bilevel_core.reductions.indicator:Indicator", "complementary pairs as indicators of a binary"
        ),
        ReformulationSpec(
            "strong-duality",
            "bilevel_core.reductions.strong_duality:StrongDuality",
            "all pairs of a follower as one row: primal objective = dual objective",
        ),
        ReformulationSpec(
            "relaxed", "bilevel_core.reductions.relaxed:Relaxed", "products of pairs at most eps, for local solvers"
        ),
        ReformulationSpec(
            "penalised",
            "bilevel_core.reductions.penalised:Penalised",
            "products of pairs in the objective, for local solvers",
        ),
    ]


@hookimpl
def bilevel_loaders() -> list[LoaderSpec]:
    """Files with an auxiliary file beside them: ``bilevel solve instance.mps``."""
    return [
        LoaderSpec(
            "mps",
            "bilevel_core.problems.mps:load",
            "mixed-integer linear problems: MPS or LP with AUX (MibS, BOBILib)",
            suffixes=(".mps", ".mps.gz", ".lp", ".lp.gz", ".aux", ".aux.gz"),
        )
    ]


@hookimpl
def bilevel_exporters() -> list[ExporterSpec]:
    """The same files written: ``bilevel export PROBLEM instance.mps``."""
    return [
        ExporterSpec(
            "mps",
            "bilevel_core.problems.mps_write:export",
            "mixed-integer linear problems: MPS with AUX (MibS, BOBILib)",
            suffixes=(".mps", ".mps.gz"),
        )
    ]


@hookimpl
def bilevel_figures() -> list[FigureSpec]:
    """What every run can have."""
    code = "bilevel_core.figures.convergence"
    plot = "pip install 'bilevel[plot]'"
    return [
        FigureSpec("value", f"{code}:value", "the leader's value over time, and the proven bound", install=plot),
        FigureSpec("gap", f"{code}:gap", "distance of the best value from the proven bound", install=plot),
        FigureSpec("distance", f"{code}:distance", "how far each level is from optimal", install=plot),
        FigureSpec("step", f"{code}:step", "step lengths, radii and weights", install=plot),
        FigureSpec("path", "bilevel_core.figures.path:path", "the leader's variables on their way", install=plot),
        FigureSpec("pareto", f"{code}:pareto", "the Pareto front of several upper objectives", install=plot),
    ]


@hookimpl
def bilevel_executors() -> list[ExecutorSpec]:
    """Where work that fans out runs: on this machine, or on a cluster."""
    return [
        ExecutorSpec("serial", "bilevel_core.run.executors:serial", "one task after the other, in this process"),
        ExecutorSpec(
            "processes",
            "bilevel_core.run.executors:processes",
            "processes[:N], N worker processes on this machine, by default one a core",
        ),
        ExecutorSpec(
            "dask",
            "bilevel_core.run.clusters:dask",
            "dask[:ADDRESS], the workers of a Dask scheduler; without an address a cluster on this machine",
            install="pip install 'bilevel[dask]'",
        ),
        ExecutorSpec(
            "ray",
            "bilevel_core.run.clusters:ray",
            "ray[:ADDRESS], the workers of a Ray cluster; without an address one on this machine",
            install="pip install ray",
        ),
    ]
