"""How the problems are described: the function that all listings share. Imports no modelling package."""

from __future__ import annotations

from bilevel_core.plugins.specs import KnownOptimum, ProblemSpec

GLOBAL = "global"


def problem(
    name: str,
    place: str,
    optimum: float | None,
    summary: str,
    source: str,
    tags: str,
    *,
    termination: str = "converged",
    needs: str = "",
) -> ProblemSpec:
    """One description. ``place`` is "module:function" inside this package; ``tags`` are separated by blanks."""
    return ProblemSpec(
        name,
        f"bilevel_problems.{place}",
        summary,
        known=KnownOptimum(optimum, source, termination=termination),
        needs=needs,
        tags=frozenset(tags.split()),
    )
