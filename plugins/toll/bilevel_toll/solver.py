"""`toll-pricing`: the exact solver of toll problems, by their single-level form and a mixed-integer backend.

Good at: many pairs with few tollable arcs (hundreds of pairs, 5 to 15 arcs; or 20 pairs and 100 arcs). Bad at: many
pairs and many arcs together, where the gap closes slowly: the best tolls found and the proven bound are reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from bilevel_core.backends import Solution, SolveStatus
from bilevel_core.errors import BackendError, UsageError
from bilevel_core.result import Claim, Result, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.assemble import with_point
from bilevel_core.solvers.base import Accepted, Refused, Solver
from bilevel_core.solvers.single_level import pick, settings
from bilevel_core.traits import Traits
from bilevel_toll.network import Arc, Demand, Network, power_of_ten
from bilevel_toll.perturb import RouteTable, perturbed
from bilevel_toll.problem import STRUCTURE, TollProblem
from bilevel_toll.reduction import SingleLevel
from bilevel_toll.settle import Settled, answered, settle
from bilevel_toll.sweeps import sweep_starts
from bilevel_toll.tighten import Enumeration, enumerate_routes

TOLERANCE = 1e-5
"""A revenue is called optimal when the proven bound is this close (relative), whatever gap was asked for; a revenue
that beats the bound by more is a contradiction, and nothing is claimed."""
SWEEP_SECONDS = 2.0
PERTURB_SECONDS = 10.0
SWEEP_SHARE = 0.1
"""Sweeping and perturbing take at most these seconds, and at most this share of the time limit each."""

TINY = 1e-9
"""Revenue up to this share of what all users save counts as none."""
USUAL_COSTS = (1e-2, 1e2)
USUAL_TRIPS = (1e-3, 1e5)
"""Backends have absolute tolerances: costs and trips of other sizes (powers of ten) are brought to size 1 first."""

SEARCH: dict[str, Any] = {"heuristics/rens/freq": -1, "branching/relpscost/inititer": 50}
"""For SCIP: first tolls are known, so that RENS only takes time; and strong branching, which would take more than half
of it, gets few iterations a candidate. Given options come first.
"""

Progress = Callable[[float | None, float | None, int], bool]

_TERMINATIONS = {
    SolveStatus.OPTIMAL: Termination.CONVERGED,
    SolveStatus.TIME_LIMIT: Termination.TIME_LIMIT,
    SolveStatus.OTHER_LIMIT: Termination.ITERATION_LIMIT,
    SolveStatus.INTERRUPTED: Termination.STOPPED_BY_USER,
}


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


def _no_options() -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class TollPricing(Solver):
    """Strong duality, big-M from distances, branch and bound; tolls made exact afterwards by the inverse problem.

    Sources: Labbé, Marcotte, Savard (1998); Dewez, Labbé, Marcotte, Savard (2008).
    """

    backend: Literal["scip", "highs"] = _option("scip", "which backend solves the mixed-integer program")
    formulation: Literal["std", "pastd", "vf", "pvf", "pcs"] = _option(
        "std", "single-level form (see `bilevel_toll.reduction`); std for pairs whose routes are too many to list"
    )
    big_m: Literal["routes", "distances"] = _option(
        "routes", "bounds on what pairs pay: from listed routes, or from distances alone"
    )
    gap: float = _option(1e-6, "relative gap between revenue and proven bound at which the search may stop")
    sweeps: int = _option(3, "starts of the sweeping heuristic that gives the search its first tolls; 0 for none")
    perturbations: int = _option(
        200, "local searches from tolls of which some are drawn anew, after the sweeps; 0 for none"
    )
    backend_options: dict[str, Any] = field(
        default_factory=_no_options, metadata={"help": "passed to the backend as they are: backend_options.NAME=VALUE"}
    )

    def __post_init__(self) -> None:
        if not 0.0 <= self.gap < 1.0:
            raise UsageError(f"Expected a gap in [0, 1), got {self.gap!r}.")
        for name in ("sweeps", "perturbations"):
            if getattr(self, name) < 0:
                raise UsageError(f"Expected {name} >= 0, got {getattr(self, name)}.")

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Problems that come from a network and say so."""
        if STRUCTURE not in traits.structure:
            return Refused("it is not a toll problem on a network", "a general solver, such as kkt")
        how = f"single-level form {self.formulation}, bounds from {self.big_m}, solved by {self.backend}"
        return Accepted(how, "global")

    def run(self, problem: TollProblem, context: RunContext) -> Result:
        """See `Solver.run`. There is always a point to report: no toll at all."""
        if not isinstance(problem, TollProblem):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"Expected a toll problem, got {type(problem).__name__}.")
        return _Run(self, problem, context).result()


def in_own_units(problem: TollProblem) -> tuple[TollProblem, float, float]:
    """The problem with costs and trips of usual size, and the powers of ten that they were divided by."""
    cost, trips = problem.network.scale, power_of_ten(float(problem.trips.mean()))
    if USUAL_COSTS[0] <= cost <= USUAL_COSTS[1]:
        cost = 1.0
    if USUAL_TRIPS[0] <= trips <= USUAL_TRIPS[1]:
        trips = 1.0
    if cost == trips == 1.0:
        return problem, 1.0, 1.0
    old = problem.network
    closed = [old.nodes[v] for v in sorted(old.no_through)]
    network = Network([Arc(a.tail, a.head, a.cost / cost) for a in old.arcs], old.nodes, closed)
    demands = [Demand(d.origin, d.destination, d.trips / trips) for d in problem.demands]
    tollable = [old.labels[a] for a in problem.tollable]
    return TollProblem(network, demands, tollable, name=problem.name), cost, trips


class _Run:
    """One run: sweeps, the search, exact tolls, and what may be claimed of them."""

    def __init__(self, options: TollPricing, problem: TollProblem, context: RunContext) -> None:
        self.options = options
        self.original = problem
        self.problem, self.cost_unit, self.trips_unit = in_own_units(problem)
        self.context = context
        self.best = answered(self.problem, np.zeros(len(problem.tollable)))
        self.listed: Enumeration | None = None

    @property
    def unit(self) -> float:
        """Revenue of the user's problem for one unit of revenue here."""
        return self.cost_unit * self.trips_unit

    def result(self) -> Result:
        """An interrupt from the keyboard keeps the best tolls so far."""
        try:
            return self._solve()
        except KeyboardInterrupt:
            return self._assemble(Solution(SolveStatus.INTERRUPTED), {})

    def _solve(self) -> Result:
        problem, context = self.problem, self.context
        self._sweep()
        if not (context.stopped or context.expired):
            self._perturb()
        if context.stopped or context.expired:
            return self._assemble(Solution(SolveStatus.INTERRUPTED if context.stopped else SolveStatus.TIME_LIMIT), {})
        reduction = SingleLevel(self.options.formulation, self.options.big_m, self.listed)
        target = reduction.apply(problem)
        binaries = sum(c.integer for c in target.columns)
        context.report(
            "phase",
            message=f"branch and bound: {len(target.columns)} columns, {binaries} binary, {len(target.rows)} rows; "
            f"routes listed for {reduction.by_routes} pairs",
        )
        if not binaries:  # no pair saves anything by a tollable arc: the bound is 0, and no toll earns it
            return self._assemble(Solution(SolveStatus.OPTIMAL, bound=0.0), {})
        backend = pick(target, self.options.backend)
        how = settings(
            context,
            problem.program().leader,
            gap=self.options.gap,
            options={**(SEARCH if backend.name == "scip" else {}), **self.options.backend_options},
            start=reduction.point(self.best.tolls),
        )
        solution = backend.solve(target, replace(how, progress=self._in_users_units(how.progress)))
        if solution.status not in _TERMINATIONS:
            raise BackendError(
                f"{backend.name} ended {solution.status}, but the program always has a solution. {solution.message}"
            )
        if solution.values is not None:
            self._consider(settle(problem, reduction.invert(solution.values)[: len(problem.tollable)]))
        return self._assemble(solution, {backend.name: backend.version()})

    def _in_users_units(self, progress: Progress | None) -> Progress | None:
        """The run hears of revenue in the user's units."""
        if progress is None or self.unit == 1.0:
            return progress

        def told(objective: float | None, bound: float | None, nodes: int) -> bool:
            objective = None if objective is None else objective * self.unit
            return progress(objective, None if bound is None else bound * self.unit, nodes)

        return told

    def _sweep(self) -> None:
        context, options = self.context, self.options
        if not options.sweeps:
            return
        context.report("phase", message="sweeping for first tolls")
        left = context.remaining()
        end = context.elapsed + (SWEEP_SECONDS if left is None else min(SWEEP_SECONDS, SWEEP_SHARE * left))

        def stop() -> bool:
            return context.stopped or context.elapsed >= end

        for tolls in sweep_starts(self.problem, options.sweeps, context.seed, stop)[:1]:
            self._improve(tolls)

    def _improve(self, tolls: np.ndarray) -> None:
        if self._consider(settle(self.problem, tolls)):
            self.context.report("incumbent", objective=self.best.revenue * self.unit, bound=self.original.bound)

    def _perturb(self) -> None:
        """Iterated local search over a table of routes."""
        context, count = self.context, self.options.perturbations
        if not count:
            return
        self.listed = enumerate_routes(self.problem)
        table = RouteTable.of(self.problem, self.listed)
        if table is None:
            return
        context.report("phase", message="local searches from perturbed tolls")
        left = context.remaining()
        end = context.elapsed + (PERTURB_SECONDS if left is None else min(PERTURB_SECONDS, SWEEP_SHARE * left))

        def stop() -> bool:
            return context.stopped or context.elapsed >= end

        for tolls in perturbed(self.problem, table, self.best.tolls, count, context.seed, stop):
            self._improve(tolls)

    def _consider(self, found: Settled) -> bool:
        better = found.revenue > self.best.revenue
        if better:
            self.best = found
        return better

    def _assemble(self, solution: Solution, versions: dict[str, str]) -> Result:
        """The best tolls with the proven bound, and as much of a claim as the two allow."""
        problem, best = self.problem, self.best
        told = -solution.bound if math.isfinite(solution.bound) else math.inf
        bound = min(problem.bound, told)
        scale = max(abs(best.revenue), TINY * problem.bound)
        claim, message = Claim.FEASIBLE, ""
        if best.revenue > bound + TOLERANCE * scale:
            message = (
                f"The backend reports that no tolls earn more than {bound * self.unit:.9g}, but these do: its bound is "
                "not used."
            )
            bound = problem.bound
        else:
            bound = max(bound, best.revenue)
            if bound - best.revenue <= TOLERANCE * scale:
                claim = Claim.GLOBAL
            elif solution.status is SolveStatus.OPTIMAL:
                gap = (bound - best.revenue) / scale
                message = f"The search stopped at a relative gap of {gap:.2g}: better tolls within it are not excluded."
        termination = Termination.CONVERGED if claim is Claim.GLOBAL else _TERMINATIONS[solution.status]
        return with_point(
            self.original,
            self.original.values(best.tolls * self.cost_unit, best.routes),
            self.context,
            termination=termination,
            claim=claim,
            bound=-bound * self.unit,
            counts={"nodes": solution.nodes},
            versions=versions,
            message=message,
        )
