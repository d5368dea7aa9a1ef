"""The result of a search: its best point, confirmed, what may be claimed of it, and the Pareto set if there is one."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from bilevel_core.result import Claim, Result, Termination
from bilevel_core.solvers.assemble import without_point
from bilevel_core.solvers.sample.task import Outcome

if TYPE_CHECKING:
    from bilevel_core.solvers.sample.drive import Search


GRACE = 20.0
"""Seconds after the time limit in which the best points' followers may still be solved globally."""


def conclude(search: Search, termination: Termination, message: str) -> Result:
    """Put the result together.

    Args:
        search: the run.
        termination: why it ended.
        message: what to tell of the end.
    """
    texts = [*search.evaluation.notes, *([message] if message else []), *search.troubles]
    loose = search.counts.get("lower_unconverged", 0)
    if loose:
        texts.append(f"{loose} lower-level solves ended before they met their tolerance.")
    if search.context.stopped and not search.best:
        texts.append("The run was stopped before a first point was found.")
    outcome, confirmed = _best(search)
    if search.failed and termination is not Termination.ERROR:
        usual = search.failures.most_common(1)[0][0]
        texts.append(f"{search.failed} of {search.told} trials failed; for example: {usual}")
    texts += confirmed
    counts = {**search.counts, "trials": search.told}
    if outcome is None or not outcome.score.feasible:
        texts += _why_none(search)
        if _enumerated(search) and search.unproven == 0 and not search.failed:
            termination = Termination.INFEASIBLE
            texts.append("Every point of the leader's finite space was tried.")
        return without_point(termination, search.context, " ".join(texts), counts=counts)
    x, y, upper, lower = search.evaluation.result(outcome)
    claim = Claim.FEASIBLE
    if _enumerated(search) and search.unproven == 0 and not search.failed and termination is Termination.CONVERGED:
        claim = Claim.GLOBAL
        texts.append("Every point of the leader's finite space was tried, and every follower solved globally.")
    return Result(
        termination=termination,
        claim=claim,
        x=x,
        y=y,
        upper_objective=upper,
        lower_objective=lower,
        bound=upper if claim is Claim.GLOBAL else None,
        trace=tuple(search.context.trace),
        counts=counts,
        message=" ".join(texts),
        details=_front(search),
    )


def _enumerated(search: Search) -> bool:
    """Whether no point of the space was left out."""
    from bilevel_core.sampling.simple import GridSampler

    finite = search.evaluation.space.finite and len(search.evaluation.space) > 0
    return finite and isinstance(search.sampler, GridSampler) and search.sampler.over


def _best(search: Search) -> tuple[Outcome | None, list[str]]:
    """The best point once its follower, and that of those that then come before it, has been solved globally."""
    begin = time.monotonic()
    best, texts = None, list[str]()
    while search.best and not search.context.stopped and not search.is_sure(search.best[0]):
        # Another one is the best now.
        if search.context.expired and time.monotonic() - begin >= GRACE:
            best = next((o for o in search.best if o.index in search.sure), None)
            texts.append("The time was over before the followers of all of the best points were solved globally.")
            break
    if search.corrected:
        text = "Of the best points the followers were solved globally as well: "
        texts.append(f"{text}{search.corrected} had another answer than the local one.")
    return best or (search.best[0] if search.best else None), texts


def _why_none(search: Search) -> list[str]:
    best = search.best[0] if search.best else None
    texts = ["No point was found that satisfies both levels."]
    if best is not None and math.isfinite(best.score.violation):
        texts.append(f"The smallest violation of the leader's constraints was {best.score.violation:.3g}.")
    endings = search.messages + search.failures
    if endings:
        text, times = endings.most_common(1)[0]
        texts.append(f"Of {search.told} trials {times} ended so: {text}")
    return texts


def _front(search: Search) -> dict[str, Any]:
    """The Pareto set as a table, sorted by the first objective."""
    if search.evaluation.objectives == 1:
        return {}
    names = search.problem.objectives
    rows: list[dict[str, Any]] = []
    for outcome in sorted(search.front, key=lambda o: o.score.objectives):
        row: dict[str, Any] = dict(zip(names, outcome.score.objectives, strict=True))
        rows.append({**row, **search.evaluation.space.values(outcome.point)})
    return {"pareto": rows}
