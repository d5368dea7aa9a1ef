"""What must be true of followers written in CVXPY: disciplined, parametrised, and with leaves that can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cvxpy
import numpy as np
from cvxpy.utilities.scopes import dpp_scope

from bilevel_core.errors import ModelError
from bilevel_core.problems.cvxpy_affine import shown
from bilevel_core.program import INF, Function, Variable, function_range

cp: Any = cvxpy

UNREAD = ("NSD", "hermitian", "complex", "imag", "diag", "sparsity")


def check_disciplined(objective: Any, constraints: Sequence[tuple[str, Any]], level: str) -> None:
    """A follower must be convex by CVXPY's rules, for every value of its parameters.

    Args:
        objective: the follower's, frozen (`Minimize` or `Maximize`).
        constraints: (name, frozen constraint).
        level: its name.

    Raises:
        ModelError: naming the objective or constraint at fault, the smallest part at fault, and what to write instead.
    """
    maximise = isinstance(objective, cp.Maximize)
    _check(objective, objective.args[0], f"the objective of {level!r}", "concave" if maximise else "convex")
    for name, c in constraints:
        match type(c).__name__:
            case "Inequality":
                _check(c, c.args[0] - c.args[1], f"constraint {name!r}", "convex")
            case "Equality":
                _check(c, c.args[0] - c.args[1], f"constraint {name!r}", "affine")
            case "NonPos":
                _check(c, c.args[0], f"constraint {name!r}", "convex")
            case "NonNeg":
                _check(c, c.args[0], f"constraint {name!r}", "concave")
            case _:
                for a in c.args:
                    _check(c, a, f"constraint {name!r}", "affine")


def _check(owner: Any, expression: Any, where: str, wanted: str) -> None:
    def holds() -> bool:
        return bool(getattr(expression, f"is_{wanted}")())

    with dpp_scope():
        if holds():
            return
        culprit = _smallest(expression)
    part = f" The part at fault is {shown(culprit)}." if culprit is not None else ""
    if holds():
        raise ModelError(
            f"{where[0].upper()}{where[1:]}, {shown(owner)}, is convex for fixed parameters, but not DPP.{part} A "
            "product may hold one parameter, and parameters stand in affine atoms or as factors of known sign: replace "
            "a product of parameters by a parameter of its own for a leader's variable, and declare signs "
            "(cp.Parameter(nonneg=True))."
        )
    raise ModelError(
        f"{where[0].upper()}{where[1:]}, {shown(owner)}, is not DCP: {wanted} was expected.{part} Rewrite it with "
        "CVXPY's atoms (cp.square(y) for y * y, cp.quad_form(y, P) with P positive semidefinite), or write the problem "
        "in Pyomo, where followers may be nonconvex."
    )


def _smallest(expression: Any) -> Any | None:
    """The deepest part that is neither convex nor concave by the rules while all its own parts are."""
    for a in expression.args:
        found = _smallest(a)
        if found is not None:
            return found
    return expression if expression.args and not expression.is_dcp() else None


def check_parameters(
    parameters: Sequence[Any], functions: Mapping[int, Sequence[Function]], columns: Sequence[Variable]
) -> None:
    """What a parameter's declaration says must be true of what stands for it: convexity was proven with it.

    Args:
        parameters: those with a leader's expression.
        functions: the expression, by id.
        columns: all columns, with the bounds that the leader's constraints imply.

    Raises:
        ModelError: a sign or bound that the leader's bounds do not guarantee, or an attribute that cannot be checked.
    """
    for p in parameters:
        for attribute in (*UNREAD, "PSD", "symmetric"):
            if p.attributes.get(attribute) and not (attribute == "sparsity" and p.attributes[attribute] is None):
                raise ModelError(
                    f"Parameter {p.name()!r} is declared {attribute}, which nothing guarantees of a leader's variable: "
                    "declare at most a sign."
                )
        low, high = np.full(p.size, -INF), np.full(p.size, INF)
        if p.is_nonneg():
            low = np.zeros(p.size)
        if p.is_nonpos():
            high = np.zeros(p.size)
        if getattr(p, "bounds", None) is not None:
            ends = [np.broadcast_to(np.asarray(b, dtype=float), p.shape).flatten(order="F") for b in p.bounds]
            low, high = np.maximum(low, ends[0]), np.minimum(high, ends[1])
        for f, least, most in zip(functions[p.id], low, high, strict=True):
            smallest, largest = function_range(f, columns)
            if smallest < least or largest > most:
                side = f"at least {least:g}" if smallest < least else f"at most {most:g}"
                raise ModelError(
                    f"Parameter {p.name()!r} is declared to be {side}, and what stands for it, "
                    f"{f.text([c.name for c in columns])}, need not be: give the leader's variable that bound "
                    "(cp.Variable(nonneg=True), or a constraint of the leader's on it alone)."
                )


def read_variable(v: Any) -> tuple[list[Variable], np.ndarray]:
    """A variable's columns, and which of them each entry is (row-major, shape ``(v.size,)``).

    Raises:
        ModelError: an attribute that cannot be read.
    """
    name = v.name()
    for attribute in UNREAD:
        if v.attributes.get(attribute):
            raise ModelError(
                f"Variable {name!r} is declared {attribute}, which cannot be read: build it of plain variables "
                "(cp.diag(v) of a vector, -X of a positive semidefinite one)."
            )
    if v.attributes.get("PSD") and v.shape[0] > 2:
        raise ModelError(
            f"Variable {name!r} is declared PSD with more than two rows: there are no optimality conditions for that "
            "cone here. Semidefinite matrices of 2 x 2 can be read."
        )
    low, high = np.full(v.shape, -INF), np.full(v.shape, INF)
    bounds = getattr(v, "bounds", None)
    if bounds is not None:
        if any(isinstance(b, cp.Expression) for b in bounds):
            raise ModelError(f"Variable {name!r} has bounds that are expressions: write them as constraints.")
        low, high = (np.array(np.broadcast_to(np.asarray(b, dtype=float), v.shape)) for b in bounds)
    if v.attributes.get("nonneg") or v.attributes.get("pos"):
        low = np.maximum(low, 0.0)
    if v.attributes.get("nonpos") or v.attributes.get("neg"):
        high = np.minimum(high, 0.0)
    boolean, integer = _mask(v, "boolean"), _mask(v, "integer")
    low, high = np.where(boolean, np.maximum(low, 0.0), low), np.where(boolean, np.minimum(high, 1.0), high)
    whole = boolean | integer
    low, high = np.where(whole, np.ceil(low - 1e-9), low), np.where(whole, np.floor(high + 1e-9), high)
    symmetric = bool(v.attributes.get("symmetric") or v.attributes.get("PSD"))
    columns: list[Variable] = []
    place: dict[tuple[int, ...], int] = {}
    entries: list[int] = []
    for index in np.ndindex(*v.shape):
        key = tuple(sorted(index)) if symmetric else index
        if key not in place:
            place[key] = len(columns)
            text = name if not index else f"{name}[{','.join(map(str, index))}]"
            columns.append(Variable(text, float(low[index]), float(high[index]), bool(whole[index])))
        entries.append(place[key])
    return columns, np.array(entries, dtype=int)


def _mask(v: Any, attribute: str) -> np.ndarray:
    given = v.attributes.get(attribute)
    mask = np.zeros(v.shape, dtype=bool)
    if given is True:
        mask[...] = True
    elif given:
        for index in given:
            mask[tuple(np.atleast_1d(index))] = True
    return mask


def unreadable(where: str, expression: Any, want: int) -> ModelError:
    """The error for an atom that cannot be read where it stands."""
    side = {1: "minimised or bounded above", -1: "maximised or bounded below", 0: "an exact value"}[want]
    shape = (
        "convex" if expression.is_atom_convex() else "concave" if expression.is_atom_concave() else "of no curvature"
    )
    return ModelError(
        f"{where}: {shown(expression)} cannot be read where it stands ({side}), since "
        f"{type(expression).__name__} is {shape}. Convex atoms can be minimised or bounded above, concave ones "
        "maximised or bounded below; smooth ones (powers, exp, log, products) may stand anywhere."
    )
