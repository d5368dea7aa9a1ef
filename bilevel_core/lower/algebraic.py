"""The lower level of an algebraic problem at a fixed x: every follower solved alone, made exact, and where it has
several optimal answers the one that suits the leader.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from bilevel_core.backends.face import natural_scale
from bilevel_core.errors import UsageError
from bilevel_core.lower.base import LowerFailedError, LowerSettings, Response
from bilevel_core.lower.choice import TIE, best_for_leader, face, is_single, lagrangian_face
from bilevel_core.lower.follower import FollowerProblem, Found
from bilevel_core.lower.multipliers import ACTIVE, Multipliers, multipliers
from bilevel_core.lower.polish import ActiveSet, fault, polish, sharpen
from bilevel_core.oracles import Oracle, Rows, Vector
from bilevel_core.oracles.algebraic import AlgebraicOracle
from bilevel_core.oracles.vanishing import answer_curvature
from bilevel_core.program import Program

POLISHED = 1e-10
"""Answers whose optimality conditions hold this well, relative to the gradient, are left as they are."""
POSITIVE = 1e-9
"""Multipliers above this, relative to the gradient's terms, are positive beyond doubt."""
SAME = 1e-7
"""How much worse for its follower, relative to the objective's largest term, an answer chosen for the leader may be."""
EQUAL = 1e-9
"""The same for answers of nonlinear followers, which no vertex makes exact."""
CURVED = 1e-9
"""Curvature above this, relative to the largest, counts as positive."""

_problems: WeakKeyDictionary[AlgebraicOracle, tuple[FollowerProblem, ...]] = WeakKeyDictionary()


def respond_algebraic(oracle: Oracle, x: np.ndarray, start: Vector | None, settings: LowerSettings) -> Response:
    """The followers' answer at ``x`` with multipliers.

    HiGHS solves linear and convex quadratic followers, and the answer is then globally optimal; Ipopt smooth nonlinear
    ones, from ``start``, and the answer is a local optimum; SCIP those with abs(). Of several optimal answers of the
    first kind the leader's best is chosen: ``unique`` is False, and ``details["choice"]`` says what the choice is:
    ``best``, ``local`` (of the leader's nonconvex objective), or ``least violation`` (every optimal answer violates
    the leader's constraints). Uniqueness of nonlinear followers' answers is not examined: None.

    Args:
        oracle: an `AlgebraicOracle`.
        x: upper variables, shape (nx,).
        start: lower variables, shape (ny,), for Ipopt; the oracle's own start by default.
        settings: method ``auto`` only; ``max_iterations`` is Ipopt's; ``hurry`` is not asked, as solves are short.

    Raises:
        LowerFailedError: a follower has no feasible answer, is unbounded, or was not solved; it names the follower.
        NonFiniteError: a value or derivative at the answer is not finite.
        UsageError: another method than ``auto``.
    """
    if not isinstance(oracle, AlgebraicOracle):
        raise UsageError(f"Expected an AlgebraicOracle, got {type(oracle).__name__}.")
    if settings.method != "auto":
        raise UsageError(
            f"Algebraic lower levels are solved by HiGHS, Ipopt or SCIP, by their class: leave the lower method at "
            f"'auto' instead of {settings.method!r}."
        )
    first = oracle.y_start() if start is None else oracle.to_numpy(start)
    values = oracle.values(x, first)
    found = [
        problem.solve(values, first[block], settings.max_iterations)
        for problem, block in zip(_prepared(oracle), oracle.blocks, strict=True)
    ]
    y = np.clip(np.concatenate([np.zeros(0), *(f.y for f in found)]), oracle.y_lower, oracle.y_upper)
    # What a derivative is relative to.
    scale = max(1.0, float(np.abs(oracle.lower_gradient(x, y)[1]).max(initial=0.0)))
    y, multiplied = _exact(oracle, x, y, found, scale)
    unique, y, choice = _choose(oracle, x, y, multiplied, found)
    return _response(oracle, x, y, multiplied, found, unique, choice, scale, settings)


def _prepared(oracle: AlgebraicOracle) -> tuple[FollowerProblem, ...]:
    problems = _problems.get(oracle)
    if problems is None:
        problems = tuple(FollowerProblem(oracle, k) for k in range(len(oracle.blocks)))
        _problems[oracle] = problems
    return problems


def _exact(
    oracle: AlgebraicOracle, x: np.ndarray, y: np.ndarray, found: list[Found], scale: float
) -> tuple[np.ndarray, Multipliers]:
    """Multipliers, and the answer moved to where the optimality conditions hold to rounding."""
    multiplied = multipliers(oracle, x, y, ACTIVE)
    by_ipopt = any(f.row_multipliers is not None for f in found)
    exact = fault(oracle, x, y, multiplied) <= POLISHED * scale
    if exact and not by_ipopt:
        return y, multiplied
    active = _strongly_active(oracle, x, y, multiplied)[0]
    if by_ipopt:
        active = _by_backend(oracle, x, y, found, active)
    if not exact:
        y, multiplied = polish(oracle, x, y, multiplied, active, POLISHED * scale)
    # A small gradient says how near y is only where there is curvature, as in every quadratic program.
    converged = by_ipopt and not any(f.message for f in found)
    return sharpen(oracle, x, y, multiplied, active) if converged else (y, multiplied)


def _by_backend(
    oracle: AlgebraicOracle, x: np.ndarray, y: np.ndarray, found: list[Found], otherwise: ActiveSet
) -> ActiveSet:
    """The active set by Ipopt's multipliers, where a follower has them: active is what has a multiplier larger than
    its slack. An interior-point answer keeps a distance from weakly active constraints that no tolerance fits.
    """
    rows = oracle.lower_rows(x, y)
    active, at_lower, at_upper = otherwise.rows.copy(), otherwise.at_lower.copy(), otherwise.at_upper.copy()
    owner = oracle.follower_of_row[0]
    for k, (follower, block) in enumerate(zip(found, oracle.blocks, strict=True)):
        if follower.row_multipliers is None or follower.bound_multipliers is None:
            continue
        sides: list[float] = []
        for row, m in zip(oracle.program.followers[k].rows, follower.row_multipliers, strict=True):
            if not row.equality:
                sides += [m] * bool(np.isfinite(row.upper)) + [-m] * bool(np.isfinite(row.lower))
        mine = owner == k
        active[mine] = np.array(sides) > -rows.g[mine]
        bound = follower.bound_multipliers
        at_lower[block] = -bound > y[block] - oracle.y_lower[block]
        at_upper[block] = bound > oracle.y_upper[block] - y[block]
    return ActiveSet(active, at_lower, at_upper)


def _choose(
    oracle: AlgebraicOracle, x: np.ndarray, y: np.ndarray, multiplied: Multipliers, found: list[Found]
) -> tuple[bool | None, np.ndarray, str]:
    """Whether the answer is the only one; if not, the one that suits the leader; and what is known of the choice."""
    active, rows, hessian = _strongly_active(oracle, x, y, multiplied)
    if any(f.program is None for f in found):
        # Curvature that vanishes at the answer alone makes it no less the only one.
        hessian = answer_curvature(oracle, x, y, multiplied.inequality, multiplied.equality).dense()
    faces: dict[int, Program] = {}
    unknown: list[int] = []
    for k, follower in enumerate(found):
        if _evidently_unique(oracle, k, hessian, rows, active):
            if follower.program is None:
                unknown.append(k)
            continue
        block = oracle.blocks[k]
        if follower.program is None:
            unknown.append(k)
            optimal = _nonlinear_face(oracle, k, x, y, multiplied, active)
            if optimal is not None:
                faces[k] = optimal
            continue
        held = _held(oracle, k, active.rows)
        optimal = face(follower.program, y[block], held, active.at_lower[block], active.at_upper[block])
        single = is_single(optimal, y[block])
        if single is None:
            unknown.append(k)
        elif not single:
            faces[k] = optimal
    several = bool(faces.keys() - set(unknown)) or None
    if not faces:
        return (None if unknown else True), y, ""
    chosen = best_for_leader(oracle.program, oracle.values(x, y), faces)
    if chosen is None:
        return (False if several else None), y, ""
    better = np.clip(chosen[0][oracle.y_columns], oracle.y_lower, oracle.y_upper)
    for k, optimal in faces.items():
        f, block = optimal.objective, oracle.blocks[k]
        size = max(natural_scale(f, y[block]), oracle.program.followers[k].objective.size)
        if f.evaluate(better[block]) - f.evaluate(y[block]) > (SAME if k not in unknown else EQUAL) * size:
            # A multiplier was too small to be told from zero, so this is not an optimal answer after all.
            return None, y, ""
    if not several:
        away = float(np.abs(better - y).max(initial=0.0)) > TIE * max(1.0, float(np.abs(y).max(initial=0.0)))
        feasible = not oracle.has_lower_rows or oracle.lower_rows(x, better).violation <= EQUAL
        if not (away and feasible):
            return None, y, ""
    return False, better, chosen[1]


def _nonlinear_face(
    oracle: AlgebraicOracle, index: int, x: np.ndarray, y: np.ndarray, multiplied: Multipliers, active: ActiveSet
) -> Program | None:
    """The other answers of a smooth follower that are as good as its answer, or None where there is no such face."""
    block = oracle.blocks[index]
    alone, _ = oracle.program.follower_at(index, oracle.values(x, y))
    inequality, equality = oracle.follower_of_row
    lam = iter(np.where(active.rows, multiplied.inequality, 0.0)[inequality == index])
    mu = iter(multiplied.equality[equality == index])
    by_row: list[float] = []
    for row in oracle.program.followers[index].rows:
        if row.equality:
            by_row.append(float(next(mu)))
            continue
        sides = [s for s, bound in ((1.0, row.upper), (-1.0, row.lower)) if np.isfinite(bound)]
        by_row.append(float(sum(s * next(lam) for s in sides)))
    try:
        return lagrangian_face(alone, y[block], np.array(by_row), active.at_lower[block], active.at_upper[block])
    except ValueError:  # a function without a derivative
        return None


def _strongly_active(
    oracle: AlgebraicOracle, x: np.ndarray, y: np.ndarray, multiplied: Multipliers
) -> tuple[ActiveSet, Rows, np.ndarray]:
    """The constraints whose multipliers are certainly positive, with the rows and the Lagrangian's Hessian.

    Positive is relative to the terms of the follower's own gradient and to its objective as written, as followers'
    objectives may differ in scale by any factor.
    """
    rows = oracle.lower_rows(x, y, jacobian=True)
    hessian = oracle.curvature(x, y, multiplied.inequality, multiplied.equality).dense()
    gradient = oracle.lower_gradient(x, y)[1]
    terms = np.maximum(np.abs(gradient), np.abs(hessian) @ np.abs(y))
    least = np.array(
        [
            POSITIVE * max(float(terms[block].max(initial=0.0)), follower.objective.size)
            for follower, block in zip(oracle.program.followers, oracle.blocks, strict=True)
        ]
    )
    by_column = np.repeat(least, [block.stop - block.start for block in oracle.blocks])
    assert rows.g_y is not None
    force = multiplied.inequality * np.abs(rows.g_y).max(axis=1, initial=0.0)
    active = ActiveSet(
        force > least[oracle.follower_of_row[0]], multiplied.at_lower > by_column, multiplied.at_upper > by_column
    )
    return active, rows, hessian


def _evidently_unique(oracle: AlgebraicOracle, index: int, hessian: np.ndarray, rows: Rows, active: ActiveSet) -> bool:
    """Whether strongly active constraints and curvature together leave no direction along which the follower's
    objective is constant: sufficient for a convex problem.
    """
    assert rows.g_y is not None
    assert rows.h_y is not None
    block = oracle.blocks[index]
    curvature = hessian[block, block]
    fixed = active.at_lower[block] | active.at_upper[block] | (oracle.y_lower[block] == oracle.y_upper[block])
    inequality, equality = oracle.follower_of_row
    gradients = np.vstack([rows.g_y[active.rows & (inequality == index), block], rows.h_y[equality == index, block]])
    gradients, curvature = gradients[:, ~fixed], curvature[np.ix_(~fixed, ~fixed)]
    if curvature.size == 0:
        return True
    size = np.linalg.norm(gradients, axis=1, keepdims=True)
    gradients = gradients / np.where(size > 0.0, size, 1.0)
    largest = float(np.abs(curvature).max())
    together = gradients.T @ gradients + (curvature / largest if largest > 0.0 else 0.0)
    return bool(np.linalg.eigvalsh(together)[0] > CURVED)


def _held(oracle: AlgebraicOracle, index: int, active: np.ndarray) -> np.ndarray:
    """A mask over g as a mask over the follower's rows as they are in the program."""
    mine = active[oracle.follower_of_row[0] == index]
    held: list[bool] = []
    at = 0
    for row in oracle.program.followers[index].rows:
        sides = 0 if row.equality else int(np.isfinite(row.lower)) + int(np.isfinite(row.upper))
        held.append(bool(mine[at : at + sides].any()))
        at += sides
    return np.array(held, dtype=bool)


def _response(
    oracle: AlgebraicOracle,
    x: np.ndarray,
    y: np.ndarray,
    multiplied: Multipliers,
    found: list[Found],
    unique: bool | None,
    choice: str,
    scale: float,
    settings: LowerSettings,
) -> Response:
    value = oracle.lower(x, y)
    message = " ".join(
        f"Follower {level.name!r}: {f.message}."
        for level, f in zip(oracle.program.followers, found, strict=True)
        if f.message
    )
    if oracle.has_lower_rows:
        violation = oracle.lower_rows(x, y).violation
        if not violation <= 1e-5 * max(1.0, float(np.abs(y).max(initial=0.0))):
            raise LowerFailedError(message or f"The answer found violates the lower constraints by {violation:.2g}.")
    met = multiplied.residual <= max(settings.tolerance, 1e-9) * scale
    if not met:
        # Where curvature is extreme the gradient cannot be smaller than what one rounding of y makes of it.
        curvature = oracle.curvature(x, y, multiplied.inequality, multiplied.equality).dense()
        rounding = 1e-15 * float((np.abs(curvature) @ np.abs(y)).max(initial=0.0))
        met = multiplied.residual <= rounding
    if not met and not message:
        message = f"The optimality conditions are met to {multiplied.residual:.2g} only."
    return Response(
        y,
        value,
        multiplied.inequality,
        multiplied.equality,
        multiplied.at_lower if oracle.has_lower_bounds else None,
        multiplied.at_upper if oracle.has_lower_bounds else None,
        residual=multiplied.residual,
        converged=met,
        iterations=sum(f.iterations for f in found),
        unique=unique,
        message="" if met else message,
        details={"choice": choice} if choice else {},
    )
