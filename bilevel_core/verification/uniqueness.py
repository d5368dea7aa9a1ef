"""Uniqueness of a smooth convex program's answer, by second-order conditions at it.

A point that satisfies the second-order sufficient conditions is a strict local minimum (Fiacco and McCormick 1968), and
a convex program that has one has no other minimum: the segment between two would consist of minima.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bilevel_core.program import Function, Program
from bilevel_core.traits.proof import convex_over

MOST = 60
"""Columns up to which second derivatives are written out."""
ACTIVE = 1e-6
STATIONARITY = 1e-5
STRONG = 1e-5
"""A multiplier above this share of the largest slope is positive beyond doubt."""
CURVATURE = 1e-7


@dataclass(frozen=True)
class _Active:
    """``sign * function <= side``, active; ``free`` multipliers may have any sign."""

    function: Function
    sign: float
    free: bool = False


def is_only_answer(program: Program, at: np.ndarray) -> bool:
    """Whether a program is shown to be convex and its answer to be the only one. False: not shown.

    Args:
        program: smooth, without integers.
        at: an optimal answer.
    """
    own = [i for i, c in enumerate(program.columns) if not c.fixed]
    if program.has_integers or len(own) > MOST or not _convex(program, frozenset(own)):
        return False
    try:
        return _strict_minimum(program, at, own)
    except (ValueError, ArithmeticError, RuntimeError, np.linalg.LinAlgError):  # no derivative, no multipliers
        return False


def _convex(program: Program, own: frozenset[int]) -> bool:
    if not convex_over(program.objective, program.columns, own):
        return False
    for row in program.rows:
        if row.function.degree <= 1:
            continue
        if row.equality:
            return False
        if math.isfinite(row.upper) and not convex_over(row.function, program.columns, own):
            return False
        if math.isfinite(row.lower) and not convex_over(-row.function, program.columns, own):
            return False
    return True


def _strict_minimum(program: Program, at: np.ndarray, own: list[int]) -> bool:
    from scipy.linalg import null_space
    from scipy.optimize import nnls

    active = _active(program, at, own)
    slope = _gradient(program.objective, at, own)
    rows = np.array([a.sign * _gradient(a.function, at, own) for a in active]).reshape(len(active), len(own))
    multipliers = np.zeros(len(active))
    size = float(np.abs(slope).max(initial=0.0))
    if active:
        # Rows in units of their own size, so that multipliers compare with the objective's slope.
        length = np.abs(rows).max(axis=1)
        if not (length > 0.0).all():
            return False
        scaled = rows / length[:, None]
        free = np.array([a.free for a in active])
        found = nnls(np.vstack([scaled, -scaled[free]]).T, -slope)[0]
        multipliers = found[: len(active)]
        multipliers[free] -= found[len(active) :]
        size = max(size, float(np.abs(multipliers).max()))
        if float(np.abs(slope + scaled.T @ multipliers).max()) > STATIONARITY * max(size, 1e-12):
            return False
        strong = free | (multipliers > STRONG * size)
        rows, multipliers = scaled, multipliers / length
    elif size > STATIONARITY * _steepness(program.objective, at, own):
        return False
    else:
        strong = np.zeros(0, dtype=bool)
    hessian = _hessian(program.objective, at, own)
    for a, m in zip(active, multipliers, strict=True):
        if m and a.function.degree > 1:
            hessian += m * a.sign * _hessian(a.function, at, own)
    if not np.isfinite(hessian).all():
        return False
    diagonal = np.diag(hessian)
    unit = 1.0 / np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))
    kept = rows[strong] * unit
    kept = kept / np.abs(kept).max(axis=1, keepdims=True, initial=1e-300)
    along = null_space(kept) if len(kept) else np.eye(len(own))
    if along.shape[1] == 0:
        return True
    reduced = along.T @ (hessian * np.outer(unit, unit)) @ along
    return bool(np.linalg.eigvalsh(reduced)[0] > CURVATURE)


def _active(program: Program, at: np.ndarray, own: list[int]) -> list[_Active]:
    out: list[_Active] = []
    for row in program.rows:
        f = row.function
        if f.columns.isdisjoint(own):
            continue
        if row.equality:
            out.append(_Active(f, 1.0, free=True))
            continue
        value = f.evaluate(at)
        for side, sign in ((row.upper, 1.0), (row.lower, -1.0)):
            if math.isfinite(side) and sign * (side - value) <= ACTIVE * max(f.scale(at), abs(side)):
                out.append(_Active(f, sign))
    for i in own:
        c = program.columns[i]
        for side, sign in ((c.upper, 1.0), (c.lower, -1.0)):
            if math.isfinite(side) and sign * (side - at[i]) <= ACTIVE * max(1.0, abs(side)):
                out.append(_Active(Function(linear={i: 1.0}), sign))
    return out


def _gradient(f: Function, at: np.ndarray, own: list[int]) -> np.ndarray:
    gradient = np.array([f.partial(i).evaluate(at) if i in f.columns else 0.0 for i in own])
    if not np.isfinite(gradient).all():
        raise ValueError("no gradient")
    return gradient


def _hessian(f: Function, at: np.ndarray, own: list[int]) -> np.ndarray:
    out = np.zeros((len(own), len(own)))
    for a, i in enumerate(own):
        if i not in f.columns:
            continue
        slope = f.partial(i)
        for b, j in enumerate(own[: a + 1]):
            if j in slope.columns:
                out[a, b] = out[b, a] = slope.partial(j).evaluate(at)
    return out


def _steepness(f: Function, at: np.ndarray, own: list[int]) -> float:
    """What a vanishing gradient is relative to: how much it changes over a step of each column's own size."""
    step = np.maximum(1.0, np.abs(at[own]))
    return max(float((np.abs(_hessian(f, at, own)) @ step).max(initial=0.0)), 1e-12)
