"""Pyomo expressions as the core's `Function`s."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pyomo.core.expr as pe
import pyomo.environ as pyo
from pyomo.core.expr.numvalue import native_types
from pyomo.core.expr.visitor import StreamBasedExpressionVisitor

from bilevel_core.errors import ModelError
from bilevel_core.program import Function, collect, total
from bilevel_core.program import expression as ex


class Translator:
    """Turns expressions over known variables into functions. ``position``: id of a variable -> column number."""

    def __init__(self, position: Mapping[int, int]) -> None:
        self._position = position
        self._where = ""
        self._visitor: Any = StreamBasedExpressionVisitor(beforeChild=self._leaf, exitNode=self._exit)

    def __call__(self, expression: Any, where: str) -> Function:
        """Translate one expression; ``where`` names it in errors.

        Raises:
            ModelError: a variable that is not the model's, a value that is missing, or an operator that cannot be read.
        """
        self._where = where
        descend, leaf = self._leaf(None, expression, 0)
        function: Function = self._visitor.walk_expression(expression) if descend else leaf
        if math.isnan(function.constant):
            raise ModelError(f"{where!r} contains a constant part without a value: {expression}.")
        return function

    def _leaf(self, parent: Any, child: Any, index: int) -> tuple[bool, Any]:
        if child.__class__ in native_types:
            return False, Function(float(child))
        if child.is_expression_type():
            if child.is_potentially_variable():
                return True, None
            return False, Function(self._constant(child))
        if child.is_variable_type():
            column = self._position.get(id(child))
            if column is None:
                raise ModelError(
                    f"{self._where!r} contains variable {child.name!r}, which no active block of the model holds."
                )
            if child.fixed:
                return False, Function(self._constant(child))
            return False, Function(linear={column: 1.0})
        return False, Function(self._constant(child))

    def _constant(self, thing: Any) -> float:
        try:
            value = pyo.value(thing, exception=False)
        except (ValueError, ZeroDivisionError, OverflowError):
            value = None
        if value is None or isinstance(value, complex) or not math.isfinite(value):
            raise ModelError(f"{self._where!r} contains {thing}, which has no finite value.")
        return float(value)

    def _exit(self, node: Any, parts: list[Function]) -> Function:
        if node.is_named_expression_type():
            return parts[0]
        for kind, combine in _RULES:
            if isinstance(node, kind):
                try:
                    return combine(node, parts)
                except (ValueError, ZeroDivisionError, OverflowError) as error:
                    raise ModelError(f"{self._where!r}: {node} has no value: {error}.") from error
        raise ModelError(
            f"{self._where!r} contains {node}: the operator {type(node).__name__} cannot be read. Write it with "
            f"+, -, *, /, ** and {', '.join(sorted(ex.FUNCTIONS))}."
        )


def _product(node: Any, parts: list[Function]) -> Function:
    return parts[0].times(parts[1])


def _quotient(node: Any, parts: list[Function]) -> Function:
    if parts[1].degree == 0:
        return parts[0].scaled(1.0 / parts[1].constant)
    return parts[0].times(Function(nonlinear=ex.power(parts[1].expression(), ex.MINUS_ONE)))


def _power(node: Any, parts: list[Function]) -> Function:
    return collect(ex.power(parts[0].expression(), parts[1].expression()))


def _call(node: Any, parts: list[Function]) -> Function:
    name = node.getname()
    if name == "log10":
        return collect(ex.call("log", parts[0].expression())).scaled(1.0 / math.log(10.0))
    if name not in ex.FUNCTIONS:
        raise ModelError(f"{node}: the function {name}() cannot be read; known: {', '.join(sorted(ex.FUNCTIONS))}.")
    return collect(ex.call(name, parts[0].expression()))


_RULES: list[tuple[Any, Callable[[Any, list[Function]], Function]]] = [
    (pe.SumExpression, lambda node, parts: total(parts)),
    (pe.NegationExpression, lambda node, parts: -parts[0]),
    (pe.ProductExpression, _product),
    (pe.DivisionExpression, _quotient),
    (pe.PowExpression, _power),
    (pe.AbsExpression, _call),
    (pe.UnaryFunctionExpression, _call),
]
