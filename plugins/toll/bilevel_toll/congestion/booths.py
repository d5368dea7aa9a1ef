"""The search of `toll-design` where only so many arcs may have a toll: which ones, and which tolls.

Which groups of arcs are tolled is their *support*. A support's value is that of its tolls after a way downhill from
those of a neighbour. Supports come from adding the most promising group to none (forward selection), and from dropping
those that are missed least from the tolls without a limit (backward elimination); then groups are exchanged while that
helps, and the best supports are searched from several starts. Which groups are tried first is said by derivatives: the
objective's quadratic model, the tolls of the support following.

Good at: dozens of groups, hundreds of equilibria. Bad at: proving anything; two groups that help only together are
found by the way from all tolls only.

Sources: Hassibi and Stork (1993), Second order derivatives for network pruning, for what is lost by dropping a
variable; Verhoef (2002), Transportation Research A 36, for choosing tolled links one after the other by derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from bilevel_toll.congestion.asking import Asker, EndError, Task
from bilevel_toll.congestion.equilibrium import least_time
from bilevel_toll.congestion.fan import Fan
from bilevel_toll.congestion.forecast import Forecast, Support
from bilevel_toll.congestion.search import SAME, Progress, Search
from bilevel_toll.congestion.sparse import sparse_tolls
from bilevel_toll.congestion.tolls import CongestedTolls

Wanted = tuple[Support, np.ndarray, int | None]
"""A support, tolls to start from of shape (n,), and the group in it that had no toll before, if it is one."""

BATCH = 4
"""Supports that are tried together; their number must not depend on who tries them."""
EXCHANGES = 24
"""Most exchanges that are tried without success before the exchanges end."""
STEPS, TOLERANCE = 12, 1e-8
"""Of a way downhill that gives a support its value: most steps, and the relative decrease at which it ends."""
PROBES = (0.03, 0.1, 0.4)
"""Further shares of it that a new toll is tried at, as a low one and a high one may lead to different routes."""
WITHOUT_LIMIT, PERTURBED, FINISHED = 0.35, 0.7, 0.95
"""Share of the budget that the search without a limit on booths may take; shares at which perturbations end, and the
search of further finalists.
"""
STARTS = 3
"""Its searches by derivatives, at most."""
FINALISTS, MORE_FINALISTS = 2, 6
"""Supports that are searched from several starts, and then from so few as `STARTS`."""
MORE = 2
"""Supports with more booths than allowed that fewer are made of, beside the largest."""
PERTURBATIONS = 12
"""Rounds of iterated local search, where the user does not say how many."""
THIRD = 3
"""Of the booths that are too many, a third is dropped at once; no more than one where they are not more than this."""


class BoothSearch:
    """Finds a support and its tolls.

    Args:
        progress: of the run.
        problem: with more arcs than may have a toll.
        fan: for ways downhill.
    """

    def __init__(self, progress: Progress, problem: CongestedTolls, fan: Fan) -> None:
        assert problem.most_booths is not None
        self.progress, self.problem, self.fan = progress, problem, fan
        self.most, self.sizes = problem.most_booths, problem.sizes
        self.count = len(problem.groups)
        self.whole = problem.space.finite
        self.known: dict[Support, tuple[float, np.ndarray]] = {}
        self.asker = Asker(problem, 0, fan.halted, answers=progress.answers)
        self.curved = False

    def run(self) -> None:
        """Search.

        Raises:
            EndError: the budget, the time or the user's patience is over.
        """
        none = np.zeros(self.count)
        self.known[()] = (self._value(none), none)
        self._tell((), *self.known[()])
        self._nearest(())
        self.curved = self.problem.hessian(none, self.problem.untouched) is not None
        self.progress.phase("one booth after the other")
        chosen = [self._fill(())]
        relaxed = self._relaxed()
        self.progress.phase("fewer and fewer booths")
        for support in [*([] if relaxed is None else [relaxed]), *self._sparse()]:
            chosen.append(self._fill(self._dropped(support)))
        if not self.progress.optimal:
            self.progress.phase("exchange of booths")
            ends = [self._exchange(support) for support in sorted(set(chosen), key=self._known)]
            self._up_to(PERTURBED, lambda: self._perturb(min(ends, key=self._known)))
        self._finish(0, FINALISTS)
        self._up_to(FINISHED, lambda: self._finish(FINALISTS, FINALISTS + MORE_FINALISTS))

    def _up_to(self, share: float, work: Callable[[], None]) -> None:
        """Work until it is done, or this share of the budget is used up.

        Raises:
            EndError: the budget, the time or the user's patience is over.
        """
        progress = self.progress
        progress.most = int(share * progress.options.solves)
        try:
            work()
        except EndError:
            if self.fan.halted() or progress.counts["lower_solves"] >= progress.options.solves:
                raise
        finally:
            progress.most = None

    # Values of supports.

    def booths(self, support: Support) -> int:
        """Booths that tolls on these groups take."""
        return int(self.sizes[list(support)].sum())

    def _known(self, support: Support) -> float:
        return self.known[support][0]

    def _value(self, x: np.ndarray) -> float:
        counts, before = self.progress.counts, self.asker.newton_steps
        self.asker.budget = self.asker.count + self.progress.left()
        value = self.asker.value(x)
        counts["lower_solves"] += 1
        counts["newton_steps"] += self.asker.newton_steps - before
        return value

    def _tell(self, support: Support, value: float, point: np.ndarray) -> None:
        if self.booths(support) <= self.most and not self.whole and np.isfinite(value):
            self.progress.better(value, point)

    def _nearest(self, support: Support) -> None:
        """With whole variables, try whole tolls beside a support's best: a run that is cut short has found those."""
        found = self.progress.found
        if self.whole and self.booths(support) <= self.most and (found is None or self._known(support) < found[0]):
            rounded = np.round(self.known[support][1])
            value = self._value(rounded)
            if np.isfinite(value):
                self.progress.better(value, rounded)

    def _evaluate(self, wanted: Sequence[Wanted]) -> None:
        """Give supports their values."""
        fresh = [w for w in wanted if w[0] not in self.known]
        tasks = [self._task(*w) for w in fresh]
        ways = self.fan.ways(tasks, self.progress.left, [None] * len(tasks))
        try:
            for (support, _, _), way in zip(fresh, ways, strict=True):
                self.known[support] = (np.inf, np.zeros(self.count))

                def take(value: float, part: np.ndarray, support: Support = support) -> None:
                    point = np.zeros(self.count)
                    point[list(support)] = part
                    self.known[support] = (value, point)
                    self._tell(support, value, point)

                self.progress.take(way, take)
                self._nearest(support)
        finally:
            ways.close()

    def _task(self, support: Support, start: np.ndarray, new: int | None) -> Task:
        """The way to a support's value; where one group is new, from the best of several tolls on it."""
        chosen = list(support)
        others: list[np.ndarray] = []
        for share in PROBES if new is not None else ():
            other = start.copy()
            other[new] = share * self.problem.bounds[1][new]
            others.append(other[chosen])
        return Task(start[chosen], support, 0, self.curved, TOLERANCE, STEPS, tuple(others))

    def _forecast(self, support: Support) -> Forecast:
        _, point = self.known[support]
        self._value(point)
        self.progress.counts["gradients"] += 1
        told = self.asker.derivatives(point, support, self.curved)
        return Forecast(support, point, told["gradient"], told["rows"], told["diagonal"], *self.problem.bounds)

    # The phases.

    def _fill(self, support: Support) -> Support:
        """Add groups one after the other while there are booths left and that helps."""
        while True:
            value, point = self.known[support]
            room = self.most - self.booths(support)
            open_groups = [k for k in range(self.count) if k not in support and self.sizes[k] <= room]
            if not open_groups:
                return support
            gain, toll = self._forecast(support).gains()
            first = sorted(open_groups, key=lambda k: (-gain[k] / self.sizes[k], k))[:BATCH]
            best = self._best([self._with(support, point, k, toll[k]) for k in first])
            if best is None or not self._known(best) < value - SAME * abs(value):
                return support
            support = best

    def _with(self, support: Support, point: np.ndarray, group: int, toll: float) -> Wanted:
        start = point.copy()
        start[group] = toll
        return tuple(sorted((*support, group))), start, group

    def _best(self, wanted: Sequence[Wanted]) -> Support | None:
        self._evaluate(wanted)
        return min((w[0] for w in wanted), key=self._known, default=None)

    def _relaxed(self) -> Support | None:
        """The groups that are tolled where all may be; None where it was not found, or is not needed."""
        options, progress = self.progress.options, self.progress
        mine = replace(
            options,
            starts=STARTS if options.starts < 0 else min(STARTS, options.starts),
            global_solves=max(options.global_solves, 0),
            polish=max(options.polish, 0),
        )
        search = Search(progress, self.problem.restricted(range(self.count)), self.fan, real=False, options=mine)
        self._up_to(progress.counts["lower_solves"] / options.solves + WITHOUT_LIMIT, search.run)
        if search.best is None:
            return None
        value, point = search.best
        tolled = self.problem.unit * point > 0.0
        support = tuple(int(k) for k in np.flatnonzero(tolled))
        if value < self.known.get(support, (np.inf, point))[0]:
            self.known[support] = (value, point)
            self._tell(support, value, point)
        return support

    def _sparse(self) -> list[Support]:
        """The groups of few tolls that make users choose nearly the system optimum: as many as booths, and a few more.

        Only where the aim is total time: of all flows the best are known.
        """
        if self.problem.aims[0] != "time" or self.progress.optimal:
            return []
        optimum, _ = least_time(self.problem.traffic, self.problem.untouched)
        self.progress.counts["lower_solves"] += 1
        by_booths: dict[int, Wanted] = {}
        for point in sparse_tolls(self.problem, optimum):
            support = tuple(int(k) for k in np.flatnonzero(point))
            if support:
                by_booths.setdefault(self.booths(support), (support, point, None))
        few = sorted(n for n in by_booths if n <= self.most)[-1:]
        many = sorted(n for n in by_booths if n > self.most)
        wanted = [by_booths[n] for n in [*few, *many[:MORE], *many[MORE:][-1:]]]
        self._evaluate(wanted)
        return [w[0] for w in wanted]

    def _dropped(self, support: Support, tries: int = BATCH) -> Support:
        """Drop groups, those first that are missed least, until there are no more booths than allowed.

        Args:
            support: to begin with.
            tries: how many to choose the last ones from by trying.
        """
        while self.booths(support) > self.most:
            _, point = self.known[support]
            loss = self._forecast(support).losses()
            order = sorted(support, key=lambda k: (loss[k] / self.sizes[k], k))
            excess = self.booths(support) - self.most
            if excess <= THIRD:
                fewer = [tuple(k for k in support if k != out) for out in order[:tries]]
            else:
                dropped: set[int] = set()
                for k in order:
                    if self.booths(tuple(dropped)) >= excess / THIRD:
                        break
                    dropped.add(k)
                fewer = [tuple(k for k in support if k not in dropped)]
            best = self._best([(s, point, None) for s in fewer])
            assert best is not None
            support = best
        return support

    def _exchange(self, support: Support, most: int = EXCHANGES) -> Support:
        """Exchange groups of the support for others, until so many did not help."""
        while True:
            value, point = self.known[support]
            moves = list(self._moves(support, point))[:most]
            for k in range(0, len(moves), BATCH):
                best = self._best(moves[k : k + BATCH])
                if best is not None and self._known(best) < value - SAME * abs(value):
                    support = best
                    break
            else:
                return support

    def _moves(self, support: Support, point: np.ndarray) -> Iterator[Wanted]:
        """Supports that differ by one group more and as few less as that takes, the most promising first."""
        forecast = self._forecast(support)
        gain, toll = forecast.gains()
        loss = forecast.losses()
        room = self.most - self.booths(support)
        outs: list[Support] = [(), *((k,) for k in support)]
        if self.sizes.min() < self.sizes.max():
            outs += combinations(support, 2)
        found: list[tuple[float, Support, int]] = []
        for new in range(self.count):
            if new in support:
                continue
            for out in outs:
                fits = self.booths(out) + room >= self.sizes[new]
                if fits and not any(self.booths(out) - self.sizes[k] + room >= self.sizes[new] for k in out):
                    found.append((float(loss[list(out)].sum() - gain[new]), out, new))
        for _, out, new in sorted(found):
            rest = tuple(k for k in support if k not in out)
            start = point.copy()
            start[list(out)] = 0.0
            wanted = self._with(rest, start, new, toll[new])
            if wanted[0] not in self.known:
                yield wanted

    def _perturb(self, support: Support) -> None:
        """Iterated local search: toll some more groups, drop as many as that takes, exchange; keep what is better."""
        marginal = 0.5 * self.problem.bounds[1]
        if self.problem.aims[0] != "revenue":
            optimum, _ = least_time(self.problem.traffic, self.problem.untouched)
            self.progress.counts["lower_solves"] += 1
            marginal = np.minimum(self.problem.marginal(optimum), self.problem.bounds[1])
        rounds = self.progress.options.perturbations
        for number in range(PERTURBATIONS if rounds < 0 else rounds):
            if self.progress.optimal:
                return
            self.progress.phase(f"perturbation {number + 1}")
            rng = np.random.default_rng([self.progress.context.seed % 2**64, number])
            others = [k for k in range(self.count) if k not in support]
            more = min((len(others) + 1) // 2, 2 * len(support) + 2)
            new = sorted(int(k) for k in rng.choice(others, more, replace=False))
            start = self.known[support][1].copy()
            start[new] = rng.uniform(0.0, 1.0, more) * marginal[new]
            wide = tuple(sorted((*support, *new)))
            self._evaluate([(wide, start, None)])
            found = self._exchange(self._fill(self._dropped(wide, tries=1)), EXCHANGES // 3)
            if self._known(found) < self._known(support):
                support = found

    def _finish(self, first: int, last: int) -> None:
        """Search the best supports, by their rank, from several starts, and for whole steps where tolls have them."""
        allowed = [s for s in self.known if s and self.booths(s) <= self.most and np.isfinite(self._known(s))]
        options = self.progress.options
        few = replace(options, starts=min(STARTS, options.starts) if options.starts > 0 else STARTS, global_solves=0)
        for support in sorted(allowed, key=self._known)[first:last]:
            if self.progress.optimal:
                return
            part = self.problem.restricted(support)
            given = (self.known[support][1][list(support)],)
            mine = options if first == 0 else few
            Search(self.progress, part, self.fan, groups=support, given=given, options=mine).run()
