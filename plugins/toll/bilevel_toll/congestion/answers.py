"""What users answered, in the order they were asked, so that an interrupted search can go on.

The search of `toll-design` depends on its seed and on the answers only. A resumed run therefore begins from the
beginning, is told the recorded answers again, which takes no equilibria, and comes to where it was. Besides answers a
checkpoint holds the routes from which each `Asker` would have started its next equilibrium, and the best point, which
is not lost where somebody interrupts before the search has come to it again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from bilevel_core.errors import UsageError
from bilevel_core.run import RunContext, checkpoint
from bilevel_toll.congestion.equilibrium import Flows
from bilevel_toll.congestion.problem import TrafficProblem

if TYPE_CHECKING:
    from bilevel_toll.congestion.asking import Asker

CHANGED = 1e-6
"""Relative difference between a recorded objective and the same computed again that means another problem."""

Entry = dict[str, Any]


class Answers:
    """The record of one run's answers.

    Args:
        problem: the run's.
        context: of the run; where it has a keeper, checkpoints go there.
        every: seconds between checkpoints.
        solver: what the checkpoint says of who made it.

    Attributes:
        notes: for the result's message.
        best: the best value that may be reported and its point, in the checkpoint or since; None where there is none.

    Raises:
        UsageError: the checkpoint to go on from is of another problem, or damaged.
    """

    def __init__(self, problem: TrafficProblem, context: RunContext, every: float, solver: str) -> None:
        self.problem, self.context, self.every, self.solver = problem, context, every, solver
        self.notes: list[str] = []
        self.best: tuple[float, np.ndarray] | None = None
        self._entries: list[Entry] = []
        self._at = 0
        self._askers: dict[int, Asker] = {}
        self._made = 0
        self._routes: dict[int, Entry] = {}
        self._last_checkpoint = time.monotonic()
        if context.restored is not None:
            self._restore(context.restored)

    @property
    def replaying(self) -> bool:
        """Whether there are recorded answers that the search has not been told yet."""
        return self._at < len(self._entries)

    def keep(self, value: float, point: np.ndarray) -> None:
        """Keep a point that may be reported, if it is the best."""
        if self.best is None or value < self.best[0]:
            self.best = (value, point.copy())

    def enter(self, asker: Asker) -> None:
        """Take an asker into checkpoints; where it was in the one that the run goes on from, it starts from there."""
        self._askers[self._made] = asker
        stored = self._routes.pop(self._made, None)
        self._made += 1
        if stored is not None:
            asker.resume_from(stored["x"], _flows(self.problem, stored))

    def leave(self, asker: Asker) -> None:
        """An asker that asks no more."""
        self._askers = {n: other for n, other in self._askers.items() if other is not asker}

    def ask(
        self,
        kind: str,
        x: np.ndarray,
        compute: Callable[[], Entry | None],
        fits: Callable[[Entry], bool] = lambda _: True,
        **more: Any,
    ) -> Entry | None:
        """The next answer: the recorded one, or else computed and recorded.

        Args:
            kind: of question.
            x: where, shape (n,).
            compute: gives the answer; None for one that must not be recorded, since it was cut short.
            fits: whether a recorded answer is still the answer; where it is not, the rest is asked anew.
            more: what else the question consists of.

        A recorded question that is another one ends the replay with a note: the rest is asked anew.
        """
        question = {"kind": kind, "x": np.array(x, dtype=float), **more}
        if self.replaying and not _same(question, self._entries[self._at]):
            self.notes.append(
                f"Of {len(self._entries)} recorded answers the first {self._at} fit; the others belong to another "
                "budget or version, or to a machine that rounds otherwise, and were computed anew."
            )
            del self._entries[self._at :]
        if self.replaying and not fits(self._entries[self._at]["answer"]):
            del self._entries[self._at :]
        if self.replaying:
            self._at += 1
            return self._entries[self._at - 1]["answer"]
        answer = compute()
        if answer is not None:
            self._entries.append({**question, "answer": answer})
            self._at = len(self._entries)
            keeper = self.context.keeper
            if keeper is not None and keeper.periodic and time.monotonic() - self._last_checkpoint >= self.every:
                self.checkpoint()
        return answer

    def checkpoint(self) -> None:
        """Keep where the run stands. A checkpoint that cannot be written is a note."""
        keeper = self.context.keeper
        if keeper is None:
            return
        self._last_checkpoint = time.monotonic()
        content = {
            "elapsed": self.context.elapsed,
            "solver": self.solver,
            "variables": self._fingerprint(),
            "found": self.best,
            "trace": tuple(self.context.trace),
            "answers": self._entries,
            "routes": self._standing(),
        }
        try:
            keeper.checkpoint(checkpoint.dumps(content))
        except OSError as error:
            text = f"A checkpoint could not be written: {error}."
            if text not in self.notes:
                self.notes.append(text)

    def _standing(self) -> dict[str, Entry]:
        """From where each asker would go on; those that the search has not come to again stay as they were."""
        waiting = {str(n): entry for n, entry in self._routes.items()}
        return waiting | {str(n): _stored(*asker.standing) for n, asker in self._askers.items()}

    def _fingerprint(self) -> str:
        """The variables, and how far beyond the leader's limits all of them at their upper bounds would be."""
        return f"{self.problem.space.variables!r} {self.problem.violation(self.problem.bounds[1])!r}"

    def _restore(self, stored: checkpoint.Stored) -> None:
        content = stored.data()
        if not isinstance(content, dict) or content.get("variables") != self._fingerprint():
            raise UsageError(
                f"{stored.place} is of another problem, or of another version: its variables or the leader's limits "
                "differ. Go on with the parameters of the run, or solve anew."
            )
        self.best = content["found"]
        self._entries = list(content["answers"])
        self._routes = {int(n): entry for n, entry in content["routes"].items()}
        self.context.trace[:] = [dict(entry) for entry in content["trace"]]
        self._same_values(stored.place)

    def _same_values(self, place: str) -> None:
        """Refuse to go on where the objective at a recorded point is no longer what it was."""
        whole = [e for e in self._entries if e["kind"] == "value" and len(e["x"]) == len(self.problem.space)]
        for entry in whole[-1:]:
            x, old = entry["x"], entry["answer"]["value"]
            flows = self.problem.flows(x, self.problem.untouched)
            value = self.problem.value(x, flows, self.problem.aims[0]) if flows.converged else math.inf
            if not (value == old or abs(value - old) <= CHANGED * max(1.0, abs(old))):
                raise UsageError(
                    f"The problem has changed since {place} was written: at a point of it the leader's objective was "
                    f"{old:.9g} and is {value:.9g} now. Solve it anew."
                )


def _same(question: Entry, entry: Entry) -> bool:
    """Whether an entry answers the question, bit by bit."""
    for key, value in question.items():
        other = entry.get(key)
        if isinstance(value, np.ndarray):
            if not (isinstance(other, np.ndarray) and np.array_equal(value, other)):
                return False
        elif value != other:
            return False
    return True


def _stored(x: np.ndarray, flows: Flows) -> Entry:
    """A point and its flows by routes, as a checkpoint holds them."""
    routes: Any = sparse.csc_matrix(flows.routes)
    return {
        "x": x,
        "shape": tuple(int(n) for n in routes.shape),
        "rows": routes.indices,
        "columns": routes.indptr,
        "on": routes.data,
        "owner": flows.owner,
        "flow": flows.route_flow,
    }


def _flows(problem: TrafficProblem, stored: Entry) -> Flows:
    """Flows to start an equilibrium from; of what they hold only routes count."""
    routes = sparse.csc_matrix((stored["on"], stored["rows"], stored["columns"]), shape=stored["shape"])
    return replace(problem.untouched, routes=routes, owner=stored["owner"], route_flow=stored["flow"])
