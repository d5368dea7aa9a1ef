"""Bounds for the pairs of an optimality system: where a big-M may come from, and whether it is proven.

Slacks: interval arithmetic over the columns' bounds, else a linear program over the high-point relaxation. Both are
valid, since every bilevel feasible point lies in that relaxation.

Multipliers: the relaxation says nothing of them (finding valid bounds is NP-hard in general: Kleinert, Labbé, Plein
and Schmidt 2020). Two proofs are tried. (1) By Carathéodory's theorem every optimal answer has multipliers whose
columns of the stationarity system are linearly independent; where the system is small all its bases are enumerated,
and the largest basic multiplier bounds what is needed. (2) A linear program that maximises the multiplier over the
stationarity system and the high-point relaxation; finite where the multipliers are bounded altogether.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from bilevel_core.backends import SolveStatus
from bilevel_core.backends.highs import Highs
from bilevel_core.errors import BackendError
from bilevel_core.program import INF, Function, Program, Row, Variable, function_range, linear
from bilevel_core.reductions.bigm import PairBounds
from bilevel_core.reductions.kkt import OptimalityConditions
from bilevel_core.reductions.pairs import Pair

MAX_BASES = 20_000
MOST_COLUMNS = 200
"""Systems of more multipliers have too many bases to be worth a closer look."""
MANY = 200
"""More multipliers than this are bounded together, by one linear program."""
GUESS = 1e3
MARGIN = 1.0 + 1e-6
"""A proven bound is widened by this factor (and 1e-6), so that tolerances cannot make it cut."""


def derive_bounds(
    system: Program,
    high_point: Program,
    conditions: OptimalityConditions,
    out_of_time: Callable[[], bool] = lambda: False,
    pairs: Collection[Pair] | None = None,
) -> list[PairBounds]:
    """The bounds that can be proven: one entry per complementarity pair, in order.

    Args:
        system: what ``conditions`` produced.
        high_point: the high-point relaxation, possibly with a cut on the objective.
        conditions: the reduction that was applied.
        out_of_time: asked between solves; once it says so, what is not proven yet stays unproven.
        pairs: those that need bounds; all by default.

    Returns:
        A bound without proof is infinite and marked unproven.
    """
    ranges = _Ranges(_relaxed(high_point), out_of_time)
    asked = None if pairs is None else set(pairs)
    chosen = [m for m in conditions.multipliers if asked is None or (m.column, m.slack_column) in asked]
    wanted = {m.column for m in chosen}
    dual = _multiplier_bounds(system, conditions, ranges, out_of_time, wanted)
    out: list[PairBounds] = []
    for m in chosen:
        multiplier, slack = dual.get(m.column, math.inf), _widen(max(0.0, ranges(m.slack)[1]))
        out.append(PairBounds(multiplier, slack, math.isfinite(multiplier), math.isfinite(slack)))
    return out


def derive_multiplier_bounds(
    system: Program,
    high_point: Program,
    conditions: OptimalityConditions,
    wanted: Collection[int],
    out_of_time: Callable[[], bool] = lambda: False,
) -> dict[int, tuple[float, float]]:
    """Proven bounds (lowest, highest) of the multiplier columns ``wanted``, of inequalities and equalities alike.

    Arguments as for `derive_bounds`. A column without a proof is left out.
    """
    ranges = _Ranges(_relaxed(high_point), out_of_time)
    signed = {m.column for m in conditions.multipliers}
    found = _multiplier_bounds(system, conditions, ranges, out_of_time, set(wanted))
    return {c: (0.0 if c in signed else -b, b) for c, b in found.items()}


def first_bounds(
    derived: Sequence[PairBounds],
    multiplier_bound: float | Sequence[float | None] | None,
    slack_bound: float | Sequence[float | None] | None,
) -> list[PairBounds]:
    """The bounds to start with: proven ones; a user's where it is smaller (then unproven) or nothing is proven; else
    a guess. A user's bounds are one number for all, or one a pair.
    """
    count = len(derived)
    multipliers = multiplier_bound if isinstance(multiplier_bound, Sequence) else [multiplier_bound] * count
    slacks = slack_bound if isinstance(slack_bound, Sequence) else [slack_bound] * count
    out: list[PairBounds] = []
    for d, by_multiplier, by_slack in zip(derived, multipliers, slacks, strict=True):
        multiplier, multiplier_proven = _choose(d.multiplier, by_multiplier)
        slack, slack_proven = _choose(d.slack, by_slack)
        out.append(PairBounds(multiplier, slack, multiplier_proven, slack_proven))
    return out


def enlarge(
    bounds: Sequence[PairBounds], derived: Sequence[PairBounds], touched: Sequence[tuple[int, str]]
) -> list[PairBounds]:
    """The bounds named in ``touched`` (pair, ``multiplier`` or ``slack``) tenfold, or proven where that is less."""
    out = list(bounds)
    for k, kind in touched:
        if kind == "multiplier":
            value, proven = _choose(derived[k].multiplier, 10.0 * out[k].multiplier)
            out[k] = replace(out[k], multiplier=value, multiplier_proven=proven)
        else:
            value, proven = _choose(derived[k].slack, 10.0 * out[k].slack)
            out[k] = replace(out[k], slack=value, slack_proven=proven)
    return out


def unproven(bounds: Sequence[PairBounds]) -> list[tuple[int, str]]:
    """(pair, ``multiplier`` or ``slack``) for every bound that is not proven."""
    out = [(k, "multiplier") for k, b in enumerate(bounds) if not b.multiplier_proven]
    return out + [(k, "slack") for k, b in enumerate(bounds) if not b.slack_proven]


def _relaxed(high_point: Program) -> Program:
    return replace(
        high_point,
        columns=tuple(replace(c, integer=False) for c in high_point.columns),
        rows=tuple(r for r in high_point.rows if r.function.degree <= 1),
    )


def _widen(bound: float) -> float:
    return bound * MARGIN + 1e-6 if bound > 0.0 else 0.0


def _choose(proven: float, given: float | None) -> tuple[float, bool]:
    if math.isfinite(proven):
        return (proven, True) if given is None or given >= proven else (given, False)
    return (GUESS if given is None else given), False


class _Ranges:
    """The range of a function over a linear relaxation, as (lowest, highest); infinite where not known."""

    def __init__(self, relaxation: Program, out_of_time: Callable[[], bool]) -> None:
        self.relaxation = relaxation
        self.out_of_time = out_of_time

    def __call__(self, f: Function) -> tuple[float, float]:
        low, high = function_range(f, self.relaxation.columns)
        if f.degree > 1:
            return low, high
        if not math.isfinite(low):
            low = -self._largest(-f)
        if not math.isfinite(high):
            high = self._largest(f)
        return low, high

    def _largest(self, f: Function) -> float:
        if self.out_of_time():
            return math.inf
        try:
            solution = Highs().solve(replace(self.relaxation, objective=-f))
        except BackendError:
            return math.inf
        return -solution.objective if solution.status is SolveStatus.OPTIMAL else math.inf


def _multiplier_bounds(
    system: Program,
    conditions: OptimalityConditions,
    ranges: _Ranges,
    out_of_time: Callable[[], bool],
    wanted: set[int],
) -> dict[int, float]:
    """Proven bounds on the size of the multipliers ``wanted``; a column is absent where there is no proof."""
    signed = {m.column for m in conditions.multipliers}
    width = len(ranges.relaxation.columns)
    slack_columns = {m.slack_column for m in conditions.multipliers}
    dual_columns = {k for k in range(width, len(system.columns)) if k not in slack_columns}
    # Multipliers in which anyone but the stationarity system has a say cannot be chosen basic.
    stationarity = {id(r) for r in conditions.stationarity}
    free = dual_columns - system.objective.columns
    free = free.difference(*(r.function.columns for r in system.rows if id(r) not in stationarity))
    out: dict[int, float] = {}
    for block in _blocks(list(conditions.stationarity), dual_columns):
        if out_of_time():
            break
        out.update(_block_bounds(block, dual_columns, free, signed, ranges, out_of_time, wanted))
    return out


def _blocks(rows: list[Row], dual_columns: set[int]) -> list[list[Row]]:
    """Stationarity rows that share no multiplier fall apart: bases are enumerated in each part alone."""
    block = list(range(len(rows)))

    def root(k: int) -> int:
        while block[k] != k:
            block[k] = block[block[k]]
            k = block[k]
        return k

    first: dict[int, int] = {}
    for k, row in enumerate(rows):
        for column in row.function.columns & dual_columns:
            block[root(k)] = root(first.setdefault(column, k))
    members: dict[int, list[Row]] = {}
    for k, row in enumerate(rows):
        if not row.function.columns.isdisjoint(dual_columns):
            members.setdefault(root(k), []).append(row)
    return list(members.values())


def _block_bounds(
    rows: list[Row],
    dual_columns: set[int],
    free: set[int],
    inequality: set[int],
    ranges: _Ranges,
    out_of_time: Callable[[], bool],
    wanted: set[int],
) -> Mapping[int, float]:
    columns = sorted({i for r in rows for i in r.function.columns & dual_columns})
    if wanted.isdisjoint(columns):
        return {}
    position = {c: k for k, c in enumerate(columns)}
    matrix = np.zeros((len(rows), len(columns)))
    low, high = np.zeros(len(rows)), np.zeros(len(rows))
    for k, row in enumerate(rows):
        f = row.function
        if f.nonlinear is not None or any(i in dual_columns or j in dual_columns for i, j in f.quadratic):
            return {}  # coefficients of multipliers vary with x or y: no constant system to enumerate
        for i, c in f.linear.items():
            if i in position:
                matrix[k, position[i]] = c
        rest = Function(f.constant, {i: c for i, c in f.linear.items() if i not in position}, f.quadratic)
        low[k], high[k] = ranges(rest)
    signs = np.array([c in inequality for c in columns])
    found = None
    if free.issuperset(columns) and np.isfinite(low).all() and np.isfinite(high).all():
        found = _enumerate(matrix, low, high, signs)
    if found is None:
        chosen = [k for k, c in enumerate(columns) if c in wanted]
        found = _by_program(matrix, low, high, signs, chosen, out_of_time)
    return {c: _widen(found[k]) for k, c in enumerate(columns) if c in wanted and math.isfinite(found[k])}


def _enumerate(matrix: np.ndarray, low: np.ndarray, high: np.ndarray, signs: np.ndarray) -> np.ndarray | None:
    """The largest basic multipliers of ``matrix @ multiplier = -b`` over all bases and all b in [low, high]."""
    if matrix.shape[1] > MOST_COLUMNS:
        return None
    rows = _independent_rows(matrix)
    a, b_low, b_high = matrix[rows], low[rows], high[rows]
    rank = len(rows)
    if rank == 0 or math.comb(matrix.shape[1], rank) > MAX_BASES:
        return None
    largest = np.zeros(matrix.shape[1])
    for basis in combinations(range(matrix.shape[1]), rank):
        square = a[:, basis]
        if np.linalg.svd(square, compute_uv=False)[-1] < 1e-10:
            continue
        inverse = -np.linalg.inv(square)
        ends = inverse[:, :, None] * np.stack([b_low, b_high], axis=1)[None, :, :]
        upper, lower = ends.max(axis=2).sum(axis=1), ends.min(axis=2).sum(axis=1)
        # A basis that needs a negative multiplier for every b belongs to no optimal answer.
        signed = signs[list(basis)]
        if (upper[signed] < -1e-9).any():
            continue
        for k, top, bottom in zip(basis, upper, lower, strict=True):
            largest[k] = max(largest[k], top if signs[k] else max(top, -bottom))
    return largest


def _independent_rows(matrix: np.ndarray) -> list[int]:
    rows: list[int] = []
    for k in range(len(matrix)):
        if np.linalg.matrix_rank(matrix[[*rows, k]]) == len(rows) + 1:
            rows.append(k)
    return rows


def _by_program(
    matrix: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    signs: np.ndarray,
    chosen: Sequence[int],
    out_of_time: Callable[[], bool],
) -> np.ndarray:
    """The largest size of each chosen multiplier over ``-high <= matrix @ multiplier <= -low``; infinite where none.

    Where many signed ones are chosen, their largest sum bounds them all: one program instead of one each.
    """
    columns = tuple(Variable(f"m{k}", 0.0 if s else -INF) for k, s in enumerate(signs))
    slopes = [linear({int(j): float(matrix[k, j]) for j in np.flatnonzero(matrix[k])}) for k in range(len(matrix))]
    rows = tuple(Row(f"r{k}", f, -float(high[k]), -float(low[k])) for k, f in enumerate(slopes))
    out = np.full(len(columns), math.inf)
    if len(chosen) > MANY and signs[list(chosen)].all():
        if not out_of_time():
            out[list(chosen)] = max(0.0, _largest_value(Program(columns, linear(dict.fromkeys(chosen, -1.0)), rows)))
        return out
    for k in chosen:
        if out_of_time():
            break
        sizes = [_largest_value(Program(columns, linear({k: -s}), rows)) for s in ((1.0,) if signs[k] else (1.0, -1.0))]
        out[k] = max(0.0, *sizes)
    return out


def _largest_value(program: Program) -> float:
    """The negated optimal value; minus infinity where there is no point, infinity where it is not known."""
    try:
        solution = Highs().solve(program)
    except BackendError:
        return math.inf
    if solution.status is SolveStatus.OPTIMAL:
        return -solution.objective
    return -math.inf if solution.status is SolveStatus.INFEASIBLE else math.inf  # no optimal answer at all
