"""Solving the single-level program of a chain: choosing the backend, watching progress, cleaning the point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bilevel_core.backends import Backend, Solution, SolveSettings
from bilevel_core.backends.highs import Highs
from bilevel_core.backends.ipopt import Ipopt
from bilevel_core.errors import BackendError, MissingError, RefusedError
from bilevel_core.plugins.registry import get_registry
from bilevel_core.program import Level, Program
from bilevel_core.run import RunContext
from bilevel_core.solvers.units import Unit, largest_term

PREFERRED = ("highs", "scip")


def pick(program: Program, wanted: str = "auto") -> Backend:
    """The backend for a program: the one asked for, else HiGHS where it can, else SCIP, else a plugin's that can.

    Raises:
        UsageError: there is no backend of that name.
        RefusedError: the backend asked for, or every global one, does not take the program.
        MissingError: it does not work here.
    """
    registry = get_registry()
    names = [wanted]
    if wanted == "auto":
        names = [*PREFERRED, *(n for n in registry.backends if n not in PREFERRED)]
    reasons: list[str] = []
    for name in names:
        backend: Backend = registry.find("backends", name).load()()
        if wanted == "auto" and backend.scope != "global":
            continue
        reason = backend.refusal(program)
        if reason is None:
            state = backend.available()
            if state.available:
                return backend
            reason = f"it does not work here: {state.reason}"
            if wanted != "auto":
                raise MissingError(f"Backend {name!r}: {reason}. See `bilevel doctor`.")
        reasons.append(f"{name}: {reason}")
    raise RefusedError("No backend takes the reformulated problem. " + "; ".join(reasons) + ".")


def settings(
    context: RunContext,
    level: Level,
    *,
    gap: float | None = None,
    options: Mapping[str, Any] | None = None,
    start: np.ndarray | None = None,
    unit: Unit | None = None,
) -> SolveSettings:
    """Settings that report to the run. ``level`` is the leader: figures are shown in its sense, and with ``unit``, in
    which its objective was restated, as those of the objective given: then the gap is absolute, too, since a constant
    is gone that may have been all of the value.
    """
    best: list[float] = []
    back = (unit or Unit()).back

    def progress(objective: float | None, bound: float | None, nodes: int) -> bool:
        shown = None if bound is None else level.in_users_sense(back(bound))
        if objective is None:
            return context.report("iteration", objective=None, bound=shown, nodes=nodes)
        value = level.in_users_sense(back(objective))
        improved = not best or objective < best[-1] - 1e-9 * abs(best[-1])
        if improved:
            best.append(objective)
        kind = "incumbent" if improved else "iteration"
        return context.report(kind, objective=value, bound=shown, nodes=nodes)

    return SolveSettings(
        time_limit=context.remaining(),
        seed=context.seed,
        gap=gap,
        absolute_gap=None if unit is None else gap,
        start=start,
        options=dict(options or {}),
        progress=progress,
    )


def polish(program: Program, values: np.ndarray, time_limit: float | None = None) -> Solution | None:
    """The same point without the branch-and-bound's tolerances.

    Integers are fixed at the nearest integer, and of each pair or set all columns but one at zero: the largest first;
    where that leaves nothing, the first that differs from zero at all (a tiny multiplier beside a large slack may be
    the true one). What is left is solved again to a tight tolerance, within ``time_limit`` but at least a second and
    at most thirty for each try.

    Returns:
        None when neither choice can be solved to a point that is as clean as the one given.
    """
    seconds = 30.0 if time_limit is None else min(30.0, max(1.0, time_limit))
    best: Solution | None = None
    before = max(1e-9, program.violation(values))
    for choice in PIECES:
        rest = piece(program, values, choice)
        for backend in (Highs(), Ipopt()):
            if backend.accepts(rest) is not None:
                continue
            try:
                found = backend.solve(rest, SolveSettings(start=values, time_limit=seconds))
            except BackendError:
                continue
            if found.values is None or not found.solved or program.violation(found.values) > before:
                continue
            if best is None or found.objective < best.objective:
                best = found
            if found.objective <= program.objective.evaluate(values) + 1e-7 * largest_term(program, values):
                return best  # as good as it was: nothing more to gain
        if best:
            break
    return best


def _largest(values: np.ndarray, group: tuple[int, ...]) -> int:
    return max(group, key=lambda k: abs(values[k]))


def _first_nonzero(values: np.ndarray, group: tuple[int, ...]) -> int:
    return next((k for k in group if abs(values[k]) > TRACE), group[0])


TRACE = 1e-12
"""Up to this a column of a pair counts as exactly zero."""


PIECES = (_largest, _first_nonzero)
"""Ways to say which column of a pair or set differs from zero at a point, in the order in which to try them."""


def piece(
    program: Program,
    values: np.ndarray,
    choice: Callable[[np.ndarray, tuple[int, ...]], int] = _largest,
    *,
    integers: bool = True,
) -> Program:
    """The part of a program on which a point lies: of each pair or set one column left free, integers fixed (unless
    ``integers`` says otherwise).
    """
    fixed: dict[int, float] = {}
    for i, c in enumerate(program.columns):
        if c.integer and integers:
            fixed[i] = float(round(values[i]))
    for z, value, k in program.indicators:
        if round(values[z]) == value:
            fixed[k] = 0.0
    for group in (*program.complementarities, *program.sos1):
        keep = choice(values, group)
        fixed.update({k: 0.0 for k in group if k != keep})
    rest = replace(program.fix(fixed), complementarities=(), sos1=(), indicators=())
    # Rows whose columns are all fixed hold up to rounding only; `violation` on the whole program checks them.
    rows = [r for r in rest.rows if not all(rest.columns[i].fixed for i in r.function.columns)]
    return replace(rest, rows=tuple(rows))
