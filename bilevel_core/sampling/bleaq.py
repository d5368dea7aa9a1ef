"""Mapping-based evolution: models of the follower's answer and of its optimal value say which points are solved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from bilevel_core.sampling.base import FEASIBLE, Sampler, Score, Trial
from bilevel_core.sampling.mapping import Kriging, Mapping, Polynomial
from bilevel_core.sampling.space import Space

SMALLEST, LARGEST = 1e-7, 0.5
"""Radius of the region of a refinement, as a share of each variable's range."""
ELSEWHERE = 60
"""Random predictions among which the start of a refinement elsewhere is chosen."""
NEAR = 1e-9
"""Points closer than this in the unit cube are one."""


@dataclass(frozen=True)
class Joint:
    """Both levels at any (x, y), minimised, constraints as ``<= 0`` and ``= 0``."""

    upper: float
    lower: float
    upper_g: np.ndarray
    upper_h: np.ndarray
    lower_g: np.ndarray
    lower_h: np.ndarray

    @property
    def violation(self) -> float:
        """Of the leader's constraints."""
        return max(0.0, float(self.upper_g.max(initial=0.0)), float(np.abs(self.upper_h).max(initial=0.0)))


class Levels(Protocol):
    """What the sampler may ask of the problem without a lower-level solve."""

    y_lower: np.ndarray
    y_upper: np.ndarray

    def joint(self, point: np.ndarray, y: np.ndarray) -> Joint:
        """Both levels at any point; may raise `ValueError` where one is undefined."""
        ...


@dataclass(frozen=True)
class _Member:
    """A point whose lower level has been solved."""

    u: np.ndarray
    y: np.ndarray
    score: Score
    index: int


class BleaqSampler(Sampler):
    """Evolution and refinement on models of x -> y*(x) and x -> phi(x); one lower-level solve for the best prediction.

    Offspring of the best points are judged by the leader's objective at the *predicted* answer, and only the best of
    them is solved, from the prediction. Every other trial refines the best point: ``min F(x, y*(x))`` over the model of
    the answer or, where that fails, ``min F(x, y)`` subject to ``f(x, y) <= phi(x)`` over the model of the value, which
    also serves answers that are not unique; both within a region that grows with success.

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
        self._levels, self._model = levels, model
        self._population, self._offspring = population, offspring
        self._archive: list[_Member] = []
        self._radius = {"reaction": 0.25, "value": 0.25}
        self._mode = "reaction"
        self._kinds: dict[int, str] = {}

    @property
    def figures(self) -> dict[str, float]:
        """See `Sampler.figures`."""
        return {"radius": self._radius[self._mode]}

    def _propose(self, rng: np.random.Generator) -> Trial | None:
        n = len(self.space)
        if len(self._archive) < 2 * n + 2 or not self._best.score.objectives:
            return self.trial(self.space.random(rng))
        if self.asked % 8 == 3:
            found = self._elsewhere(rng)
            if found is not None:
                self._kinds[self.asked] = "elsewhere"
                return self.trial(self.space.from_unit(found[0]), start=found[1])
        if self.asked % 2 and not any(k in self._radius for k in self._kinds.values()):
            found = self._refined()
            if found is not None:
                self._kinds[self.asked] = self._mode
                return self.trial(self.space.from_unit(found[0]), start=found[1])
        self._kinds[self.asked] = "evolve"
        u, y = self._evolved(rng)
        return self.trial(self.space.from_unit(u), start=y)

    def _learn(self, trial: Trial, score: Score) -> None:
        kind = self._kinds.pop(trial.index, "evolve")
        better = not self._archive or score.rank < self._best.score.rank
        if kind in self._radius:
            radius = self._radius[kind] * (2.0 if better else 0.4)
            self._radius[kind] = min(LARGEST, radius)
            if radius < SMALLEST:
                self._radius[kind] = 0.1
            if not better:
                self._mode = "value" if kind == "reaction" else "reaction"
        if score.answer is not None and score.objectives:
            self._archive.append(_Member(self.space.to_unit(trial.point), score.answer, score, trial.index))

    @property
    def _best(self) -> _Member:
        return min(self._archive, key=lambda m: (m.score.rank, m.index))

    def _mapping(self, centre: np.ndarray, what: str) -> Mapping:
        u = np.array([m.u for m in self._archive])
        values = np.array([m.y if what == "answer" else [m.score.value] for m in self._archive])
        return Kriging(u, values, centre) if self._model == "kriging" else Polynomial(u, values, centre)

    def _predicted(self, answer: Mapping, u: np.ndarray) -> np.ndarray:
        return np.clip(answer(u), self._levels.y_lower, self._levels.y_upper)

    # Offspring.

    def _evolved(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The most promising of several offspring, with its predicted answer."""
        ranked = sorted(self._archive, key=lambda m: (m.score.rank, m.index))[: self._population]
        best = ranked[0]
        known = np.array([m.u for m in self._archive])
        candidates: list[tuple[tuple[int, float], int, np.ndarray, np.ndarray]] = []
        for k in range(self._offspring):
            a, b, c = (ranked[int(i)].u for i in rng.integers(len(ranked), size=3))
            u = a + rng.uniform(0.0, 1.0) * (best.u - a) + rng.uniform(0.4, 0.9) * (b - c)
            moved = rng.random(len(u)) < 1.0 / len(u)
            u = np.where(moved, u + 0.1 * rng.normal(size=len(u)), u)
            u = np.clip(np.where((u < 0.0) | (u > 1.0), rng.uniform(size=len(u)), u), 0.0, 1.0)
            if float(np.abs(known - u).max(axis=1).min()) < NEAR:
                continue
            y = self._predicted(self._mapping(u, "answer"), u)
            candidates.append((self._rank(u, y), k, u, y))
        if not candidates:
            u = rng.uniform(size=len(self.space))
            return u, self._predicted(self._mapping(u, "answer"), u)
        _, _, u, y = min(candidates, key=lambda c: c[:2])
        return u, y

    def _rank(self, u: np.ndarray, y: np.ndarray) -> tuple[int, float]:
        found = self._joint(u, y)
        if found is None:
            return 2, 0.0
        return (0, found.upper) if found.violation <= FEASIBLE else (1, found.violation)

    def _joint(self, u: np.ndarray, y: np.ndarray) -> Joint | None:
        try:
            found = self._levels.joint(self.space.from_unit(np.clip(u, 0.0, 1.0)), y)
        except ValueError:
            return None
        return found if np.isfinite([found.upper, found.lower, found.violation]).all() else None

    # Refinement.

    def _elsewhere(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
        """A minimum of the model away from the best point: the best of many random predictions, refined."""
        u = rng.uniform(size=(ELSEWHERE, len(self.space)))
        answers = self._mapping(self._best.u, "answer")
        ranks = [self._rank(v, self._predicted(answers, v)) for v in u]
        start = u[min(range(len(u)), key=lambda k: ranks[k])]
        answer = self._mapping(start, "answer")
        low, high = np.maximum(start - 0.25, 0.0), np.minimum(start + 0.25, 1.0)
        found = self._minimise(
            start, low, high, lambda v: self._joint(v, self._predicted(answer, v)), lambda v, f: 0.0, lower=False
        )
        return None if found is None else self._new(np.clip(found, 0.0, 1.0), answer)

    def _new(self, u: np.ndarray, answer: Mapping) -> tuple[np.ndarray, np.ndarray] | None:
        """A point with its predicted answer, unless it is known."""
        known = np.array([m.u for m in self._archive] + [self.space.to_unit(t.point) for t in self.pending.values()])
        return None if float(np.abs(known - u).max(axis=1).min()) < NEAR else (u, self._predicted(answer, u))

    def _refined(self) -> tuple[np.ndarray, np.ndarray] | None:
        """A better point near the best one, as the models say, with its predicted answer; None where there is none."""
        best = self._best
        radius = self._radius[self._mode]
        low, high = np.maximum(best.u - radius, 0.0), np.minimum(best.u + radius, 1.0)
        answer = self._mapping(best.u, "answer")
        if self._mode == "reaction":
            u = self._minimise(
                best.u, low, high, lambda v: self._joint(v, self._predicted(answer, v)), lambda v, f: 0.0, lower=False
            )
        else:
            value = self._mapping(best.u, "value")
            n, joined = len(best.u), np.concatenate([best.u, best.y])
            found = self._minimise(
                joined,
                np.concatenate([low, self._levels.y_lower]),
                np.concatenate([high, self._levels.y_upper]),
                lambda v: self._joint(v[:n], v[n:]),
                lambda v, f: f.lower - float(value(v[:n])[0]),
                lower=True,
            )
            u = None if found is None else found[:n]
        if u is None:
            return None
        new = self._new(np.clip(u, 0.0, 1.0), answer)
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
