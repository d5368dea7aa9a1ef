"""CVXPY expressions that are affine (bilinear in parameters and variables) as `Function`s, through CVXPY's own tensors.

Disciplined parametrised programming makes this possible: the coefficients of a DPP-compliant affine expression are
affine in its parameters (Agrawal et al. 2019, "Differentiable convex optimization layers"). Every affine atom of
CVXPY's is covered, and long expressions cost one sparse matrix.

Lists of functions stand for arrays in column-major order, as everywhere in CVXPY.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cvxpy
import numpy as np
from cvxpy.cvxcore.python.canonInterface import get_problem_matrix
from cvxpy.lin_ops.lin_op import CONSTANT_ID
from cvxpy.utilities.scopes import dpp_scope

from bilevel_core.errors import ModelError
from bilevel_core.program import Function, total

cp: Any = cvxpy

Functions = list[Function]


def shown(thing: Any) -> str:
    """An expression or constraint as text for an error message, cut where it is long."""
    text = str(thing).replace("\n", " ")
    return text if len(text) <= 80 else text[:77] + "..."


def freeze(expression: Any, kept: frozenset[int]) -> Any:
    """The expression with parts that hold only parameters outside ``kept`` (ids) replaced by their present value.

    Raises:
        ModelError: such a parameter has no value.
    """
    parameters = expression.parameters()
    if parameters and not expression.variables() and not any(p.id in kept for p in parameters):
        missing = [p.name() for p in parameters if p.value is None]
        if missing:
            raise ModelError(
                f"Parameter {missing[0]!r} has no value and stands for no variable of the leader's: set "
                f"{missing[0]}.value, or name it in leader={{parameter: variable}}."
            )
        return cp.Constant(expression.value)
    if not expression.args:
        return expression
    parts = [freeze(a, kept) for a in expression.args]
    if type(expression).__name__ == "cumsum" and (expression.axis is not None or len(parts[0].shape) == 1):
        return _cumulative(parts[0], expression.axis or 0)  # CVXPY has no coefficients for that atom
    changed = any(new is not old for new, old in zip(parts, expression.args, strict=True))
    return expression.copy(parts) if changed else expression


def _cumulative(expression: Any, axis: int) -> Any:
    ones = np.tril(np.ones((expression.shape[axis],) * 2))
    return ones @ expression if axis == 0 else expression @ ones.T


def is_constant(expression: Any) -> bool:
    """Whether a frozen expression is a number whatever anybody decides."""
    return not expression.variables() and not expression.parameters()


def is_affine(expression: Any) -> bool:
    """Whether an expression is affine in variables and, apart from that, in parameters."""
    with dpp_scope():
        return bool(expression.is_affine())


def constants(expression: Any, where: str) -> Functions:
    """A constant expression.

    Raises:
        ModelError: it has no finite real value.
    """
    value = expression.value
    if value is not None and hasattr(value, "toarray"):
        value = value.toarray()
    if value is None or np.iscomplexobj(value) or np.isnan(np.asarray(value, dtype=float)).any():
        raise ModelError(f"{where}: {shown(expression)} has no real value.")
    return [Function(float(v)) for v in np.asarray(value, dtype=float).flatten(order="F")]


def affine(expression: Any, functions: Mapping[int, Sequence[Function]]) -> Functions:
    """An affine expression.

    Args:
        expression: affine in the sense of `is_affine`.
        functions: what each variable and each parameter in it stands for, by id.
    """
    variables, parameters = _distinct(expression.variables()), _distinct(expression.parameters())
    inner, offsets = _stack(variables, functions)
    outer, places = _stack(parameters, functions)
    sizes = {p.id: p.size for p in parameters} | {CONSTANT_ID: 1}
    places[CONSTANT_ID] = len(outer)
    rows, width = int(expression.size), len(inner)
    try:
        form = expression.canonical_form[0]
    except NotImplementedError as error:
        raise ModelError(f"{shown(expression)} holds an affine atom whose coefficients CVXPY does not give.") from error
    tensor = get_problem_matrix([form], width, offsets, sizes, places, rows).tocoo()
    parts: list[list[Function]] = [[] for _ in range(rows)]
    linear: list[dict[int, float]] = [{} for _ in range(rows)]
    constant = np.zeros(rows)
    plain = [_single(f) for f in inner]
    positions, slices = (np.asarray(a).tolist() for a in (tensor.row, tensor.col))
    for place, which, value in zip(positions, slices, np.asarray(tensor.data).tolist(), strict=True):
        if value == 0.0:
            continue
        column, row = divmod(place, rows)
        if which == len(outer):
            if column == width:
                constant[row] += value
            elif (single := plain[column]) is not None:
                linear[row][single] = linear[row].get(single, 0.0) + value
            else:
                parts[row].append(inner[column].scaled(value))
        else:
            factor = outer[which].scaled(value)
            parts[row].append(factor if column == width else factor.times(inner[column]))
    return [total([Function(float(constant[r]), linear[r]), *parts[r]]) for r in range(rows)]


def _stack(leaves: Sequence[Any], functions: Mapping[int, Sequence[Function]]) -> tuple[Functions, dict[int, int]]:
    """The functions of several leaves one behind the other, and where each begins."""
    out: Functions = []
    begin: dict[int, int] = {}
    for leaf in leaves:
        begin[leaf.id] = len(out)
        out += functions[leaf.id]
    return out, begin


def _distinct(leaves: Sequence[Any]) -> list[Any]:
    return list({leaf.id: leaf for leaf in leaves}.values())


def _single(f: Function) -> int | None:
    """The column that a function merely names; None for any other function."""
    if f.constant == 0.0 and f.nonlinear is None and not f.quadratic and len(f.linear) == 1:
        ((column, factor),) = f.linear.items()
        return column if factor == 1.0 else None
    return None
