"""What the leader may choose: a `Space` of continuous, integer and categorical variables, some of them conditional.

A point of a space is an array with one number a variable: its value, for a categorical variable the position of its
choice, and NaN where the variable is inactive. `Space.values` says a point in the user's terms.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bilevel_core.errors import ModelError, UsageError

Key = tuple[float | None, ...]


@dataclass(frozen=True)
class Condition:
    """A variable exists only where another, categorical or integer one, has one of these values.

    Attributes:
        parent: name of the other variable, which must stand before this one.
        values: its choices, or integers.
    """

    parent: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Continuous:
    """A real variable.

    Attributes:
        name: what it is called in results.
        lower, upper: its bounds, finite.
        log: whether it is sampled evenly by its logarithm; the bounds are then positive.
        when: where it exists; None for everywhere.
    """

    name: str
    lower: float
    upper: float
    log: bool = False
    when: Condition | None = None


@dataclass(frozen=True)
class Integer:
    """An integer variable, bounds included."""

    name: str
    lower: int
    upper: int
    when: Condition | None = None


@dataclass(frozen=True)
class Categorical:
    """One of several choices without an order: texts, numbers or booleans."""

    name: str
    choices: tuple[Any, ...]
    when: Condition | None = None


Variable = Continuous | Integer | Categorical


@dataclass(frozen=True)
class Space:
    """Variables in an order in which parents come before those that depend on them.

    Raises:
        ModelError: two variables of one name, bounds that leave nothing, or a condition on nothing that is known.
    """

    variables: tuple[Variable, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "variables", tuple(self.variables))
        seen: dict[str, Variable] = {}
        for v in self.variables:
            if v.name in seen:
                raise ModelError(f"Two variables of the space are called {v.name!r}.")
            _check(v, seen)
            seen[v.name] = v

    def __len__(self) -> int:
        return len(self.variables)

    @property
    def names(self) -> tuple[str, ...]:
        """The variables' names in order."""
        return tuple(v.name for v in self.variables)

    @cached_property
    def position(self) -> dict[str, int]:
        """Where each variable stands, by name."""
        return {name: k for k, name in enumerate(self.names)}

    @cached_property
    def finite(self) -> bool:
        """Whether there are finitely many points: no continuous variable."""
        return not any(isinstance(v, Continuous) for v in self.variables)

    @cached_property
    def conditional(self) -> bool:
        """Whether a variable exists only under a condition."""
        return any(v.when is not None for v in self.variables)

    @cached_property
    def size(self) -> float:
        """Number of points, infinity with a continuous variable. With conditions an upper bound: combinations that
        differ in inactive variables only are counted apart.
        """
        return math.prod((_levels(v) for v in self.variables), start=1.0)

    # Points.

    def active(self, point: np.ndarray, k: int) -> bool:
        """Whether variable ``k`` exists, given the values of those before it."""
        when = self.variables[k].when
        if when is None:
            return True
        parent = self.position[when.parent]
        return not math.isnan(point[parent]) and self._value(parent, point[parent]) in when.values

    def canonical(self, point: np.ndarray) -> np.ndarray:
        """The same point with values moved into bounds, integers rounded, and NaN where a variable is inactive; a
        variable that becomes active without a value gets the middle of its range, or its first choice.
        """
        out = np.array(point, dtype=float)
        for k, v in enumerate(self.variables):
            if not self.active(out, k):
                out[k] = math.nan
                continue
            low, high = _range(v)
            if math.isnan(out[k]):
                out[k] = 0.0 if isinstance(v, Categorical) else _from_unit(v, 0.5)
            value = min(max(float(out[k]), low), high)
            out[k] = value if isinstance(v, Continuous) else float(round(value))
        return out

    def key(self, point: np.ndarray) -> Key:
        """What tells points apart: None for inactive variables."""
        return tuple(None if math.isnan(v) else float(v) for v in point)

    def values(self, point: np.ndarray) -> dict[str, Any]:
        """The active variables' values by name: floats, ints, and the choices themselves."""
        return {name: self._value(k, point[k]) for k, name in enumerate(self.names) if not math.isnan(point[k])}

    def point(self, values: Mapping[str, Any]) -> np.ndarray:
        """The reverse of `values`.

        Raises:
            UsageError: an unknown name, a value that is no choice or outside its bounds, or an active variable without
                a value.
        """
        unknown = [name for name in values if name not in self.position]
        if unknown:
            raise UsageError(f"The space has no variable {unknown[0]!r}. Known: {', '.join(self.names)}.")
        out = np.full(len(self), math.nan)
        for k, v in enumerate(self.variables):
            if not self.active(out, k):
                continue
            if v.name not in values:
                raise UsageError(f"Expected a value for {v.name!r}.")
            out[k] = _read(v, values[v.name])
        return out

    def from_unit(self, u: np.ndarray) -> np.ndarray:
        """The point for coordinates in the unit cube, shape (n,), each variable's range cut into equal parts."""
        raw = np.array([_from_unit(v, float(t)) for v, t in zip(self.variables, u, strict=True)])
        return self.canonical(raw)

    def to_unit(self, point: np.ndarray) -> np.ndarray:
        """Coordinates in the unit cube that `from_unit` takes back to the point; 0.5 for inactive variables."""
        return np.array([_to_unit(v, float(t)) for v, t in zip(self.variables, point, strict=True)])

    def random(self, rng: np.random.Generator) -> np.ndarray:
        """A point drawn evenly, variable by variable."""
        return self.from_unit(rng.uniform(size=len(self)))

    def enumerate(self, resolution: int) -> Iterator[np.ndarray]:
        """All points, each once, the last variable fastest; continuous variables at ``resolution`` even levels, ends
        included.
        """
        axes = [_axis(v, resolution) for v in self.variables]
        if not self.conditional:
            yield from (np.array(p, dtype=float) for p in itertools.product(*axes))
            return
        yield from self._branch(np.full(len(self), math.nan), 0, axes)

    def _branch(self, point: np.ndarray, k: int, axes: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        if k == len(self):
            yield point.copy()
            return
        for value in axes[k] if self.active(point, k) else (math.nan,):
            point[k] = value
            yield from self._branch(point, k + 1, axes)
        point[k] = math.nan

    def mutate(self, point: np.ndarray, rng: np.random.Generator, step: float = 0.1, only: int | None = None) -> Any:
        """A neighbour: one active variable changed (``only``, or one at random among those with several values).

        A continuous variable moves by a normal step of ``step`` times its range; an integer by at least 1, of the same
        kind of step; a categorical one takes another choice. The point itself where nothing can be changed.
        """
        movable = [k for k, v in enumerate(self.variables) if not math.isnan(point[k]) and _levels(v) > 1]
        if not movable:
            return point.copy()
        k = int(rng.choice(movable)) if only is None else only
        v, out = self.variables[k], point.copy()
        low, high = _range(v)
        if isinstance(v, Categorical):
            out[k] = (out[k] + rng.integers(1, len(v.choices))) % len(v.choices)
        elif isinstance(v, Integer):
            move = max(1.0, round(abs(rng.normal()) * step * (high - low)))
            sign = 1.0 if rng.random() < 0.5 else -1.0
            there = out[k] + sign * move
            out[k] = there if low <= there <= high else min(max(out[k] - sign * move, low), high)
        else:
            u = _to_unit(v, float(out[k])) + step * rng.normal()
            out[k] = _from_unit(v, min(max(u, 0.0), 1.0))
        return self._drawn(self.canonical(out), point, rng)

    def _drawn(self, out: np.ndarray, before: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Variables that have become active by a change get random values."""
        new = np.isnan(before) & ~np.isnan(out)
        if new.any():
            out = self.canonical(np.where(new, self.random_raw(rng), out))
        return out

    def random_raw(self, rng: np.random.Generator) -> np.ndarray:
        """A random value for every variable, whether active or not."""
        return np.array(
            [_from_unit(v, float(t)) for v, t in zip(self.variables, rng.uniform(size=len(self)), strict=True)]
        )

    def _value(self, k: int, value: float) -> Any:
        v = self.variables[k]
        if isinstance(v, Categorical):
            return v.choices[int(value)]
        return int(value) if isinstance(v, Integer) else float(value)


def levels(variable: Variable) -> float:
    """How many values a variable can take; infinity for a continuous one that is not fixed."""
    return _levels(variable)


def _levels(v: Variable) -> float:
    if isinstance(v, Categorical):
        return len(v.choices)
    if isinstance(v, Integer):
        return v.upper - v.lower + 1
    return math.inf if v.upper > v.lower else 1


def _range(v: Variable) -> tuple[float, float]:
    return (0.0, len(v.choices) - 1.0) if isinstance(v, Categorical) else (float(v.lower), float(v.upper))


def _axis(v: Variable, resolution: int) -> np.ndarray:
    low, high = _range(v)
    if not isinstance(v, Continuous):
        return np.arange(low, high + 1.0)
    if low == high or resolution == 1:
        return np.array([_from_unit(v, 0.5)])
    return np.array([_from_unit(v, t) for t in np.linspace(0.0, 1.0, resolution)])


def _from_unit(v: Variable, t: float) -> float:
    low, high = _range(v)
    if isinstance(v, Continuous):
        if v.log:
            return min(max(math.exp(math.log(low) + t * (math.log(high) - math.log(low))), low), high)
        return min(max(low + t * (high - low), low), high)
    return min(low + math.floor(t * (high - low + 1.0)), high)


def _to_unit(v: Variable, value: float) -> float:
    low, high = _range(v)
    if math.isnan(value):
        return 0.5
    if isinstance(v, Continuous):
        if high == low:
            return 0.5
        if v.log:
            return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
        return (value - low) / (high - low)
    return (value - low + 0.5) / (high - low + 1.0)


def _read(v: Variable, value: Any) -> float:
    if isinstance(v, Categorical):
        if value not in v.choices:
            raise UsageError(f"{v.name!r}: expected one of {', '.join(map(repr, v.choices))}, got {value!r}.")
        return float(v.choices.index(value))
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{v.name!r}: expected a number, got {value!r}.") from error
    if not v.lower <= number <= v.upper or (isinstance(v, Integer) and number != round(number)):
        kind = "an integer" if isinstance(v, Integer) else "a number"
        raise UsageError(f"{v.name!r}: expected {kind} from {v.lower} to {v.upper}, got {value!r}.")
    return number


def _check(v: Variable, before: Mapping[str, Variable]) -> None:
    if isinstance(v, Categorical):
        object.__setattr__(v, "choices", tuple(v.choices))
        if not v.choices or len(set(map(repr, v.choices))) != len(v.choices):
            raise ModelError(f"Variable {v.name!r}: expected different choices, at least one, got {v.choices!r}.")
    else:
        if not (math.isfinite(v.lower) and math.isfinite(v.upper) and v.lower <= v.upper):
            raise ModelError(f"Variable {v.name!r}: expected finite bounds in order, got {v.lower} and {v.upper}.")
        if isinstance(v, Continuous) and v.log and v.lower <= 0.0:
            raise ModelError(f"Variable {v.name!r}: a logarithmic scale needs positive bounds, got {v.lower}.")
        if isinstance(v, Integer) and (v.lower != int(v.lower) or v.upper != int(v.upper)):
            raise ModelError(f"Variable {v.name!r}: expected integer bounds, got {v.lower} and {v.upper}.")
    if v.when is None:
        return
    parent = before.get(v.when.parent)
    if parent is None or isinstance(parent, Continuous):
        raise ModelError(
            f"Variable {v.name!r} depends on {v.when.parent!r}: expected a categorical or integer variable before it."
        )
    allowed = parent.choices if isinstance(parent, Categorical) else range(parent.lower, parent.upper + 1)
    wrong = [value for value in v.when.values if value not in allowed]
    if wrong or not v.when.values:
        raise ModelError(f"Variable {v.name!r} depends on {parent.name!r} being {v.when.values!r}, which it cannot be.")
