"""One peer on the statements on stdin, one JSON object a line; run by algebraic.py with the peer's own Python.

    python algebraic_peer.py PEER SECONDS < STATEMENTS

Prints one line a problem, ``ROW`` and a JSON object: problem, found, seconds; or refused, failed with the reason. Each
model is written in the peer's own terms from the same statement; a first solve is not timed, so that no import is.
Building and solving are timed; none of them checks what it returns. A solve that is not over after the seconds
given ends the process.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from bilevel_problems.statement import Level, Statement

Found = tuple[float, bool]
"""The leader's objective, and whether the peer calls it optimal."""


class Refused(Exception):
    """The peer does not take this class of problem."""


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def sides(level: Level, values: dict[str, Any], functions: dict[str, Any]) -> list[tuple[Any, str, Any]]:
    return [(row.left(values, functions), row.relation, row.right(values, functions)) for row in level.rows]


def related(row: tuple[Any, str, Any]) -> Any:
    left, relation, right = row
    return left <= right if relation == "<=" else left >= right if relation == ">=" else left == right


def pao(s: Statement) -> Found:
    """Fortuny-Amat and McCarl's big-M model, M = 1e5 as by default, with HiGHS."""
    import pao as package
    import pao.pyomo
    import pyomo.environ as pyo

    if s.follower_class != "LP":
        raise Refused("linear followers only")
    upper, lower = s.levels
    m = pyo.ConcreteModel()
    leaders = {n: pyo.Var(bounds=(finite(a), finite(b))) for n, (a, b) in upper.bounds.items()}
    for n, v in leaders.items():
        m.add_component(n, v)
    m.follower = package.pyomo.SubModel(fixed=list(leaders.values()))
    followers = {n: pyo.Var(bounds=(finite(a), finite(b))) for n, (a, b) in lower.bounds.items()}
    for n, v in followers.items():
        m.follower.add_component(n, v)
    values, functions = {**leaders, **followers}, {"exp": pyo.exp, "log": pyo.log}
    for block, level in ((m, upper), (m.follower, lower)):
        sense = pyo.maximize if level.maximise else pyo.minimize
        block.objective = pyo.Objective(expr=level.objective(values, functions) + 0, sense=sense)
        block.rows = pyo.ConstraintList()
        for row in sides(level, values, functions):
            block.rows.add(related(row))
    for part in (m.objective, m.follower.objective, *m.rows.values(), *m.follower.rows.values()):
        if (part.body if part.ctype is pyo.Constraint else part.expr).polynomial_degree() not in (0, 1):
            raise Refused("linear terms only")
    done = package.Solver("pao.pyomo.FA", mip_solver="appsi_highs").solve(m)
    return float(pyo.value(m.objective)), str(done.solver.termination_condition).endswith("optimal")


def discopt_dual(s: Statement) -> Found:
    """discopt by strong duality: its way that asks for no bound on multipliers."""
    return discopt(s, "strong_duality", None)


def discopt_kkt(s: Statement) -> Found:
    """discopt by optimality conditions with multipliers up to 1000, which is enough for most of these problems."""
    return discopt(s, "kkt", 1000.0)


def discopt(s: Statement, method: str, bound: float | None) -> Found:
    """Any way of discopt's."""
    import discopt.modeling as dm
    from discopt.bilevel import BilevelProblem

    upper, lower = s.levels
    m = dm.Model("problem")
    leaders = {n: m.continuous(n, lb=a, ub=b) for n, (a, b) in upper.bounds.items()}
    followers = {n: m.continuous(n, lb=a, ub=b) for n, (a, b) in lower.bounds.items()}
    values, functions = {**leaders, **followers}, {"exp": dm.exp, "log": dm.log}
    goal = upper.objective(values, functions)
    (m.maximize if upper.maximise else m.minimize)(goal)
    for row in sides(upper, values, functions):
        m.subject_to(related(row))
    try:
        problem = BilevelProblem(
            m,
            upper_vars=list(leaders.values()),
            lower_vars=list(followers.values()),
            lower_objective=lower.objective(values, functions),
            lower_constraints=[related(row) for row in sides(lower, values, functions)],
            lower_sense="max" if lower.maximise else "min",
            multiplier_ub=bound,
        )
        problem.formulate(method=method)
    except (NotImplementedError, ValueError) as error:
        raise Refused(str(error)) from error
    result = problem.solve(time_limit=LIMIT)
    if result.objective is None:
        raise RuntimeError(f"no point: {result.status}")
    return float(result.objective), str(result.status) == "optimal"


LIMIT = 60.0
PEERS: dict[str, Callable[[Statement], Found]] = {
    "pao": pao,
    "discopt": discopt_dual,
    "discopt-kkt": discopt_kkt,
}


def row(solve: Callable[[Statement], Found], s: Statement) -> dict[str, Any]:
    name = s.name
    started = time.perf_counter()
    try:
        found, optimal = solve(s)
    except Refused as error:
        return {"problem": name, "refused": str(error)[:200]}
    except Exception as error:  # noqa: BLE001 - whatever the peer raises is its row
        return {"problem": name, "failed": f"{type(error).__name__}: {error}"[:200]}
    return {"problem": name, "found": found, "optimal": optimal, "seconds": time.perf_counter() - started}


def main() -> None:
    global LIMIT
    warnings.simplefilter("ignore")
    solve, LIMIT = PEERS[sys.argv[1]], float(sys.argv[2])
    statements = [Statement(**json.loads(text)) for text in sys.stdin.read().splitlines()]
    row(solve, Statement("warm-up", 0.0, "LP", "", "x in [0, 1]; min -x - y", "y in [0, 2]; min y; y >= x"))
    for s in statements:
        signal.setitimer(signal.ITIMER_REAL, LIMIT + 2.0)  # ends the process: native code cannot be interrupted
        print("ROW", json.dumps(row(solve, s)), flush=True)
        signal.setitimer(signal.ITIMER_REAL, 0.0)


if __name__ == "__main__":
    main()
