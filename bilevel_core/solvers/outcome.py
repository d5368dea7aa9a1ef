"""What came of the starts of an iterative solver: the record of each, and the one result that they make together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bilevel_core.oracles import Oracle
from bilevel_core.result import Claim, Result, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.assemble import without_point
from bilevel_core.solvers.iterative import Candidate

AGREE = 1e-6
"""Relative difference up to which two objectives count as the same, so that the point of which more is known is
preferred: the lower level is solved to a tolerance, and so the objective is no more exact than that."""


@dataclass(frozen=True)
class StartRecord:
    """The story of one start.

    Attributes:
        number: 0 for the problem's own starting point.
        state: the solver's state; None before the first and once the start is over.
        memory: the oracle's (`Oracle.memory`) when that state was reached.
        best: the best point passed; once the start is over, the point that it stands for.
        best_memory: the oracle's when that point was reached.
        iterations: steps taken.
        end: why it is over; None while it could go on.
        message: what to tell the user of its end.
        fatal: whether its end is that of the whole run.
        steps: see `Stop.steps`.
    """

    number: int
    state: Any = None
    memory: Any = None
    best: Candidate | None = None
    best_memory: Any = None
    iterations: int = 0
    end: Termination | None = None
    message: str = ""
    fatal: bool = False
    steps: tuple[dict[str, float], ...] = ()

    @property
    def failed(self) -> bool:
        """Whether it is over without having converged."""
        return self.end is not None and self.end is not Termination.CONVERGED

    def ended(
        self, end: Termination, message: str = "", *, fatal: bool = False, steps: tuple[dict[str, float], ...] = ()
    ) -> StartRecord:
        """The same start, over. A point that it converged to is what it stands for, unless it passed a better one."""
        last = None if self.state is None else self.state.candidate
        best, memory = self.best, self.best_memory
        if end is Termination.CONVERGED and last is not None:
            known = replace(last, claim=min(last.claim, Claim.LOCAL, key=lambda c: c.rank))
            if preferred(known, best) is known:
                best, memory = known, self.memory
            else:
                message = f"{message} It passed a better point than the one it converged to; that point is kept."
        return replace(
            self,
            state=None,
            memory=None,
            best=best,
            best_memory=memory,
            end=end,
            message=message.strip(),
            fatal=fatal,
            steps=steps,
        )


@dataclass(frozen=True)
class Saved:
    """All of a run that a checkpoint holds. Replaced as a whole, so that an interruption leaves it consistent.

    Attributes:
        records: the starts that have begun, by number.
        counts, notes: those of the oracle.
        trace: incumbents so far.
        elapsed: seconds so far.
        sizes: numbers of upper and lower variables.
    """

    records: dict[int, StartRecord] = field(default_factory=dict[int, StartRecord])
    counts: dict[str, int] = field(default_factory=dict[str, int])
    notes: tuple[str, ...] = ()
    trace: tuple[dict[str, float | None], ...] = ()
    elapsed: float = 0.0
    sizes: tuple[int, int] = (0, 0)

    @property
    def best(self) -> Candidate | None:
        """The best point passed so far, whatever is known of it."""
        best: Candidate | None = None
        for _, record in sorted(self.records.items()):
            if record.best is not None and record.best.better(best):
                best = record.best
        return best


def preferred(a: Candidate, b: Candidate | None) -> Candidate:
    """The better of two points; of two that agree, the one of which more is known, or else the first."""
    if b is None:
        return a
    close = abs(a.objective - b.objective) <= AGREE * (1.0 + min(abs(a.objective), abs(b.objective)))
    if a.feasible and b.feasible and close:
        return a if a.claim >= b.claim else b
    return b if b.better(a) else a


def collect(
    saved: Saved, cut: Termination | None, starts: int, lost: Mapping[int, str], oracle: Oracle, context: RunContext
) -> Result:
    """The result of a run.

    Args:
        saved: where it stands.
        cut: why it was cut short; None when every start came to its own end.
        starts: how many there should have been.
        lost: starts that ended for reasons outside the method, by number, with a message.
        oracle: the problem, to say the point in the user's terms.
        context: the run.
    """
    records = [record for _, record in sorted(saved.records.items())]
    winner: StartRecord | None = None
    for record in records:
        if record.best is not None and (
            winner is None or winner.best is None or preferred(winner.best, record.best) is record.best
        ):
            winner = record
    termination = cut or _termination(records, winner, lost)
    messages = [*saved.notes, *_messages(records, starts, lost, winner)]
    counts = {**saved.counts, "iterations": sum(r.iterations for r in records)}
    point = None if winner is None else winner.best
    if point is not None and not point.feasible:
        messages.append(
            "No point that satisfies the leader's constraints was found; the smallest violation was "
            f"{point.violation:.3g}."
        )
        point = None
    if cut is not None and winner is None:
        why = "The run was stopped" if cut is Termination.STOPPED_BY_USER else "The time limit passed"
        messages.append(f"{why} before the lower level was solved at a first point, so that there is no point to give.")
    if winner is None or point is None:
        return without_point(termination, context, " ".join(messages), counts=counts)
    converged = winner.end is Termination.CONVERGED
    steps = [{"start": record.number, **row} for record in records for row in record.steps]
    oracle.restore(winner.best_memory)
    x, y = oracle.point(point.x, point.y)
    upper, lower = oracle.objectives(point.x, point.y)
    return Result(
        termination=termination,
        claim=point.claim if converged else Claim.FEASIBLE,
        x=x,
        y=y,
        upper_objective=upper,
        lower_objective=lower,
        trace=tuple(context.trace),
        counts=counts,
        message=" ".join(messages),
        details={"steps": steps} if steps else {},
    )


def _termination(records: Sequence[StartRecord], winner: StartRecord | None, lost: Mapping[int, str]) -> Termination:
    """Why the run ended when it was not cut short: the end of the start whose point is reported. Where that one
    failed, or there is no point, the best end of all.
    """
    if any(record.fatal for record in records):
        return Termination.ERROR
    if winner is not None and not winner.failed:
        return winner.end or Termination.ITERATION_LIMIT
    for end in (Termination.CONVERGED, None):
        if any(record.end is end for record in records):
            return end or Termination.ITERATION_LIMIT
    ends = {record.end for record in records} | ({Termination.ERROR} if lost else set[Termination]())
    # "The lower level is infeasible" is what a run without a point says; with one it would be wrong.
    if winner is not None or len(ends) != 1:
        return Termination.ERROR
    return ends.pop() or Termination.ERROR


def _messages(
    records: Sequence[StartRecord], starts: int, lost: Mapping[int, str], winner: StartRecord | None
) -> list[str]:
    """What the starts have to say; with several, each by its number."""
    said: list[str] = []
    for record in records:
        if not record.message or (record.end is Termination.CONVERGED and record is not winner):
            continue
        name = f"Start {record.number}" if starts > 1 else ""
        said.append(f"{name}: {record.message}" if name else record.message)
    said += [f"Start {number}: {text}" for number, text in sorted(lost.items())]
    failed = sum(record.failed for record in records) + len(lost)
    if starts > 1 and failed:
        said.append(f"{failed} of {starts} starts failed.")
    return said


def finite(candidate: Candidate | None) -> bool:
    """Whether a candidate's numbers are finite; true for none."""
    return candidate is None or bool(
        np.isfinite(candidate.objective) and np.isfinite(candidate.violation) and np.isfinite(candidate.x).all()
    )
