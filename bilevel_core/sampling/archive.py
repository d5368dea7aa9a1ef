"""What mapping-based evolution has learned: points whose lower level has been solved, and predictions from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bilevel_core.sampling.base import FEASIBLE, Score
from bilevel_core.sampling.mapping import Kriging, Mapping, Polynomial
from bilevel_core.sampling.space import Space

LOOSE = 1e-3
"""Violation of the follower's constraints up to which a prediction may stand for an answer."""
GLOBAL = 100
"""Most samples in the kriging model that looks at all of the space."""


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
        return _largest(self.upper_g, self.upper_h)

    @property
    def lower_violation(self) -> float:
        """Of the follower's constraints."""
        return _largest(self.lower_g, self.lower_h)


def _largest(g: np.ndarray, h: np.ndarray) -> float:
    return max(0.0, float(g.max(initial=0.0)), float(np.abs(h).max(initial=0.0)))


class Levels(Protocol):
    """What the sampler may ask of the problem without a lower-level solve."""

    y_lower: np.ndarray
    y_upper: np.ndarray

    def joint(self, point: np.ndarray, y: np.ndarray) -> Joint:
        """Both levels at any point; may raise `ValueError` where one is undefined."""
        ...


@dataclass(frozen=True)
class Member:
    """A point whose lower level has been solved."""

    u: np.ndarray
    y: np.ndarray
    score: Score
    index: int


@dataclass(frozen=True)
class Prediction:
    """What to expect of a point.

    Attributes:
        u: the point, in the unit cube.
        y: the follower's answer.
        rank: as `Score.rank`.
    """

    u: np.ndarray
    y: np.ndarray
    rank: tuple[int, float]


class Archive:
    """Solved points in the unit cube, and models of what the follower does elsewhere.

    Args:
        space: what is sampled.
        levels: the problem at any (x, y).
        model: ``quadratic`` or ``kriging``.
    """

    def __init__(self, space: Space, levels: Levels, model: str) -> None:
        self.space, self.levels, self._model = space, levels, model
        self.members: list[Member] = []
        self._u = np.zeros((0, len(space)))
        self._values: dict[str, np.ndarray] = {}
        self._wide: Kriging | None = None

    def add(self, member: Member) -> None:
        """Take in a solved point."""
        self.members.append(member)
        self._u = np.vstack([self._u, member.u])
        for what, row in (("answer", member.y), ("value", np.array([member.score.value]))):
            self._values[what] = np.vstack([self._values[what], row]) if what in self._values else row[None]
        self._wide = None

    def amend(self, index: int, y: np.ndarray, score: Score) -> None:
        """Replace what is known of a point, by the index of its trial; nothing where it is not in here."""
        for k, member in enumerate(self.members):
            if member.index == index:
                self.members[k] = Member(member.u, y, score, index)
                self._values["answer"][k], self._values["value"][k] = y, score.value
                self._wide = None

    @property
    def best(self) -> Member:
        """The best point, feasibility first."""
        return min(self.members, key=lambda m: (m.score.rank, m.index))

    def ranked(self, count: int) -> list[Member]:
        """The best so many points."""
        return sorted(self.members, key=lambda m: (m.score.rank, m.index))[:count]

    def distance(self, u: np.ndarray) -> float:
        """To the nearest solved point, in the largest coordinate."""
        return float(np.abs(self._u - u).max(axis=1).min())

    def mapping(self, centre: np.ndarray, what: str) -> Mapping:
        """A model of the ``answer`` or of the ``value``, good around a point."""
        make = Kriging if self._model == "kriging" else Polynomial
        return make(self._u, self._values[what], centre)

    def clipped(self, y: np.ndarray) -> np.ndarray:
        """An answer within its bounds."""
        return np.clip(y, self.levels.y_lower, self.levels.y_upper)

    def joint(self, u: np.ndarray, y: np.ndarray) -> Joint | None:
        """Both levels at a point of the unit cube and an answer; None where one is undefined."""
        try:
            found = self.levels.joint(self.space.from_unit(np.clip(u, 0.0, 1.0)), y)
        except ValueError:
            return None
        return found if np.isfinite([found.upper, found.lower, found.violation]).all() else None

    def predict(self, u: np.ndarray) -> Prediction:
        """What to expect at a point: of what several models say of the answer, the one that the follower likes best.

        The follower's objective is known at any (x, y), so this needs no measure of how far a model can be trusted.
        Without it a leader whose interest is opposed to the follower's would always seem best off where a model is
        wrong.
        """
        if self._wide is None:
            self._wide = Kriging(self._u, self._values["answer"], self.best.u, GLOBAL)
        nearest = int(np.argmin(np.linalg.norm(self._u - u, axis=1)))
        said = (self.mapping(u, "answer")(u), self._wide(u), self._values["answer"][nearest])
        chosen: tuple[tuple[float, float], int] | None = None
        kept = self.clipped(said[0]), (2, 0.0)
        for k, y in enumerate(self.clipped(y) for y in said):
            found = self.joint(u, y)
            if found is None:
                continue
            over = found.lower_violation
            order = (0.0 if over <= LOOSE else over, found.lower), k
            if chosen is None or order < chosen:
                chosen = order
                kept = y, (0, found.upper) if found.violation <= FEASIBLE else (1, found.violation)
        return Prediction(u, *kept)
