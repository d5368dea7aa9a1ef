"""The bilevel model that `trust-region` solves in its region: an easier bilevel program around a point, and its exact
solution by the optimality conditions of its followers.

Source: Colson, Marcotte and Savard (2005), A trust-region method for nonlinear bilevel programming, Computational
Optimization and Applications 30. Levels that are linear or quadratic already are taken as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from bilevel_core.backends.face import natural_scale
from bilevel_core.backends.scip import Scip
from bilevel_core.errors import BackendError
from bilevel_core.oracles.vanishing import answer_curvature
from bilevel_core.problems.base import AlgebraicProblem, Group, Residuals
from bilevel_core.program import BilevelProgram, Function, Level, Row, Variable, append_columns, linear, total
from bilevel_core.result import Claim, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.kkt.solver import KKT
from bilevel_core.traits import derive_traits

FLOOR = 1e-6
"""Eigenvalues of the follower's Lagrangian Hessian below this, relative to the largest, are raised to it."""

PATIENCE = 5.0
"""Seconds after which a model is given up: a linear one of the leader's part, or a smaller region, makes it easier."""

Complementarity = Literal["auto", "sos1", "bigm"]
Order = Literal["linear", "quadratic"]


@dataclass(frozen=True)
class Region:
    """The point around which a model stands, and how far it reaches.

    Attributes:
        x, y: the point, shapes (nx,) and (ny,).
        inequality, equality: multipliers of the lower level's rows there.
        radius: largest change of a leader's variable.
        weight: price of violating a leader's row; None for rows that must hold.
    """

    x: np.ndarray
    y: np.ndarray
    inequality: np.ndarray
    equality: np.ndarray
    radius: float
    weight: float | None = None


@dataclass(frozen=True)
class ModelAnswer:
    """What solving a model came to.

    Attributes:
        termination: why the search ended; `CONVERGED` together with no point means that none was found.
        x, y: the best point of the model; None where there is none.
        objective: the leader's model objective there, prices of violations left out.
        violation: sum of the violations of the leader's rows in the model.
        proven: whether no better point of the model exists.
    """

    termination: Termination
    x: np.ndarray | None = None
    y: np.ndarray | None = None
    objective: float = np.nan
    violation: float = 0.0
    proven: bool = False


def exact_lower(program: BilevelProgram) -> bool:
    """Whether every follower is taken as it is: linear or convex quadratic with rows whose coefficients are constant.

    Quadratic terms of the leader's own columns in a row change nothing for the follower and are kept.
    """
    functions = [g for f in program.followers for g in (f.objective, *(r.function for r in f.rows))]
    return all(g.degree <= 2 for g in functions) and all(
        f.convex is True and f.constraints == "linear" and not f.matrix_varies
        for f in derive_traits(_Stated(program)).followers
    )


def exact_upper(program: BilevelProgram, order: Order) -> bool:
    """Whether the leader's objective and rows are taken as they are."""
    most = 2 if order == "quadratic" else 1
    return program.leader.objective.degree <= most and all(r.function.degree <= most for r in program.leader.rows)


def build(oracle: Any, region: Region, order: Order) -> BilevelProgram:
    """The model: a bilevel program over the same columns, then one column a priced violation.

    Args:
        oracle: of an algebraic problem.
        region: where.
        order: of the leader's part.

    Raises:
        NonFiniteError: a value or derivative at the point is not finite.
    """
    program: BilevelProgram = oracle.program
    columns = list(program.columns)
    for i, centre in zip(oracle.x_columns.tolist(), region.x, strict=True):
        low, high = max(columns[i].lower, centre - region.radius), min(columns[i].upper, centre + region.radius)
        columns[i] = replace(columns[i], lower=float(low), upper=float(max(low, high)))
    followers = program.followers if exact_lower(program) else (_lower_model(oracle, region),)
    leader = replace(
        program.leader, objective=_upper_objective(oracle, region, order), rows=_upper_rows(oracle, region, order)
    )
    model = replace(program, columns=tuple(columns), leader=leader, followers=followers)
    return model if region.weight is None else _priced(model, region.weight)


def solve(
    oracle: Any, model: BilevelProgram, context: RunContext, complementarity: Complementarity, gap: float
) -> ModelAnswer:
    """The model's best point, by the same search as the solver ``kkt``, given up after `PATIENCE` seconds.

    The search sees the leader's objective without its constant and with its largest coefficient at 1: its tolerances
    are absolute, and what is optimal does not depend on the unit of F.
    """
    width = len(oracle.program.columns)
    if complementarity == "auto":
        complementarity = "sos1" if Scip().available().available else "bigm"
    method = KKT(complementarity=complementarity, gap=gap)
    if complementarity == "sos1":
        method = replace(method, backend="scip")
    remaining = context.remaining()
    inner = RunContext(time_limit=PATIENCE if remaining is None else min(PATIENCE, remaining), seed=context.seed)
    stated = _Stated(replace(model, leader=replace(model.leader, objective=_unit(model.leader.objective, width))))
    try:
        result = method.run(stated, inner)
    except BackendError:
        return ModelAnswer(Termination.ERROR)  # a smaller region makes an easier model
    if result.termination is Termination.STOPPED_BY_USER:
        raise KeyboardInterrupt
    oracle.counts["nodes"] += result.counts.get("nodes", 0)
    if not result.has_point:
        return ModelAnswer(result.termination)
    values = stated.vector(result.x, result.y)
    violation = float(values[width:].sum())
    priced = model.leader.objective.evaluate(values)
    prices = sum(model.leader.objective.linear.get(i, 0.0) * values[i] for i in range(width, len(values)))
    x = np.clip(values[list(oracle.x_columns)], oracle.x_lower, oracle.x_upper)
    y = np.clip(values[list(oracle.y_columns)], oracle.y_lower, oracle.y_upper)
    return ModelAnswer(result.termination, x, y, priced - prices, violation, result.claim is Claim.GLOBAL)


def _unit(f: Function, width: int) -> Function:
    """An objective without its constant, its largest coefficient over the first ``width`` columns at 1."""
    sizes = [abs(c) for i, c in f.linear.items() if i < width] + [abs(c) for c in f.quadratic.values()]
    largest = max(sizes, default=0.0)
    plain = replace(f, constant=0.0)
    return plain if f.nonlinear is not None or largest == 0.0 else plain.scaled(1.0 / largest)


def leader_scale(oracle: Any, x: np.ndarray, y: np.ndarray) -> float:
    """What differences of the leader's objective are relative to: its largest term, or what a unit step changes it by.

    The constant plays no part, and multiplying F multiplies this.
    """
    f: Function = oracle.program.leader.objective
    if f.nonlinear is None:
        return natural_scale(f, oracle.values(x, y))
    _, by_x, by_y = oracle.upper_gradients(x, y)
    steps = np.concatenate([np.abs(by_x) * np.maximum(1.0, np.abs(x)), np.abs(by_y) * np.maximum(1.0, np.abs(y))])
    return float(steps.max(initial=0.0)) or 1.0


def convex_part(matrix: np.ndarray) -> np.ndarray:
    """The matrix with eigenvalues below a small positive floor raised to it, shape (n, n)."""
    if matrix.size == 0:
        return matrix
    symmetric = 0.5 * (matrix + matrix.T)
    values, vectors = np.linalg.eigh(symmetric)
    floor = FLOOR * max(1.0, float(np.abs(values).max()))
    if values[0] >= floor:
        return symmetric
    return (vectors * np.maximum(values, floor)) @ vectors.T


def _lower_model(oracle: Any, region: Region) -> Level:
    """All followers as one convex quadratic program; they are independent, so their sum has the same answers.

    The objective's curvature is that of the Lagrangian, since the rows are linearised: the answer then moves with x as
    the true one does, to first order.
    """
    x, y = region.x, region.y
    _, slope = oracle.lower_gradient(x, y)
    curvature = answer_curvature(oracle, x, y, region.inequality, region.equality)
    own, mixed = convex_part(curvature.dense()), curvature.dense_mixed()
    xs, ys = tuple(oracle.x_columns.tolist()), tuple(oracle.y_columns.tolist())
    first = np.asarray(slope) - own @ y - mixed @ x
    quadratic: dict[tuple[int, int], float] = {}
    for a, i in enumerate(ys):
        for b in range(a, len(ys)):
            _add(quadratic, i, ys[b], own[a, b] * (0.5 if a == b else 1.0))
        for b, j in enumerate(xs):
            _add(quadratic, i, j, mixed[a, b])
    objective = replace(linear({i: float(c) for i, c in zip(ys, first, strict=True)}), quadratic=quadratic)
    rows = _linearised(oracle, oracle.lower_rows(x, y, jacobian=True), x, y)
    return Level("follower", objective, rows, ys)


def _add(quadratic: dict[tuple[int, int], float], i: int, j: int, value: float) -> None:
    if value != 0.0:
        quadratic[(i, j) if i <= j else (j, i)] = float(value)


def _upper_objective(oracle: Any, region: Region, order: Order) -> Function:
    """The leader's objective as it is, or its Taylor polynomial."""
    f: Function = oracle.program.leader.objective
    if f.degree <= (2 if order == "quadratic" else 1):
        return f
    value, by_x, by_y = oracle.upper_gradients(region.x, region.y)
    columns = (*oracle.x_columns.tolist(), *oracle.y_columns.tolist())
    slope = {i: float(c) for i, c in zip(columns, np.concatenate([by_x, by_y]), strict=True)}
    at = oracle.values(region.x, region.y)
    first = linear(slope, value - sum(c * at[i] for i, c in slope.items()))
    return first if order == "linear" else first + _second_order(f, at)


def _second_order(f: Function, at: np.ndarray) -> Function:
    """``0.5 d' H d`` of the displacement d from a point; nothing where a second derivative is missing."""
    parts: list[Function] = []
    try:
        for i in sorted(f.columns):
            slope = f.partial(i)
            for j in sorted(k for k in slope.columns if k >= i):
                second = slope.partial(j).evaluate(at)
                if not np.isfinite(second):
                    return Function()
                half = 0.5 if i == j else 1.0
                parts.append(
                    linear({i: 1.0}, -float(at[i])).times(linear({j: 1.0}, -float(at[j]))).scaled(half * second)
                )
    except ValueError:  # a function without a derivative: the model stays linear
        return Function()
    return total(parts)


def _upper_rows(oracle: Any, region: Region, order: Order) -> tuple[Row, ...]:
    rows: tuple[Row, ...] = oracle.program.leader.rows
    if all(r.function.degree <= (2 if order == "quadratic" else 1) for r in rows):
        return rows
    return _linearised(oracle, oracle.upper_rows(region.x, region.y, jacobian=True), region.x, region.y)


def _linearised(oracle: Any, rows: Any, x: np.ndarray, y: np.ndarray) -> tuple[Row, ...]:
    columns = (*oracle.x_columns.tolist(), *oracle.y_columns.tolist())
    at = np.concatenate([x, y])
    out: list[Row] = []
    for kind, values, by_x, by_y in (("g", rows.g, rows.g_x, rows.g_y), ("h", rows.h, rows.h_x, rows.h_y)):
        if not len(values):
            continue
        for k, slope in enumerate(np.hstack([by_x, by_y])):
            body = linear({i: float(c) for i, c in zip(columns, slope, strict=True)}, float(values[k] - slope @ at))
            low = {"lower": 0.0} if kind == "h" else {}
            out.append(Row(f"{kind}{k}", body, upper=0.0, **low))
    return tuple(out)


def _priced(model: BilevelProgram, weight: float) -> BilevelProgram:
    """Each finite side of the leader's rows may be violated at a price; the violations are columns of the leader."""
    width = len(model.columns)
    slacks: list[Variable] = []
    rows: list[Row] = []
    for row in model.leader.rows:
        for side, bound, sign in (("upper", row.upper, -1.0), ("lower", row.lower, 1.0)):
            if np.isfinite(bound):
                column = width + len(slacks)
                slacks.append(Variable(f"violation[{row.name}:{side}]", 0.0))
                body = row.function + linear({column: sign})
                rows.append(Row(f"{row.name}:{side}", body, **({"upper": bound} if sign < 0.0 else {"lower": bound})))
    added = range(width, width + len(slacks))
    leader = replace(
        model.leader,
        objective=model.leader.objective + linear(dict.fromkeys(added, weight)),
        rows=tuple(rows),
        columns=(*model.leader.columns, *added),
    )
    return replace(model, columns=append_columns(model.columns, slacks), leader=leader)


class _Stated(AlgebraicProblem):
    """A program that stands for itself, with one array of all columns a level."""

    name = "model"

    def __init__(self, program: BilevelProgram) -> None:
        self._program = program

    def program(self) -> BilevelProgram:
        return self._program

    def groups(self) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
        lower = self._program.lower_columns
        upper = tuple(i for i in range(len(self._program.columns)) if i not in set(lower))
        return (Group("x", (len(upper),), upper),), (Group("y", (len(lower),), lower),)

    def evaluate(self, values: np.ndarray) -> Residuals:
        program = self._program
        return Residuals(
            program.leader.in_users_sense(program.leader.objective.evaluate(values)),
            tuple(f.in_users_sense(f.objective.evaluate(values)) for f in program.followers),
            _violations(program.leader.rows, values),
            tuple(v for f in program.followers for v in _violations(f.rows, values)),
        )


def _violations(rows: Sequence[Row], values: np.ndarray) -> tuple[tuple[str, float, float], ...]:
    return tuple((r.name, r.violation(values), r.function.scale(values)) for r in rows)
