"""`NestedProblem`: the leader's choice is a point of a `Space`, and the follower a function that answers it.

For upper levels that are black boxes: architectures, pipelines, tables of results. Nothing is differentiated here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from bilevel_core.errors import ModelError
from bilevel_core.problems.base import Problem
from bilevel_core.result import Values
from bilevel_core.sampling.space import Categorical, Space, Variable


@dataclass(frozen=True)
class Call:
    """How the follower is asked.

    Attributes:
        budget: share of its full budget (epochs, iterations), in (0, 1]; 1 for a whole solve.
        seed: for everything random in it.
        start: ``state`` of an earlier answer at the same x with a smaller budget, to go on from; None to begin anew.
        device: where to compute: ``auto``, ``cpu`` or a torch device.
    """

    budget: float = 1.0
    seed: int = 0
    start: Any = None
    device: str = "auto"


@dataclass(frozen=True)
class Answer:
    """The follower's answer at one x.

    Attributes:
        y: its variables by name: numbers or arrays.
        upper: the leader's objective, minimised, or a tuple of several.
        lower: the follower's objective, minimised.
        violation: how far the leader's constraints are from holding; 0 when they do.
        state: numbers, arrays or tensors to go on from with a larger budget.
        counts: work done beside the one lower-level solve, by kind; added up in the result.
        solved: whether the lower level was solved for it. An x that may not be chosen whatever the follower does need
            not be answered, and costs nothing of a search's budget.
    """

    y: Mapping[str, Any]
    upper: float | tuple[float, ...]
    lower: float
    violation: float = 0.0
    state: Any = None
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    solved: bool = True


class NestedProblem(Problem):
    """A bilevel problem whose lower level is solved by a function of the user's. Both levels minimise.

    ``follow`` is called with x, the active variables' values by name, and a `Call`; it returns an `Answer`. In results
    a categorical variable is the position of its choice; `details` gives the choices themselves.

    Args:
        space: what the leader may choose; a `Space`, or its variables.
        follow: solves the lower level at one x.
        evaluate: gives an `Answer` for any x and y without solving anything; with it a point can be checked by value.
        objectives: names of the leader's objectives, one or several.
        exact: whether ``follow`` with the whole budget gives globally optimal answers.
        name: what to call the problem.
        structure: names of special structures, for solvers that look for them; None for the class's own.

    Raises:
        ModelError: an empty space, no objective, or functions that are none.
    """

    form = "nested"

    structure: frozenset[str] = frozenset()
    """Names of special structures that solvers may look for; see `Traits.structure`."""

    @property
    def usual_solves(self) -> int | None:
        """How many lower-level solves a search may make that is not told; None for the solver's own default."""
        return None

    def __init__(
        self,
        space: Space | Sequence[Variable],
        follow: Callable[[dict[str, Any], Call], Answer],
        *,
        evaluate: Callable[[dict[str, Any], Values], Answer] | None = None,
        objectives: Sequence[str] = ("upper",),
        exact: bool = False,
        name: str = "problem",
        structure: frozenset[str] | None = None,
    ) -> None:
        if structure is not None:
            self.structure = structure
        self.space = space if isinstance(space, Space) else Space(tuple(space))
        for label, function in (("follow", follow), ("evaluate", evaluate)):
            if not (callable(function) or (function is None and label == "evaluate")):
                raise ModelError(f"Expected {label} as a function, got {type(function).__name__}.")
        if not len(self.space) or not objectives:
            raise ModelError("A nested problem needs at least one variable and one objective.")
        self.follow = follow
        self.evaluate = evaluate
        self.objectives = tuple(objectives)
        self.exact = exact
        self.name = name

    def values(self, point: np.ndarray) -> Values:
        """A point as the dictionary ``x`` of a result."""
        named = zip(self.space.names, point, strict=True)
        return Values({name: np.array(float(v)) for name, v in named if not math.isnan(v)})

    def point(self, x: Mapping[str, Any]) -> np.ndarray:
        """The reverse of `values`; a categorical variable may also be given as its choice.

        Raises:
            UsageError: an unknown name or value.
        """
        given: dict[str, Any] = {}
        for name, value in x.items():
            variable = self.space.variables[self.space.position[name]] if name in self.space.position else None
            plain = value.item() if isinstance(value, np.ndarray | np.generic) else value
            if isinstance(variable, Categorical) and isinstance(value, np.ndarray):
                position = int(cast("float", plain))
                plain = variable.choices[position] if 0 <= position < len(variable.choices) else plain
            given[name] = plain
        return self.space.point(given)

    def details(self, x: Values, y: Values) -> dict[str, Any]:
        """The leader's choice in words."""
        return {"choice": {name: _plain(v) for name, v in self.space.values(self.point(x)).items()}}

    def ask(self, point: np.ndarray, call: Call) -> Answer:
        """The follower's answer at a point, checked for its form.

        Raises:
            ModelError: ``follow`` returned something else than an `Answer`, or another number of objectives.
        """
        return self.checked(self.follow(self.space.values(point), call), "follow")

    def checked(self, found: Any, label: str) -> Answer:
        """An answer with the objectives as a tuple of floats."""
        if not isinstance(found, Answer):
            raise ModelError(f"{label}(x, ...): expected an Answer, got {type(found).__name__}.")
        upper = found.upper if isinstance(found.upper, tuple) else (found.upper,)
        if len(upper) != len(self.objectives):
            raise ModelError(
                f"{label}(x, ...): expected {len(self.objectives)} upper objective(s) "
                f"({', '.join(self.objectives)}), got {len(upper)}."
            )
        lower, violation = float(found.lower), float(found.violation)
        return replace(found, upper=tuple(float(v) for v in upper), lower=lower, violation=violation)


@dataclass(frozen=True)
class Row:
    """One line of a table: a choice of the leader's, an answer of the follower's, and what both get.

    Attributes:
        x: the leader's active variables by name.
        y: the follower's variables by name, numbers.
        upper, lower: objectives, minimised.
        violation: of the leader's constraints.
    """

    x: Mapping[str, Any]
    y: Mapping[str, float]
    upper: float | tuple[float, ...]
    lower: float
    violation: float = 0.0


class TableProblem(NestedProblem):
    """A nested problem that is given as a table: for each x the follower takes the line with the smallest ``lower``, of
    several such the one that suits the leader best.

    Args:
        space: what the leader may choose.
        rows: the lines. An x without a line has no answer.
        objectives: names of the leader's objectives.
        name: what to call the problem.

    Raises:
        UsageError: a line's x is no point of the space.
    """

    def __init__(
        self,
        space: Space | Sequence[Variable],
        rows: Iterable[Row],
        *,
        objectives: Sequence[str] = ("upper",),
        name: str = "problem",
    ) -> None:
        super().__init__(space, self._look_up, evaluate=self._value, objectives=objectives, exact=True, name=name)
        self._rows: dict[Any, list[Row]] = {}
        for row in rows:
            key = self.space.key(self.space.canonical(self.space.point(row.x)))
            self._rows.setdefault(key, []).append(row)

    def _lines(self, x: Mapping[str, Any]) -> list[Row]:
        return self._rows.get(self.space.key(self.space.point(x)), [])

    def _look_up(self, x: dict[str, Any], call: Call) -> Answer:
        lines = self._lines(x)
        if not lines:
            return Answer({}, (math.nan,) * len(self.objectives), math.inf, math.inf)
        least = min(row.lower for row in lines)
        best = min((r for r in lines if r.lower == least), key=lambda r: (max(r.violation, 0.0), _first(r.upper)))
        return Answer(best.y, best.upper, best.lower, best.violation)

    def _value(self, x: dict[str, Any], y: Values) -> Answer:
        for row in self._lines(x):
            if set(row.y) == set(y) and all(float(y[k]) == float(v) for k, v in row.y.items()):
                return Answer(row.y, row.upper, row.lower, row.violation)
        return Answer({}, (math.nan,) * len(self.objectives), math.inf, math.inf)


def _first(upper: float | tuple[float, ...]) -> float:
    return upper[0] if isinstance(upper, tuple) else upper


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
