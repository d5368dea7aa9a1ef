"""What every problem type offers to the rest of the core, and what algebraic ones offer on top.

A type whose two levels are callables (tensors, automatic differentiation) derives from `Problem` directly and brings
its own view; solvers choose by `Problem.form`.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.program import BilevelProgram
from bilevel_core.result import Values


class Problem(ABC):
    """A bilevel problem in the user's terms."""

    form: ClassVar[str]
    """How the levels are given: ``algebraic`` (expressions) or ``differentiable`` (callables)."""

    name: str = "problem"

    reference: tuple[str, tuple[Any, ...]] | None = None
    """A function as ``module:attribute`` and its arguments, which make the same problem anew: what is sent to other
    processes and machines in place of the problem itself. None where none is known."""

    compared: ClassVar[tuple[str, ...]] = ()
    """Names of numbers in `details`, or of counts, that comparisons of solvers show beside the leader's objective."""

    def details(self, x: Values, y: Values) -> dict[str, Any]:
        """What this problem type reports of a point in its own terms: JSON-ready scalars, and lists of rows (tables).

        Shown under the result and stored in ``Result.details``.
        """
        return {}

    def brief_details(self, x: Values, y: Values) -> dict[str, Any]:
        """The same without what takes long: asked for where a run was stopped, or its time limit has passed."""
        return self.details(x, y)


@dataclass(frozen=True)
class Residuals:
    """The user's own model evaluated at a point.

    Attributes:
        upper_objective: leader's objective in the user's sense.
        lower_objectives: each follower's objective in that follower's sense.
        upper: (name, violation, scale) of each of the leader's rows and bounds.
        lower: the same for the followers', all together.
    """

    upper_objective: float
    lower_objectives: tuple[float, ...]
    upper: tuple[tuple[str, float, float], ...]
    lower: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class Group:
    """A named array of columns: one variable of the user's, scalar (shape ``()``) or indexed.

    Attributes:
        columns: in row-major order; a column may stand in several places (a symmetric matrix).
        hidden: columns that the user never wrote (the epigraph of a norm): absent from results, and computed from the
            others by `AlgebraicProblem.complete`.
    """

    name: str
    shape: tuple[int, ...]
    columns: tuple[int, ...]
    hidden: bool = False


class AlgebraicProblem(Problem):
    """A problem that can be written as a `BilevelProgram`.

    A subclass gives `program`, `groups` and `evaluate`. `evaluate` must not use the program: verification compares
    what the user wrote with what was solved.
    """

    form = "algebraic"

    @abstractmethod
    def program(self) -> BilevelProgram:
        """The problem in the core's algebraic form. Cheap to call again."""

    @abstractmethod
    def groups(self) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
        """How columns appear in results: the leader's groups, and the followers'. Together they cover all columns."""

    @abstractmethod
    def evaluate(self, values: np.ndarray) -> Residuals:
        """Objectives and residuals at a point (one number per column), computed from the user's own statement."""

    def hidden_columns(self) -> frozenset[int]:
        """The columns that belong to no variable of the user's: whether they are unique is nobody's question."""
        return frozenset(c for groups in self.groups() for g in groups if g.hidden for c in g.columns)

    def complete(self, values: np.ndarray) -> np.ndarray:
        """The same values with those of hidden columns computed from the named ones; nothing to do without such."""
        return values

    def point(self, values: np.ndarray) -> tuple[Values, Values]:
        """A vector of column values as the dictionaries ``x`` and ``y``, without hidden columns."""
        upper, lower = self.groups()

        def arrays(groups: Sequence[Group]) -> Values:
            return Values(
                {
                    g.name: np.array(values[list(g.columns)], dtype=float).reshape(g.shape)
                    for g in groups
                    if not g.hidden
                }
            )

        return arrays(upper), arrays(lower)

    def vector(self, x: Mapping[str, Any], y: Mapping[str, Any]) -> np.ndarray:
        """The reverse of `point`; hidden columns are computed.

        Raises:
            UsageError: a variable is missing, unknown, or has the wrong number of values.
        """
        upper, lower = self.groups()
        out = np.full(len(self.program().columns), np.nan)
        for label, given, groups in (("x", x, upper), ("y", y, lower)):
            self._fill(out, label, given, [g for g in groups if not g.hidden])
        return self.complete(out)

    def _fill(self, out: np.ndarray, label: str, given: Mapping[str, Any], groups: Sequence[Group]) -> None:
        if not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"Expected {label} as a mapping of variable names to values, got {type(given).__name__}.")
        by_name = {g.name: g for g in groups}
        short: dict[str, list[Group]] = {}
        for g in groups:
            short.setdefault(g.name.rsplit(".", 1)[-1], []).append(g)
        for name, value in given.items():
            group = by_name.get(name)
            if group is None and len(short.get(name, [])) == 1:
                group = short[name][0]
            if group is None:
                close = difflib.get_close_matches(name, by_name, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(by_name)}."
                raise UsageError(f"{label} has no variable {name!r}.{hint}")
            try:
                array = np.asarray(value, dtype=float).reshape(-1)
            except (TypeError, ValueError) as error:
                raise UsageError(f"{label}[{group.name!r}]: expected numbers, got {value!r}.") from error
            if array.size != len(group.columns):
                raise UsageError(
                    f"Expected {len(group.columns)} value(s) for {label}[{group.name!r}], got {array.size}."
                )
            out[list(group.columns)] = array
            if not (out[list(group.columns)] == array).all() and not np.isnan(array).any():
                raise UsageError(f"{label}[{group.name!r}]: entries that are one and the same variable differ.")
        missing = [g.name for g in groups if np.isnan(out[list(g.columns)]).any()]
        if missing:
            raise UsageError(f"{label} needs a finite value for {', '.join(missing)}.")


@dataclass(frozen=True)
class Sizes:
    """What can be said of a differentiable problem without its formulas."""

    upper_variables: int
    lower_variables: int
    upper_rows: int = 0
    lower_rows: int = 0
    lower_bounds: bool = False
    stochastic: bool = False


class DifferentiableProblem(Problem):
    """A problem whose levels are functions that can be evaluated and differentiated, but not read."""

    form = "differentiable"
    structure: frozenset[str] = frozenset()
    """Names of special structures that solvers may look for; see `Traits.structure`."""

    @abstractmethod
    def sizes(self) -> Sizes:
        """Numbers of variables and constraints."""


def as_problem(thing: Any) -> Problem:
    """A `Problem` as it is; a Pyomo model wrapped in its problem type.

    Raises:
        UsageError: for anything else.
    """
    if isinstance(thing, Problem):
        return thing
    module = type(cast("object", thing)).__module__
    if module.startswith("pyomo.") or any(b.__module__.startswith("pyomo.") for b in type(thing).__mro__):
        from bilevel_core.problems.pyomo import PyomoProblem

        return PyomoProblem(thing)
    if module.startswith("cvxpy."):
        raise UsageError(
            "Got one CVXPY problem, and a bilevel problem has two: bl.CvxpyProblem(upper, lower, leader={...})."
        )
    raise UsageError(
        f"Expected a bilevel problem or a Pyomo model with bl.Follower() blocks, got {type(thing).__name__}. "
        "Wrap it: bl.PyomoProblem(model)."
    )
