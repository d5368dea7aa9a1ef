"""Columns that stand for no variable of the user's, and how their values follow from those that do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy
import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.program import Function

cp: Any = cvxpy


@dataclass(frozen=True)
class Hidden(ABC):
    """Some hidden columns. Values are asked for in the order of the columns, with CVXPY's variables set."""

    name: str
    columns: tuple[int, ...]

    @abstractmethod
    def values(self, known: np.ndarray) -> np.ndarray:
        """Their values; ``known`` holds those of all columns made before."""


@dataclass(frozen=True)
class Defined(Hidden):
    """Columns that are equal to functions of earlier ones."""

    functions: tuple[Function, ...]

    def values(self, known: np.ndarray) -> np.ndarray:
        """See `Hidden.values`."""
        return np.array([f.evaluate(known) for f in self.functions])


@dataclass(frozen=True)
class Valued(Hidden):
    """The tightest epigraph: columns that take an expression's own value."""

    expression: Any

    def values(self, known: np.ndarray) -> np.ndarray:
        """See `Hidden.values`."""
        value = self.expression.value
        size = len(self.columns)
        return np.full(size, np.nan) if value is None else np.asarray(value, dtype=float).flatten(order="F")


@dataclass(frozen=True)
class Split(Hidden):
    """The two columns of each entry of a Huber function: what is squared, and the size of what is not."""

    argument: Any
    threshold: float

    def values(self, known: np.ndarray) -> np.ndarray:
        """See `Hidden.values`."""
        value = np.asarray(self.argument.value, dtype=float).flatten(order="F")
        squared = np.clip(value, -self.threshold, self.threshold)
        return np.concatenate([squared, np.abs(value - squared)])


@dataclass(frozen=True)
class Solved(Hidden):
    """The auxiliary variables of one of CVXPY's own canonical forms: the tightest ones, by a small convex program.

    Attributes:
        atom: the atom that has the canonical form.
        canonicalise: CVXPY's function for it.
        fresh: the variables of the form that the columns belong to.
        stand_ins: variables that stand for the atom's arguments in the form.
    """

    atom: Any
    canonicalise: Callable[..., tuple[Any, list[Any]]]
    fresh: tuple[Any, ...]
    stand_ins: tuple[tuple[Any, Any], ...]

    def values(self, known: np.ndarray) -> np.ndarray:
        """See `Hidden.values`.

        Raises:
            UsageError: the atom has no value at this point.
        """
        arguments = [cp.Constant(a.value) for a in self.atom.args]
        form, constraints = self.canonicalise(self.atom.copy(arguments), arguments)
        total = cp.sum(form)
        goal = cp.Minimize(total) if self.atom.is_convex() else cp.Maximize(total)
        problem = cp.Problem(goal, constraints)
        problem.solve(solver=cp.CLARABEL)
        if problem.status not in ("optimal", "optimal_inaccurate"):
            raise UsageError(f"{self.atom} has no value at this point.")
        here = fresh_variables(form, constraints, ())
        for argument, stand_in in self.stand_ins:
            stand_in.save_value(np.asarray(argument.value))
        for old, new in zip(self.fresh, here, strict=True):
            old.save_value(np.asarray(new.value))
        return np.concatenate([np.asarray(v.value, dtype=float).flatten(order="F") for v in here])


def fresh_variables(form: Any, constraints: list[Any], but: tuple[Any, ...]) -> list[Any]:
    """The variables of a canonical form in a fixed order, those in ``but`` left out."""
    out = {v.id: v for thing in (form, *constraints) for v in thing.variables()}
    known = {v.id for v in but}
    return [v for i, v in out.items() if i not in known]
