"""Descriptions of SMD1 to SMD12."""

from __future__ import annotations

from bilevel_core.plugins.specs import ProblemSpec
from bilevel_problems.describe import GLOBAL, problem

_SOURCE = (
    "Sinha, Malo and Deb (2014), Test problem construction for single-objective bilevel optimization, Evolutionary "
    "Computation 22, problem {}"
)

_LIST = (
    (0.0, "levels agree; a tangent ties them", "agreement"),
    (0.0, "levels in conflict; a logarithm ties them", "conflict"),
    (0.0, "levels agree; the follower has many local optima", "agreement multimodal-follower"),
    (0.0, "levels in conflict; the follower has many local optima", "conflict multimodal-follower kinks"),
    (0.0, "levels in conflict; the follower has a curved valley and two answers", "conflict ties kinks"),
    (0.0, "levels in conflict; the follower has a line of answers", "conflict ties quadratic"),
    (0.0, "levels in conflict; the leader has many local optima", "conflict multimodal-leader"),
    (0.0, "levels in conflict; the leader has many local optima, the follower a curved valley", "conflict kinks"),
    (0.0, "levels in conflict; both feasible sets are shells with gaps, by integer variables", "conflict integer"),
    (4.0, "levels in conflict; constraints that hold with equality at both levels", "conflict constraints"),
    (-1.0, "levels in conflict; the follower has many answers, of which few are allowed", "conflict ties coupling"),
    (3.0, "levels in conflict; the constraints of smd10 and smd11", "conflict ties coupling kinks"),
)


def smd_problems() -> list[ProblemSpec]:
    """The twelve problems; the optima are those of the default sizes, five variables in all."""
    return [
        problem(
            f"smd/smd{number}",
            f"smd:smd{number}",
            optimum,
            summary,
            _SOURCE.format(number),
            f"smd nonlinear scalable {tags}",
            needs=GLOBAL if number == 9 else "",
        )
        for number, (optimum, summary, tags) in enumerate(_LIST, start=1)
    ]
