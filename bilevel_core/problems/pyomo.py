"""`PyomoProblem`: a Pyomo model whose followers are `Follower` blocks.

Variables, constraints and the one objective inside a `Follower` are that follower's; everything else is the leader's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyomo.environ as pyo
from pyomo.common.errors import InvalidConstraintError
from pyomo.core.base.block import Block, BlockData, declare_custom_block

from bilevel_core.errors import ModelError
from bilevel_core.problems.base import AlgebraicProblem, Group, Residuals
from bilevel_core.problems.pyomo_dual import Duals, duals_of, is_dual
from bilevel_core.problems.pyomo_expression import Translator
from bilevel_core.program import INF, BilevelProgram, Dual, Level, Row, Variable


@declare_custom_block(name="Follower", new_ctype=True)
class FollowerData(BlockData):
    """One follower's block; created through `Follower`."""

    def __getattr__(self, name: str) -> Any:
        # Not a property: a model may hold a Pyomo suffix of this name, and then that is meant.
        if name == "dual":
            return Duals(self)
        return super().__getattr__(name)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType, reportAttributeAccessIssue]


if TYPE_CHECKING:

    class Follower(Block):
        """A block that belongs to a follower: ``model.follower = bl.Follower()``, indexed if there are several.

        ``follower.dual[constraint]`` stands for a multiplier in the leader's expressions; see `Duals`.
        """

        dual: Duals

else:
    Follower.__doc__ = "A block that belongs to a follower: ``model.follower = bl.Follower()``, indexed if several."

# What may stand in a model without being read: it says nothing about feasibility or objectives.
_HARMLESS = {
    pyo.Set,
    pyo.RangeSet,
    pyo.Param,
    pyo.Var,
    pyo.Constraint,
    pyo.Objective,
    pyo.Expression,
    pyo.Suffix,
    pyo.BuildAction,
    pyo.BuildCheck,
    pyo.Block,
    Follower,
}

_NOBODY = -2
"""The owner of multipliers; negative like the leader's -1, since their bounds are the leader's constraints."""


class PyomoProblem(AlgebraicProblem):
    """A bilevel problem written in Pyomo.

    The model is read when the problem is made, and is never changed.

    Args:
        model: a concrete Pyomo model with at least one active `Follower`.
        name: what to call the problem; the model's own name by default.

    Raises:
        ModelError: no follower, no objective or more than one at a level, a follower inside a follower, a variable
            that belongs to no block of the model, multipliers in a follower's problem, or a component that cannot be
            read; the message names it.
    """

    def __init__(self, model: Any, *, name: str | None = None) -> None:
        if not isinstance(model, BlockData):
            raise ModelError(f"Expected a Pyomo model, got {type(model).__name__}.")
        if not model.is_constructed():
            raise ModelError(f"Model {model.name!r} is abstract: call create_instance() on it first.")
        self.model = model
        # Pyomo calls a model without a name "unknown".
        self.name = name or ("problem" if model.name == "unknown" else model.name)
        self._followers = _followers(model)
        self._check_components()
        self._vars: list[Any] = []
        self._owners: list[int] = []
        self._priced: list[tuple[int, int, Any]] = []
        self._groups: tuple[tuple[Group, ...], tuple[Group, ...]] = self._read_variables()
        self._position = {id(v): i for i, v in enumerate(self._vars)}
        self._program = self._read_program()

    def program(self) -> BilevelProgram:
        """See `AlgebraicProblem.program`."""
        return self._program

    def groups(self) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
        """One group per Pyomo variable component, in order of declaration; then one per constraint whose multipliers
        are in use, named ``follower.dual[constraint]``.
        """
        return self._groups

    def evaluate(self, values: np.ndarray) -> Residuals:
        """Evaluate the model's own expressions. The variables' values are put back afterwards."""
        before = [(v, v.value, v.stale) for v in self._vars]
        try:
            for v, value in zip(self._vars, values, strict=True):
                v.set_value(float(value), skip_validation=True)
            return self._residuals()
        finally:
            for v, value, stale in before:
                v.set_value(value, skip_validation=True)
                v.stale = stale

    def _residuals(self) -> Residuals:
        leader = _objective(self.model, self.model.name, pyo.Block)
        lower_objectives = tuple(_number(_objective(f, f.name, pyo.Block).expr) for f in self._followers)
        upper = list(_row_residuals(self.model))
        lower = [r for f in self._followers for r in _row_residuals(f)]
        for v, owner in zip(self._vars, self._owners, strict=True):
            (upper if owner < 0 else lower).append(_bound_residual(v))
        return Residuals(_number(leader.expr), lower_objectives, tuple(upper), tuple(lower))

    def _check_components(self) -> None:
        blocks: list[Any] = [self.model, *self._followers]
        for block in blocks:
            for component in block.component_objects(active=True, descend_into=pyo.Block):
                if component.ctype in _HARMLESS:
                    continue
                raise ModelError(
                    f"Component {component.name!r} of type {component.ctype.__name__} cannot be read. Transform the "
                    "model to variables and constraints first (for disjunctions: "
                    "pyo.TransformationFactory('gdp.bigm').apply_to(model))."
                )

    def _read_variables(self) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
        sides: tuple[list[Group], list[Group]] = ([], [])
        blocks: list[Any] = [self.model, *self._followers]
        for owner, block in enumerate(blocks, start=-1):
            for component in block.component_objects(pyo.Var, active=True, descend_into=pyo.Block):
                if component.is_reference():
                    continue  # another name for variables that are declared, and owned, elsewhere
                if owner >= 0 and is_dual(component, block):
                    continue
                data = [component[k] for k in component]
                group = self._group(component.name, data, owner, indexed=component.is_indexed())
                sides[0 if owner < 0 else 1].append(group)
        for number, follower in enumerate(self._followers):
            for component, pairs in duals_of(follower):
                name = f"{follower.name}.{component.local_name}"  # Pyomo's own full name would have quotes in it
                data = [v for v, _ in pairs]
                sides[1].append(self._group(name, data, _NOBODY, indexed=component.is_indexed()))
                self._priced += [(c, number, row) for c, (_, row) in zip(sides[1][-1].columns, pairs, strict=True)]
        return tuple(sides[0]), tuple(sides[1])

    def _group(self, name: str, data: list[Any], owner: int, *, indexed: bool) -> Group:
        first = len(self._vars)
        self._vars += data
        self._owners += [owner] * len(data)
        shape = (len(data),) if indexed else ()
        return Group(name, shape, tuple(range(first, first + len(data))))

    def _read_program(self) -> BilevelProgram:
        translate = Translator(self._position)
        levels = [
            self._level(block, translate, owner) for owner, block in enumerate((self.model, *self._followers), start=-1)
        ]
        columns = [_variable(v) for v in self._vars]
        for column, k, row in self._priced:
            follower = self._followers[k]
            inner = row.getname(fully_qualified=True, relative_to=follower)
            columns[column] = replace(columns[column], name=f"{follower.name}.dual[{inner}]")
        self._refuse_lower_duals(levels[1:])
        numbers = [{id(c): n for n, c in enumerate(_rows(f))} for f in self._followers]
        duals = tuple(Dual(column, k, numbers[k][id(row)]) for column, k, row in self._priced)
        return BilevelProgram(tuple(columns), levels[0], tuple(levels[1:]), name=self.name, duals=duals)

    def _refuse_lower_duals(self, followers: list[Level]) -> None:
        priced = {column for column, _, _ in self._priced}
        for level in followers:
            named = [("its objective", level.objective), *((f"{r.name!r}", r.function) for r in level.rows)]
            for where, function in named:
                if not priced.isdisjoint(function.columns):
                    used = self._vars[min(priced & function.columns)].name
                    raise ModelError(
                        f"Follower {level.name!r} uses the multiplier {used!r} in {where}: only the leader's objective "
                        "and constraints may contain multipliers."
                    )

    def _level(self, block: Any, translate: Translator, owner: int) -> Level:
        name = "leader" if owner < 0 else block.name
        objective = _objective(block, name, pyo.Block)
        maximise = objective.sense == pyo.maximize
        function = translate(objective.expr, objective.name)
        rows = tuple(Row(c.name, translate(c.body, c.name), *_sides(c)) for c in _rows(block))
        columns = tuple(i for i, o in enumerate(self._owners) if o == owner)
        return Level(name, -function if maximise else function, rows, columns, maximise)


def _followers(model: Any) -> list[Any]:
    found = list(model.component_data_objects(Follower, active=True, descend_into=pyo.Block))
    if not found:
        raise ModelError(
            f"Model {model.name!r} has no active follower: put the follower's variables, constraints and objective "
            "into a bl.Follower() block."
        )
    for f in found:
        inner = next(iter(f.component_data_objects(Follower, active=True, descend_into=(pyo.Block, Follower))), None)
        if inner is not None and inner is not f:
            raise ModelError(f"Follower {inner.name!r} stands inside follower {f.name!r}: two levels are supported.")
    return found


def _objective(block: Any, name: str, descend: Any) -> Any:
    found = list(block.component_data_objects(pyo.Objective, active=True, descend_into=descend))
    if len(found) == 1:
        return found[0]
    if not found:
        raise ModelError(f"{name!r} has no active objective.")
    raise ModelError(f"{name!r} has {len(found)} active objectives ({', '.join(o.name for o in found)}): keep one.")


def _rows(block: Any) -> Iterator[Any]:
    return block.component_data_objects(pyo.Constraint, active=True, descend_into=pyo.Block)


def _sides(c: Any) -> tuple[float, float]:
    try:
        lower: Any = -INF if c.lower is None else pyo.value(c.lower)
        upper: Any = INF if c.upper is None else pyo.value(c.upper)
    except InvalidConstraintError as error:
        raise ModelError(
            f"Constraint {c.name!r} has a side that contains variables on both ends: write it as two constraints."
        ) from error
    return float(lower), float(upper)


def _variable(v: Any) -> Variable:
    if v.fixed:
        if v.value is None:
            raise ModelError(f"Variable {v.name!r} is fixed but has no value.")
        return Variable(v.name, float(v.value), float(v.value))
    lower, upper = v.bounds
    if v.is_binary() or v.is_integer():
        low = -INF if lower is None else float(math.ceil(lower - 1e-9))
        high = INF if upper is None else float(math.floor(upper + 1e-9))
        return Variable(v.name, low, high, integer=True)
    if not v.is_continuous():
        raise ModelError(f"Variable {v.name!r} has domain {v.domain}, which is neither real, integer nor binary.")
    return Variable(v.name, -INF if lower is None else float(lower), INF if upper is None else float(upper))


def _number(expression: Any) -> float:
    try:
        value = pyo.value(expression, exception=False)
    except (ValueError, ZeroDivisionError, OverflowError):
        return math.nan  # undefined at this point: verification says so
    return math.nan if value is None or isinstance(value, complex) else float(value)


def _row_residuals(block: Any) -> Iterator[tuple[str, float, float]]:
    for c in _rows(block):
        body = _number(c.body)
        lower, upper = _sides(c)
        violation = body if math.isnan(body) else max(0.0, lower - body, body - upper)
        yield c.name, violation, _scale(c.body, lower, upper)


def _scale(body: Any, lower: float, upper: float) -> float:
    """The size of a row: its finite sides and the largest of its summands, at least 1."""
    sizes = [1.0, *(abs(b) for b in (lower, upper) if math.isfinite(b))]
    terms = body.args if type(body).__name__ in ("SumExpression", "LinearExpression") else [body]
    sizes += [abs(n) for t in terms if math.isfinite(n := _number(t))]
    return max(sizes)


def _bound_residual(v: Any) -> tuple[str, float, float]:
    column = _variable(v)
    value = float(v.value)
    violation = max(0.0, column.lower - value, value - column.upper)
    if column.integer:
        violation = max(violation, abs(value - round(value)))
    return v.name, violation, max([1.0, *(abs(b) for b in (column.lower, column.upper) if math.isfinite(b))])
