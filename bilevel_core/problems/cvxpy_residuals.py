"""How far a point is from satisfying constraints written in CVXPY, by CVXPY's own values of its expressions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Residual = tuple[str, float, float]


def constraint_residuals(constraint: Any, name: str) -> Iterator[Residual]:
    """(name, violation, scale) of each entry, the leaves' values being set; NaN where an expression has no value."""
    values = [_value(a) for a in constraint.args]
    match type(constraint).__name__:
        case "Inequality":
            yield from _rows(name, values[0] - values[1], *values)
        case "NonPos":
            yield from _rows(name, values[0], values[0])
        case "NonNeg":
            yield from _rows(name, -values[0], values[0])
        case "Equality":
            yield from _rows(name, np.abs(values[0] - values[1]), *values)
        case "Zero":
            yield from _rows(name, np.abs(values[0]), values[0])
        case "SOC":
            axis = constraint.axis if values[1].ndim == 2 else None
            sizes = np.atleast_1d(np.linalg.norm(values[1], axis=axis))
            yield from _rows(name, sizes - np.atleast_1d(values[0]), sizes)
        case "ExpCone":
            x, y, z = values
            yield from _rows(name, np.where(y == 0.0, np.where(x <= 0.0, 0.0, np.inf), y * np.exp(x / y)) - z, z)
            yield from _rows(f"{name}:y", -y, y)
        case "PSD":
            matrix = 0.5 * (values[0] + values[0].T)
            least = np.linalg.eigvalsh(matrix)[0] if np.isfinite(matrix).all() else np.nan
            yield from _rows(name, -np.asarray(least), np.asarray(np.abs(matrix).max()))
        case kind:
            raise TypeError(f"No residual for a constraint of type {kind}.")


def domain_residuals(expression: Any, name: str) -> Iterator[Residual]:
    """The same for where an expression's atoms are defined: ``power(y, 3)`` has no meaning for negative y.

    What variables are declared to be is not looked at here: that is for whoever owns them.
    """
    for argument in expression.args:
        yield from domain_residuals(argument, name)
    if expression.args:
        for constraint in expression._domain():
            yield from constraint_residuals(constraint, f"{name}:domain")


def number(expression: Any) -> float:
    """The value of a scalar expression; NaN where it has none."""
    return float(_value(expression).reshape(-1)[0])


def _value(expression: Any) -> np.ndarray:
    value = expression.value
    if value is None or np.iscomplexobj(value):
        return np.full(expression.shape, np.nan)
    return np.asarray(value.toarray() if hasattr(value, "toarray") else value, dtype=float)


def _rows(name: str, excess: np.ndarray, *sides: np.ndarray) -> Iterator[Residual]:
    excess = np.asarray(excess, dtype=float)
    scale = np.ones(excess.shape)
    for side in sides:
        scale = np.maximum(scale, np.where(np.isfinite(side), np.abs(side), 1.0))
    flat, scales = excess.flatten(order="F"), scale.flatten(order="F")
    for k, (e, s) in enumerate(zip(flat, scales, strict=True)):
        yield (name if flat.size == 1 else f"{name}[{k}]"), float(e) if np.isnan(e) else max(0.0, float(e)), float(s)
