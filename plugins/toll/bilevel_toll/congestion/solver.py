"""`toll-design`: tolls or capacities against user equilibrium, by derivatives from several starts and a polish.

Good at: smooth pieces, tens of variables, a few dozen equilibria in all. Bad at: proving anything: the function has
kinks where routes come into use, and several local minima. Only total time has a bound, that of the system optimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from bilevel_core.errors import MissingError, UsageError
from bilevel_core.result import Claim, Result, Termination, Values
from bilevel_core.run import RunContext
from bilevel_core.sampling import Score
from bilevel_core.solvers.base import Accepted, Refused, Solver
from bilevel_core.solvers.descent import option
from bilevel_core.traits import Traits
from bilevel_toll.congestion.design import NetworkDesign
from bilevel_toll.congestion.equilibrium import Flows, user_equilibrium
from bilevel_toll.congestion.objectives import Aim
from bilevel_toll.congestion.pieces import Piece, descend
from bilevel_toll.congestion.problem import STRUCTURE, TrafficProblem
from bilevel_toll.congestion.tolls import CongestedTolls

SHARES = (1.0, 0.5, 0.25, 0.125)
"""First tolls: these shares of the marginal costs at the system optimum, and none."""
RANDOM = 0.5
"""Random first tolls are up to this share of the marginal costs, which are too high where not all arcs are tolled."""
APART = 0.1
"""Points of CMA-ES from which searches may start differ by this share of a variable's range."""
CURVED_STARTS, STARTS = 9, 4
"""Searches by derivatives, with and without second ones."""
PROVEN = 1e-6
"""A total time is called optimal when the system optimum is this close (relative)."""
GRADIENT = 1e-4
"""Stationary: the projected gradient times the range of the variables, as a share of the objective."""
ROUNDS, ENOUGH = 3, 1e-7
"""Most rounds of polishing, and the relative gain that makes another one worth while."""
SAME = 1e-9
"""Two neighbours' values that differ by less (relative) are the same."""


class _EndError(Exception):
    """The budget, the time or the user's patience is over."""


@dataclass(frozen=True)
class TollDesign(Solver):
    """Descent through the equilibrium's sensitivity from several starts, then a search without gradients.

    Tolls have second derivatives, too, and take Newton steps on the pieces that the used routes make (see `pieces`);
    capacities, and networks on which more than 1,000 routes are used, take gradient steps (L-BFGS-B).

    Sources: Tobin and Friesz (1988) for derivatives of equilibria; Verhoef (2002) for second-best tolls; the polish is
    COBYQA (Ragonneau 2022).
    """

    starts: int = option(
        -1,
        "searches by derivatives: from the best of zero, shares of marginal costs, and random points; -1: 9 where "
        "second derivatives are known, else 4",
    )
    random: int = option(4, "random points among those that starts are chosen from")
    global_solves: int = option(-1, "equilibria for CMA-ES before the gradient; -1: 300 for revenue, none for others")
    polish: int = option(
        -1,
        "equilibria for the search without gradients; -1: none where second derivatives are known, else 12 for each "
        "variable, at most 400",
    )
    solves: int = option(2000, "budget: most equilibria in all")
    tolerance: float = option(1e-10, "relative decrease of the objective at which a gradient search ends")

    def __post_init__(self) -> None:
        for name, least in (("starts", -1), ("random", 0), ("global_solves", -1), ("polish", -1), ("solves", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"Expected {name} of at least {least}, got {getattr(self, name)}.")
        if self.starts == 0:
            raise UsageError("Expected starts of at least 1, or -1 for the default, got 0.")
        if not 0.0 < self.tolerance < 1.0:
            raise UsageError(f"Expected a tolerance in (0, 1), got {self.tolerance!r}.")

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Problems whose follower is a user equilibrium."""
        if STRUCTURE not in traits.structure:
            return Refused("its follower is no user equilibrium of a network", "a general solver")
        return Accepted("hypergradients of the equilibrium from several starts, then COBYQA", "global")

    def run(self, problem: TrafficProblem, context: RunContext) -> Result:
        """See `Solver.run`."""
        if not isinstance(problem, TrafficProblem):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"Expected a problem with a user equilibrium, got {type(problem).__name__}.")
        if len(problem.aims) > 1:
            raise UsageError(
                f"The problem has {len(problem.aims)} objectives, and this solver takes one: use sample.nsga2."
            )
        if isinstance(problem, NetworkDesign) and problem.budget is not None:
            raise UsageError("The problem has a budget, and this solver takes bounds only: use a sampling solver.")
        return _Search(self, problem, context).result()


class _Search:
    def __init__(self, options: TollDesign, problem: TrafficProblem, context: RunContext) -> None:
        self.options, self.problem, self.context = options, problem, context
        self.aim: Aim = problem.aims[0]
        variables: Any = problem.space.variables
        self.lower = np.array([float(v.lower) for v in variables])
        self.upper = np.array([float(v.upper) for v in variables])
        self.whole = problem.space.finite
        self.counts = {"lower_solves": 0, "gradients": 0, "newton_steps": 0}
        self.last: Flows = problem.untouched
        self.best: tuple[float, np.ndarray, Flows] | None = None
        self.found: tuple[float, np.ndarray, Flows] | None = None
        self.bound: float | None = None
        self.gradient_size: float | None = None
        self.curved = False

    # Asking the users.

    def value(self, x: np.ndarray, *, final: bool = False) -> float:
        """The objective at a point; with whole variables only points that are whole count as found."""
        if self.context.stopped or self.context.expired or self.counts["lower_solves"] >= self.options.solves:
            raise _EndError
        x = np.clip(x, self.lower, self.upper)
        flows = self.problem.flows(x, self.last)
        self.counts["lower_solves"] += 1
        self.counts["newton_steps"] += flows.newton_steps
        if not flows.converged:
            return float("inf")
        self.last = flows
        value = self.problem.value(x, flows, self.aim)
        if self.best is None or value < self.best[0]:
            self.best = (value, x.copy(), flows)
        if (final or not self.whole) and (self.found is None or value < self.found[0]):
            self.found = (value, x.copy(), flows)
            self.context.report("incumbent", objective=value, bound=self.bound)
        return value

    def slope(self, x: np.ndarray) -> np.ndarray:
        """The gradient at the point asked last."""
        self.counts["gradients"] += 1
        return self.problem.gradient(np.clip(x, self.lower, self.upper), self.last)[0]

    # The search.

    def result(self) -> Result:
        """Run all phases; what ends them early leaves the best point so far."""
        ended = False
        try:
            self._search()
        except _EndError:
            ended = True
        except KeyboardInterrupt:
            self.context.stop()
            ended = True
        if self.found is None:
            # Nothing whole has been tried yet: the lower bounds are a point, too.
            x = np.ceil(self.lower) if self.whole else self.lower
            flows = self.problem.flows(x, self.problem.untouched)
            self.found = (self.problem.value(x, flows, self.aim), x, flows)
        return self._assemble(ended)

    def _search(self) -> None:
        self.context.report("phase", message="first points")
        pool = self._pool()
        if self._optimal() and not self.whole:
            return
        self._global(pool)
        # No toll first: it is what planners compare with, and seldom far from a good one. Then the best.
        ranked = [*pool[:1], *sorted(pool[1:], key=lambda item: item[0])]
        ends: list[float] = []
        self.curved = self.problem.hessian(pool[0][1], self.problem.untouched) is not None
        starts = self.options.starts if self.options.starts > 0 else CURVED_STARTS if self.curved else STARTS
        for k, (_, x) in enumerate(ranked[:starts]):
            self.context.report("phase", message=f"search by derivatives {k + 1}")
            ends.append(self._descend(x))
            if self._optimal():
                break
        if not self._optimal():
            self._polish()
        if self.whole:
            self._round()

    def _pool(self) -> list[tuple[float, np.ndarray]]:
        problem, rng = self.problem, np.random.default_rng(self.context.seed)
        points = [self.lower.copy()]
        scale = 0.25 * (self.upper - self.lower)
        optimum: Flows | None = None
        if self.aim in ("time", "welfare", "emissions"):
            optimum = user_equilibrium(problem.traffic, system=True, start=problem.untouched)
            self.counts["lower_solves"] += 1
        if isinstance(problem, CongestedTolls) and optimum is not None:
            marginal = problem.marginal(optimum)
            points += [np.clip(share * marginal, self.lower, self.upper) for share in SHARES]
            scale = RANDOM * np.minimum(marginal, self.upper)
            if self.aim == "time":
                self.bound = optimum.total_time
        else:
            points += [self.lower + share * (self.upper - self.lower) for share in (0.5, 0.25, 0.1)]
        if not isinstance(problem, CongestedTolls) or optimum is None:
            scale = self.upper - self.lower
        points += [
            np.clip(self.lower + rng.uniform(0.0, 1.0, len(scale)) * scale, self.lower, self.upper)
            for _ in range(self.options.random)
        ]
        return [(self.value(x), x) for x in points]

    def _global(self, pool: list[tuple[float, np.ndarray]]) -> None:
        """CMA-ES by the core's sampler; the best of its points that are apart from each other join the pool."""
        count = self.options.global_solves
        if count == 0 or (count < 0 and self.aim != "revenue"):
            return
        from bilevel_core.sampling.generations import CmaSampler

        best = min(pool, key=lambda item: item[0])[1]
        try:
            sampler = CmaSampler(self.problem.space, self.context.seed, 0.25, 0, (self.problem.space.canonical(best),))
        except MissingError:
            if count > 0:
                raise
            self.context.report("phase", message="CMA-ES is left out: the package cma is not installed")
            return
        self.context.report("phase", message="CMA-ES")
        tried: list[tuple[float, np.ndarray]] = []
        for _ in range(300 if count < 0 else count):
            trial = sampler.ask()
            if trial is None:
                break
            value = self.value(trial.point)
            tried.append((value, trial.point))
            sampler.tell(trial, Score((value,), 0.0))
        size, chosen = self.upper - self.lower, list[np.ndarray]()
        for value, x in sorted(tried, key=lambda item: item[0]):
            if all(np.abs((x - other) / size).max() > APART for other in chosen):
                chosen.append(x)
                pool.append((value, x))

    def _around(self, x: np.ndarray) -> Piece:
        value = self.value(x)
        n = len(x)
        if not np.isfinite(value):
            return Piece(x, value, np.zeros(n), np.zeros((n, n)))
        hessian = self.problem.hessian(x, self.last)
        return Piece(x, value, self.slope(x), np.zeros((n, n)) if hessian is None else hessian)

    def _descend(self, x: np.ndarray) -> float:
        if self.curved:
            return descend(self._around, x, self.lower, self.upper, tolerance=self.options.tolerance).value
        size = self._sizes()
        base = abs(self.value(x)) or 1.0

        def both(z: np.ndarray) -> tuple[float, np.ndarray]:
            value = self.value(z * size)
            return value / base, self.slope(z * size) * size / base

        bounds = list(zip(self.lower / size, self.upper / size, strict=True))
        options: Any = {"ftol": self.options.tolerance, "gtol": 1e-8, "maxfun": 100, "maxiter": 100}
        found = minimize(both, x / size, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return float(found.fun) * base

    def _sizes(self) -> np.ndarray:
        """The variables' scales: a tenth of their ranges."""
        return 0.1 * (self.upper - self.lower)

    def _polish(self) -> None:
        """Rounds of COBYQA with smaller and smaller first steps, each followed by gradient steps, while they help."""
        count = self.options.polish
        if count < 0:
            count = 0 if self.curved else min(400, 12 * len(self.lower))
        radius = 0.1
        for _ in range(ROUNDS if count else 0):
            assert self.best is not None
            before = self.best[0]
            self.context.report("phase", message="search without gradients")
            self._cobyqa(self.best[1], count, radius)
            self._descend(self.best[1])
            radius *= 0.2
            if self.best[0] >= before - ENOUGH * abs(before):
                return

    def _cobyqa(self, x: np.ndarray, count: int, radius: float) -> None:
        n, size, base = len(x), self._sizes(), abs(self.value(x)) or 1.0
        if count <= 2 * n + 2:  # fewer than its first model takes
            return
        minimize(
            lambda z: self.value(z * size) / base,
            x / size,
            method="COBYQA",
            bounds=list(zip(self.lower / size, self.upper / size, strict=True)),
            options={
                "maxfev": count,
                "initial_tr_radius": radius,
                "final_tr_radius": 1e-4 * radius,
            },
        )

    def _round(self) -> None:
        """Whole variables: the nearest point, then one step in one variable at a time while that helps."""
        assert self.best is not None
        self.context.report("phase", message="whole steps")
        x = np.clip(np.round(self.best[1]), self.lower, self.upper)
        value = self.value(x, final=True)
        better = True
        while better:
            better = False
            for k in range(len(x)):
                for step in (1.0, -1.0):
                    other = x.copy()
                    other[k] += step
                    if not self.lower[k] <= other[k] <= self.upper[k]:
                        continue
                    tried = self.value(other, final=True)
                    if tried < value - SAME * abs(value):
                        x, value, better = other, tried, True
                        break

    def _optimal(self) -> bool:
        return self.bound is not None and self.found is not None and self.found[0] <= self.bound * (1.0 + PROVEN)

    # What may be said.

    def _stationary(self, x: np.ndarray, flows: Flows, value: float) -> bool:
        """Whether the projected gradient vanishes, relative to the objective over the variables' range."""
        gradient, residual = self.problem.gradient(x, flows)
        spread = self.upper - self.lower
        move = np.clip(x - gradient * spread, self.lower, self.upper) - x
        size = float(np.abs(np.where(np.abs(move) < 1e-12 * spread, 0.0, gradient) * spread).max(initial=0.0))
        self.gradient_size = size / max(abs(value), 1e-300)
        return residual < 1e-6 and self.gradient_size <= GRADIENT

    def _assemble(self, ended: bool) -> Result:
        assert self.found is not None
        value, x, flows = self.found
        claim, notes = Claim.FEASIBLE, list[str]()
        if self._optimal():
            claim = Claim.GLOBAL
            notes.append("The total time is that of the system optimum: no tolls do better.")
        elif not self.whole and self._stationary(x, flows, value):
            claim = Claim.STATIONARY
        if claim is not Claim.GLOBAL:
            starts = f"{self.counts['gradients']} gradients and {self.counts['lower_solves']} equilibria"
            notes.append(f"Best found with {starts}; better points are not excluded.")
        termination = Termination.CONVERGED
        if ended and not self._optimal():
            termination = (
                Termination.STOPPED_BY_USER
                if self.context.stopped
                else Termination.TIME_LIMIT
                if self.context.expired
                else Termination.ITERATION_LIMIT
            )
        return Result(
            termination=termination,
            claim=claim,
            x=self.problem.values(x),
            y=Values({"flow": self.problem.split(flows)}),
            upper_objective=value,
            lower_objective=flows.potential,
            bound=None if self.bound is None else min(self.bound, value),
            trace=tuple(self.context.trace),
            counts=self.counts,
            message=" ".join(notes),
        )
