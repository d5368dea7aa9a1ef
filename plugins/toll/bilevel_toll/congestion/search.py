"""The search of `toll-design` over one problem: first points, CMA-ES, ways downhill, a polish, whole steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize

from bilevel_core.errors import MissingError
from bilevel_core.run import RunContext
from bilevel_core.sampling import Score
from bilevel_toll.congestion.answers import Answers
from bilevel_toll.congestion.asking import Asker, EndError, Task, Way
from bilevel_toll.congestion.equilibrium import Flows, least_time, user_equilibrium
from bilevel_toll.congestion.fan import Fan
from bilevel_toll.congestion.problem import TrafficProblem
from bilevel_toll.congestion.tolls import CongestedTolls

if TYPE_CHECKING:
    from bilevel_toll.congestion.solver import TollDesign

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
ROUNDS, ENOUGH = 3, 1e-7
"""Most rounds of polishing, and the relative gain that makes another one worth while."""
SAME = 1e-9
"""Two neighbours' values that differ by less (relative) are the same."""


class Progress:
    """What a run has found and done so far, over all its phases.

    Attributes:
        counts: work done.
        found: the best value, and its point in the problem's own variables.
        bound: below which no value can be; None where none is known.
        notes: for the result's message.
        most: equilibria at which the phase ends; None for the budget of all.
    """

    def __init__(self, options: TollDesign, problem: TrafficProblem, context: RunContext, answers: Answers) -> None:
        self.options, self.problem, self.context, self.answers = options, problem, context, answers
        self.counts = {"lower_solves": 0, "gradients": 0, "newton_steps": 0}
        self.found: tuple[float, np.ndarray] | None = None
        self.bound: float | None = None
        self.notes: list[str] = []
        self.most: int | None = None

    def left(self) -> int:
        """Equilibria that are left of the budget."""
        most = self.options.solves if self.most is None else min(self.most, self.options.solves)
        return max(0, most - self.counts["lower_solves"])

    def phase(self, text: str) -> None:
        """Tell what begins."""
        if not self.answers.replaying:
            self.context.report("phase", message=text)

    def better(self, value: float, point: np.ndarray) -> None:
        """Keep a point that may be reported, if it is the best."""
        if self.found is None or value < self.found[0]:
            self.found = (value, point.copy())
            self.answers.keep(value, point)
            trace = self.context.trace
            # A run that goes on finds again what it has told already.
            if not trace or value < (trace[-1]["objective"] or 0.0):
                self.context.report("incumbent", objective=value, bound=self.bound)

    @property
    def optimal(self) -> bool:
        """Whether no point can be better than the one found, by more than `PROVEN`."""
        return self.bound is not None and self.found is not None and self.found[0] <= self.bound * (1.0 + PROVEN)

    def take(self, way: Way, tell: Callable[[float, np.ndarray], None]) -> None:
        """Count a way, and tell of its points, up to the end of the budget.

        Raises:
            EndError: the budget is used up, or the way was cut short.
        """
        if way.lost:
            self.notes.append(f"A search is missing: {way.lost}")
            return
        count = min(way.count, self.left())
        for at, value, point in way.better:
            if at <= count:
                tell(value, point)
        self.counts["lower_solves"] += count
        self.counts["gradients"] += way.ledger[count][0]
        self.counts["newton_steps"] += way.ledger[count][1]
        if way.ended or way.count > count:
            raise EndError


class Search:
    """All phases on one problem.

    Args:
        progress: of the run.
        problem: the run's, or a part of it.
        fan: for ways downhill.
        groups: numbers of the run's variables that the problem has; None for all.
        given: points to start from, beside those made here.
        real: whether points may be reported; not so where a constraint is left out.
        options: in place of the run's.
    """

    def __init__(
        self,
        progress: Progress,
        problem: TrafficProblem,
        fan: Fan,
        *,
        groups: tuple[int, ...] | None = None,
        given: Sequence[np.ndarray] = (),
        real: bool = True,
        options: TollDesign | None = None,
    ) -> None:
        self.progress, self.problem, self.fan = progress, problem, fan
        self.options, self.context = options or progress.options, progress.context
        self.groups, self.given, self.real = groups, tuple(given), real
        self.aim = problem.aims[0]
        self.whole = problem.space.finite
        self.best: tuple[float, np.ndarray] | None = None
        self.curved = False
        self.asker = Asker(problem, 0, fan.halted, answers=progress.answers)
        self.lower, self.upper = self.asker.lower, self.asker.upper

    def lift(self, x: np.ndarray) -> np.ndarray:
        """A point in the run's own variables."""
        if self.groups is None:
            return x
        full = np.zeros(len(self.progress.problem.space))
        full[list(self.groups)] = x
        return full

    def run(self) -> None:
        """Search.

        Raises:
            EndError: the budget, the time or the user's patience is over.
        """
        self._phases()
        self.progress.answers.leave(self.asker)

    def _phases(self) -> None:
        self.progress.phase("first points")
        pool = self._pool()
        if self._optimal() and not self.whole:
            return
        self._nearest()
        self._global(pool)
        # No toll first: it is what planners compare with, and seldom far from a good one. Then the best.
        first = 1 + len(self.given)
        ranked = [*pool[:first], *sorted(pool[first:], key=lambda item: item[0])]
        self.curved = self.problem.hessian(pool[0][1], self.problem.untouched) is not None
        starts = self.options.starts if self.options.starts > 0 else CURVED_STARTS if self.curved else STARTS
        self._descend([x for _, x in ranked[: max(starts, first)]])
        if not self._optimal():
            self._polish()
        if self.whole:
            self._round()

    # Asking.

    def _nearest(self) -> None:
        """With whole variables, try the whole point beside the best: a run that is cut short has found that."""
        if not self.whole or not self.real or self.best is None:
            return
        value, x = self.best
        if self.progress.found is None or value < self.progress.found[0]:
            self._value(np.clip(np.round(x), self.lower, self.upper), final=True)

    def _value(self, x: np.ndarray, *, final: bool = False) -> float:
        """The objective; with whole variables only points that are whole count as found."""
        asker, counts = self.asker, self.progress.counts
        asker.budget = asker.count + self.progress.left()
        before = (asker.count, asker.newton_steps)
        value = asker.value(x)
        counts["lower_solves"] += asker.count - before[0]
        counts["newton_steps"] += asker.newton_steps - before[1]
        self._tell(value, self.problem.within(x), final=final)
        return value

    def _tell(self, value: float, x: np.ndarray, *, final: bool = False) -> None:
        if np.isfinite(value) and (self.best is None or value < self.best[0]):
            self.best = (value, x.copy())
        if np.isfinite(value) and self.real and (final or not self.whole):
            self.progress.better(value, self.lift(x))

    def _optimal(self) -> bool:
        if self.real:
            return self.progress.optimal
        bound = self.progress.bound
        return bound is not None and self.best is not None and self.best[0] <= bound * (1.0 + PROVEN)

    def _descend(self, starts: Sequence[np.ndarray]) -> None:
        """Ways downhill from some points, until one ends at the bound."""
        tasks = [Task(x, self.groups, 0, self.curved, self.options.tolerance) for x in starts]
        self.progress.phase(f"{len(tasks)} searches by derivatives")
        ways = self.fan.ways(tasks, self.progress.left, [self._tell] * len(tasks))
        try:
            for way in ways:
                self.progress.take(way, self._tell)
                self._nearest()
                if self._optimal():
                    break
        finally:
            ways.close()

    # The phases.

    def _pool(self) -> list[tuple[float, np.ndarray]]:
        problem, rng = self.problem, np.random.default_rng(self.context.seed)
        points = [self.lower.copy(), *self.given]
        scale = 0.25 * (self.upper - self.lower)
        optimum: Flows | None = None
        if self.aim == "time":
            optimum, bound = least_time(problem.traffic, problem.untouched)
            self.progress.counts["lower_solves"] += 1
            if isinstance(problem, CongestedTolls):
                self.progress.bound = bound
        elif self.aim in ("welfare", "emissions"):
            optimum = user_equilibrium(problem.traffic, system=True, start=problem.untouched)
            self.progress.counts["lower_solves"] += 1
        if isinstance(problem, CongestedTolls) and optimum is not None:
            marginal = problem.marginal(optimum)
            points += [np.clip(share * marginal, self.lower, self.upper) for share in SHARES]
            scale = RANDOM * np.minimum(marginal, self.upper)
        else:
            points += [self.lower + share * (self.upper - self.lower) for share in (0.5, 0.25, 0.1)]
        if not isinstance(problem, CongestedTolls) or optimum is None:
            scale = self.upper - self.lower
        points += [self.lower + rng.uniform(0.0, 1.0, len(scale)) * scale for _ in range(self.options.random)]
        points = [problem.within(x) for x in points]
        return [(self._value(x), x) for x in points]

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
            self.progress.phase("CMA-ES is left out: the package cma is not installed")
            return
        self.progress.phase("CMA-ES")
        tried: list[tuple[float, np.ndarray]] = []
        for _ in range(300 if count < 0 else count):
            trial = sampler.ask()
            if trial is None:
                break
            value = self._value(trial.point)
            tried.append((value, self.problem.within(trial.point)))
            sampler.tell(trial, Score((value,), 0.0))
        size, chosen = self.upper - self.lower, list[np.ndarray]()
        for value, x in sorted(tried, key=lambda item: item[0]):
            if all(np.abs((x - other) / size).max() > APART for other in chosen):
                chosen.append(x)
                pool.append((value, x))

    def _polish(self) -> None:
        """Rounds of COBYQA with smaller and smaller first steps, each followed by gradient steps, while they help."""
        count = self.options.polish
        if count < 0:
            count = 0 if self.curved else min(400, 12 * len(self.lower))
        radius = 0.1
        for _ in range(ROUNDS if count else 0):
            assert self.best is not None
            before = self.best[0]
            self.progress.phase("search without gradients")
            self._cobyqa(self.best[1], count, radius)
            self._descend([self.best[1]])
            radius *= 0.2
            if self.best[0] >= before - ENOUGH * abs(before):
                return

    def _cobyqa(self, x: np.ndarray, count: int, radius: float) -> None:
        n, size = len(x), self.asker.sizes
        if count <= 2 * n + 2:  # fewer than its first model takes
            return
        base = abs(self._value(x)) or 1.0
        limited: Any = () if self.problem.limit(x) is None else [self.asker.constraint()]
        minimize(
            lambda z: self._value(z * size) / base,
            x / size,
            method="COBYQA",
            bounds=list(zip(self.lower / size, self.upper / size, strict=True)),
            constraints=limited,
            options={
                "maxfev": count,
                "initial_tr_radius": radius,
                "final_tr_radius": 1e-4 * radius,
            },
        )

    def _round(self) -> None:
        """Whole variables: the nearest point, then one step in one variable at a time while that helps."""
        assert self.best is not None
        self.progress.phase("whole steps")
        x = np.clip(np.round(self.best[1]), self.lower, self.upper)
        value = self._value(x, final=True)
        better = True
        while better:
            better = False
            for k in range(len(x)):
                for step in (1.0, -1.0):
                    other = x.copy()
                    other[k] += step
                    if not self.lower[k] <= other[k] <= self.upper[k]:
                        continue
                    tried = self._value(other, final=True)
                    if tried < value - SAME * abs(value):
                        x, value, better = other, tried, True
                        break
