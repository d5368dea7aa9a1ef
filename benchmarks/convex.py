"""The iterative solvers on every problem of the collections with a convex follower, against the best known optimum.

    python benchmarks/convex.py [--solvers auxiliary,penalty,trust-region] [--starts 1,4,13] [--limit 60] [--only TEXT]

Each problem is tried with the first number of starting points, then with the next until its optimum is found. Printed
are misses, points better than the best known (one of the two is wrong then), points that the check does not verify, and
at the end of each solver how many were found, with how many starts, and the CPU seconds.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import Any

import bilevel_core as bl
from bilevel_core.errors import BilevelError
from bilevel_core.plugins.registry import get_registry
from bilevel_core.solvers.base import Accepted

SOLVERS = "auxiliary,penalty,trust-region"
TOLERANCE = 1e-4
"""Relative, of the leader's objective: these solvers' points are as exact as the follower's answers."""


def convex(only: str) -> dict[str, Any]:
    """Problems whose followers are convex with a constraint qualification in sight: those that `kkt` takes."""
    found: dict[str, Any] = {}
    for name, spec in get_registry().problems.items():
        if not name.startswith(("basblib/", "bolib/")) or only not in name:
            continue
        problem = spec.load()()
        if isinstance(bl.classify(problem).verdicts["kkt"], Accepted):
            found[name] = (problem, spec.known)
    return found


def one(problem: Any, known: Any, solver: str, starts: int, limit: float) -> tuple[str, str]:
    """One run: ``found``, ``missed`` or ``better``, and what to tell of it."""
    try:
        result = bl.solve(problem, solver=solver, options={"starts": starts}, time_limit=limit, seed=0)
    except BilevelError as error:
        return "missed", f"{type(error).__name__}: {error}"
    best = known.upper_objective
    if best is None or not result.has_point:
        return ("found" if best is None and not result.has_point else "missed"), result.message
    gain = best - result.upper_objective
    if problem.program().leader.maximise:
        gain = -gain
    told = f"{result.upper_objective:.9g} (best known {best:.9g}), {result.status}, {result.termination}"
    verdict = "unchecked" if result.certificate is None else result.certificate.verdict
    if verdict != "verified":
        told += f", {verdict}: {'' if result.certificate is None else result.certificate.reason}"
    if abs(gain) <= TOLERANCE * max(1.0, abs(best)):
        return "found", told if verdict != "verified" else ""
    return ("better" if gain > 0.0 else "missed"), told


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--solvers", default=SOLVERS)
    parser.add_argument("--starts", default="1,4,13")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for each run")
    parser.add_argument("--only", default="", help="a part of the problems' names")
    given = parser.parse_args()
    problems = convex(given.only)
    for solver in given.solvers.split(","):
        needed: Counter[int] = Counter()
        begun, refused = time.process_time(), 0
        for name, (problem, known) in problems.items():
            if not isinstance(bl.classify(problem).verdicts[solver], Accepted):
                refused += 1
                continue
            outcome, told = "missed", ""
            for starts in map(int, given.starts.split(",")):
                outcome, told = one(problem, known, solver, starts, given.limit)
                if outcome != "missed":
                    needed[starts] += outcome == "found"
                    break
            if outcome != "found" or told:
                print(f"{solver:13} {name:38} {outcome}: {told}", flush=True)
        by = ", ".join(f"{n} with {s} starts" for s, n in sorted(needed.items()))
        seconds = time.process_time() - begun
        accepted = len(problems) - refused
        print(
            f"{solver:13} {needed.total()} of {accepted} found ({by}), {refused} refused, {seconds:.0f} s\n", flush=True
        )


if __name__ == "__main__":
    main()
