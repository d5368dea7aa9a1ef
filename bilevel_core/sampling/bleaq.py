"""Mapping-based evolution: models of the follower's answer and of its optimal value say which points are solved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bilevel_core.sampling.archive import Archive, Levels, Member, Prediction
from bilevel_core.sampling.base import Sampler, Score, Trial
from bilevel_core.sampling.mapping import Mapping
from bilevel_core.sampling.space import Space

SMALLEST, LARGEST = 1e-7, 0.5
"""Radius of the region of a refinement, as a share of each variable's range."""
STALLED = 1e-3
"""Radius below which the refinement of the best point leaves more trials to the search elsewhere."""
GENERATIONS, MEMBERS = 12, 24
"""Of the evolution on predictions alone that says where else a better point may be."""
NEAR = 1e-9
"""Points closer than this in the unit cube are one."""
BASIN = 0.02
"""A point this near to the best one, predicted by a search of all of the space, is no other basin."""


@dataclass
class _Second:
    """Another basin that is being looked into.

    Attributes:
        member: its best point so far.
        radius: of the region of the next refinement.
        left: trials that it still gets.
    """

    member: Member
    radius: float
    left: int


class BleaqSampler(Sampler):
    """Evolution and refinement on models of x -> y*(x) and x -> phi(x); one lower-level solve for the best prediction.

    Offspring of the best points are judged by the leader's objective at the *predicted* answer, and only the best of
    them is solved, from the prediction. Every other trial refines the best point: ``min F(x, y*(x))`` over the model of
    the answer or, where that fails, ``min F(x, y)`` subject to ``f(x, y) <= phi(x)`` over the model of the value, which
    also serves answers that are not unique; both within a region that grows with success. Now and then, and more often
    once that stalls, a whole evolution runs on predictions alone; where it ends in another basin, that one is refined
    as well, for some trials.

    Good at: smooth followers, few upper variables (up to ten or so), expensive lower levels. Bad at: integers, answers
    that jump. Source: Sinha, Malo and Deb (2017); Sinha, Lu, Deb and Malo (2020); Sinha and Shaikh (2021). What differs
    from theirs: steady state instead of generations, and a trust region in place of a local search at intervals.

    Args:
        space: what to sample: continuous variables only.
        seed: for everything random.
        levels: the problem at any (x, y).
        model: ``quadratic`` or ``kriging``.
        population: how many of the best points have offspring.
        offspring: how many predictions are made for one solve.
        starts: points to try first.

    Attributes:
        archive: points whose lower level has been solved.
    """

    wants_answers: ClassVar[bool] = True

    def __init__(
        self,
        space: Space,
        seed: int,
        levels: Levels,
        model: str,
        population: int,
        offspring: int,
        starts: tuple[np.ndarray, ...] = (),
    ) -> None:
        super().__init__(space, seed, starts)
        self.archive = Archive(space, levels, model)
        self._population, self._offspring = population, offspring
        self._radius = {"reaction": 0.25, "value": 0.25}
        self._mode = "reaction"
        self._kinds: dict[int, str] = {}
        self._second: _Second | None = None

    @property
    def figures(self) -> dict[str, float]:
        """See `Sampler.figures`."""
        return {"radius": self._radius[self._mode]}

    def _propose(self, rng: np.random.Generator) -> Trial | None:
        n = len(self.space)
        if len(self.archive.members) < 2 * n + 2 or not self.archive.best.score.objectives:
            return self.trial(self.space.random(rng))
        stalled = max(self._radius.values()) < STALLED
        if self.asked % (4 if stalled else 8) == 3 and not self._flying("elsewhere", "second"):
            found = self._elsewhere(rng)
            if found is not None:
                return self._made(*found)
        if self.asked % 2 and not self._flying("reaction", "value"):
            found = self._refined()
            if found is not None:
                return self._made(self._mode, found)
        return self._made("evolve", self._evolved(rng))

    def _flying(self, *kinds: str) -> bool:
        """Whether a trial of these kinds is on its way."""
        return any(k in kinds for k in self._kinds.values())

    def _made(self, kind: str, found: Prediction) -> Trial:
        self._kinds[self.asked] = kind
        return self.trial(self.space.from_unit(found.u), start=found.y)

    def _learn(self, trial: Trial, score: Score) -> None:
        kind = self._kinds.pop(trial.index, "evolve")
        members = self.archive.members
        better = not members or score.rank < self.archive.best.score.rank
        if kind in self._radius:
            radius = self._radius[kind] * (2.0 if better else 0.4)
            self._radius[kind] = min(LARGEST, radius)
            if radius < SMALLEST:
                self._radius[kind] = 0.1
            if not better:
                self._mode = "value" if kind == "reaction" else "reaction"
        if score.answer is None or not score.objectives:
            if kind == "second":
                self._second = None
            return
        member = Member(self.space.to_unit(trial.point), score.answer, score, trial.index)
        self.archive.add(member)
        if better and kind in ("elsewhere", "second"):
            # The refinement of the best point goes on from here.
            self._second = None
            self._radius = dict.fromkeys(self._radius, 0.1)
        elif kind == "elsewhere":
            self._second = _Second(member, 0.1, len(self.space) + 2)
        elif kind == "second" and self._second is not None:
            self._follow(self._second, member)

    def amend(self, trial: int, score: Score) -> None:
        """See `Sampler.amend`: an answer that was a local optimum of the follower's must not be refined any more."""
        if score.answer is not None:
            self.archive.amend(trial, score.answer, score)
            self._radius = dict.fromkeys(self._radius, 0.1)

    def _follow(self, second: _Second, member: Member) -> None:
        """What a refinement of the other basin means for it."""
        if member.score.rank < second.member.score.rank:
            second.member, second.radius = member, min(0.25, 2.0 * second.radius)
        else:
            second.radius *= 0.4
        second.left -= 1
        if second.left <= 0 or second.radius < STALLED:
            self._second = None

    # Offspring.

    def _evolved(self, rng: np.random.Generator) -> Prediction:
        """The most promising of several offspring."""
        ranked = self.archive.ranked(self._population)
        best = ranked[0]
        candidates: list[Prediction] = []
        for _ in range(self._offspring):
            a, b, c = (ranked[int(i)].u for i in rng.integers(len(ranked), size=3))
            u = a + rng.uniform(0.0, 1.0) * (best.u - a) + rng.uniform(0.4, 0.9) * (b - c)
            moved = rng.random(len(u)) < 1.0 / len(u)
            u = np.where(moved, u + 0.1 * rng.normal(size=len(u)), u)
            u = np.clip(np.where((u < 0.0) | (u > 1.0), rng.uniform(size=len(u)), u), 0.0, 1.0)
            if self.archive.distance(u) >= NEAR:
                candidates.append(self.archive.predict(u))
        if not candidates:
            return self.archive.predict(rng.uniform(size=len(self.space)))
        return min(candidates, key=lambda c: c.rank)

    # Other basins.

    def _elsewhere(self, rng: np.random.Generator) -> tuple[str, Prediction] | None:
        """The next trial of the search away from the best point; None where the models know of nothing better."""
        second = self._second
        if second is not None:
            found = self._reacted(second.member, second.radius)
            if found is not None:
                return "second", found
            self._second = None
        best = self.archive.best
        found = self._evolution(rng)
        near = float(np.abs(found.u - best.u).max()) < BASIN
        if near or not found.rank < best.score.rank or self.archive.distance(found.u) < NEAR:
            return None
        return "elsewhere", found

    def _evolution(self, rng: np.random.Generator) -> Prediction:
        """The best of an evolution on predictions alone (differential evolution, as `DifferentialSampler`)."""
        n = len(self.space)
        start = [m.u for m in self.archive.ranked(MEMBERS // 3)]
        start += list(rng.uniform(size=(MEMBERS - len(start), n)))
        members = [self.archive.predict(u) for u in start]
        for _ in range(GENERATIONS):
            best = min(members, key=lambda m: m.rank)
            for k, member in enumerate(members):
                a, b = (members[int(i)].u for i in rng.choice(len(members), 2, replace=False))
                scale, rate = rng.uniform(0.4, 0.9), rng.choice([0.2, 0.9])
                goal = best.u if rng.random() < 0.5 else members[int(rng.integers(len(members)))].u
                donor = member.u + scale * (goal - member.u) + scale * (a - b)
                taken = rng.random(n) < rate
                taken[int(rng.integers(n))] = True
                donor = np.where((donor < 0.0) | (donor > 1.0), rng.uniform(size=n), donor)
                child = self.archive.predict(np.where(taken, donor, member.u))
                if child.rank <= member.rank:
                    members[k] = child
        return min(members, key=lambda m: m.rank)

    # Refinement.

    def _new(self, u: np.ndarray, answer: Mapping) -> Prediction | None:
        """A point with its predicted answer, unless it is known."""
        u = np.clip(u, 0.0, 1.0)
        pending = [self.space.to_unit(t.point) for t in self.pending.values()]
        if self.archive.distance(u) < NEAR or any(float(np.abs(p - u).max()) < NEAR for p in pending):
            return None
        return Prediction(u, self.archive.clipped(answer(u)), (0, 0.0))

    def _reacted(self, around: Member, radius: float) -> Prediction | None:
        """The best point near a known one, as the model of the answer says; None where it is not new."""
        answer = self.archive.mapping(around.u, "answer")
        low, high = np.maximum(around.u - radius, 0.0), np.minimum(around.u + radius, 1.0)
        found = self._minimise(
            around.u,
            low,
            high,
            lambda v: self.archive.joint(v, self.archive.clipped(answer(v))),
            lambda v, f: 0.0,
            lower=False,
        )
        return None if found is None else self._new(found, answer)

    def _valued(self, around: Member, radius: float) -> Prediction | None:
        """The same as the model of the follower's value says."""
        levels, n = self.archive.levels, len(around.u)
        value = self.archive.mapping(around.u, "value")
        low, high = np.maximum(around.u - radius, 0.0), np.minimum(around.u + radius, 1.0)
        found = self._minimise(
            np.concatenate([around.u, around.y]),
            np.concatenate([low, levels.y_lower]),
            np.concatenate([high, levels.y_upper]),
            lambda v: self.archive.joint(v[:n], v[n:]),
            lambda v, f: f.lower - float(value(v[:n])[0]),
            lower=True,
        )
        return None if found is None else self._new(found[:n], self.archive.mapping(around.u, "answer"))

    def _refined(self) -> Prediction | None:
        """A better point near the best one, as a model says; None where it says of none."""
        radius = self._radius[self._mode]
        refine = self._reacted if self._mode == "reaction" else self._valued
        new = refine(self.archive.best, radius)
        if new is None:
            self._radius[self._mode] = max(SMALLEST, 0.4 * radius)
            self._mode = "value" if self._mode == "reaction" else "reaction"
        return new

    def _minimise(
        self, start: np.ndarray, low: np.ndarray, high: np.ndarray, at: Any, gap: Any, *, lower: bool
    ) -> np.ndarray | None:
        """Sequential quadratic programming on the model, its derivatives by differences."""
        from scipy.optimize import minimize

        here = at(start)
        if here is None:
            return None
        size = max(1.0, abs(here.upper))

        def value(v: np.ndarray) -> float:
            found = at(v)
            return 1e10 if found is None else found.upper / size

        def inequalities(v: np.ndarray) -> np.ndarray:
            found = at(v)
            if found is None:
                return np.full(count, -1e10)
            parts = [found.upper_g]
            if lower:
                parts += [found.lower_g, np.array([gap(v, found)])]
            return -np.concatenate(parts)

        def equalities(v: np.ndarray) -> np.ndarray:
            found = at(v)
            if found is None:
                return np.full(same, 1e10)
            return np.concatenate([found.upper_h, found.lower_h] if lower else [found.upper_h])

        count = len(here.upper_g) + (len(here.lower_g) + 1 if lower else 0)
        same = len(here.upper_h) + (len(here.lower_h) if lower else 0)
        rows: list[dict[str, Any]] = []
        if count:
            rows.append({"type": "ineq", "fun": inequalities})
        if same:
            rows.append({"type": "eq", "fun": equalities})
        with np.errstate(all="ignore"):
            found = minimize(
                value,
                np.clip(start, low, high),
                method="SLSQP",
                bounds=list(zip(low, high, strict=True)),
                constraints=rows,
                options={"maxiter": 30, "ftol": 1e-10},
            )
        return np.asarray(found.x, dtype=float) if np.isfinite(found.x).all() else None
