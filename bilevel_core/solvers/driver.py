"""The loop around an iterative solver's steps, the same for all: starts, limits, events, checkpoints, resume.

A run depends on the problem, the options and the seed only: where it is interrupted, and whether its starts run here
or through an executor, changes nothing of its outcome.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.lower import LowerFailedError
from bilevel_core.oracles import NonFiniteError, Oracle
from bilevel_core.result import Claim, Result, Termination
from bilevel_core.run import RunContext, checkpoint
from bilevel_core.run.executors import SerialExecutor
from bilevel_core.solvers.iterative import Candidate, CutShortError, IterativeSolver
from bilevel_core.solvers.outcome import Saved, StartRecord, collect, finite
from bilevel_core.solvers.violation import leader_violation

CHANGED = 1e-6
"""Relative difference between an objective stored and the same computed again that means another problem."""


def drive(solver: IterativeSolver, problem: Any, context: RunContext) -> Result:
    """Run all starts and give their best point.

    Raises:
        UsageError: an option has no effect on problems of this form, the checkpoint to go on from is of another
            problem, or the problem cannot be sent to the executor.
        BilevelError: as the oracle and the solver raise it, where it is no failure of one start.
    """
    run = Run(solver, solver.make_oracle(problem, context), context)
    solver.check_options(problem.form)
    # A resumed run goes on here: a start in the middle of its way is not worth sending.
    elsewhere = context.executor is not None and not isinstance(context.executor, SerialExecutor)
    if elsewhere and solver.starts > 1 and context.restored is None:
        from bilevel_core.solvers.spread import spread

        return run.guarded(lambda: spread(run, problem))
    return run.guarded(run.all_starts)


class Run:
    """One run of an iterative solver.

    Attributes:
        saved: where it stands, as a checkpoint holds it.
        lost: starts that ended for reasons outside the method, by number; tried again when the run is resumed.
    """

    def __init__(self, solver: IterativeSolver, oracle: Oracle, context: RunContext) -> None:
        self.solver = solver
        self.oracle = oracle
        self.context = context
        self.saved = Saved(sizes=(oracle.nx, oracle.ny))
        self.lost: dict[int, str] = {}
        self._sign = 0.0
        self._last_checkpoint = -math.inf
        self._fresh = oracle.memory()
        if context.restored is not None:
            self._restore(context.restored)

    @property
    def types(self) -> tuple[type, ...]:
        """The dataclasses that may stand in a checkpoint."""
        return (Saved, StartRecord, Candidate, *self.solver.state_types)

    def guarded(self, work: Any) -> Result:
        """Do the work; keep what there is when the user interrupts it, and a checkpoint whatever happens."""
        try:
            try:
                work()
            except KeyboardInterrupt:
                self.context.stop()
        finally:
            self.checkpoint()
        with self._uncounted():
            return collect(self.saved, self._cut(), self.solver.starts, self.lost, self.oracle, self.context)

    def all_starts(self) -> None:
        """Every start, one after the other."""
        for number in range(self.solver.starts):
            if not self.go_on(number) or self.ended_by_failure():
                return

    def go_on(self, number: int) -> bool:
        """One start, from where it stands to its end or to a limit. Returns whether there is time for another."""
        record = self.saved.records.get(number, StartRecord(number))
        # Every start begins with the same memory, wherever it runs; one that goes on, with its own.
        self.oracle.restore(self._fresh if record.state is None else record.memory)
        while record.end is None:
            stop = None if record.state is None else self.solver.done(record.state)
            if stop is not None:
                self._commit(record.ended(stop.termination, stop.message, steps=stop.steps))
                return True
            if self._limited(record):
                return True
            if self.context.stopped or self.context.expired:
                return False
            self.context.watch()
            try:
                state = self._next(record)
            except CutShortError:
                if self.context.hurried or self.context.stopped or self.context.expired:
                    return False
                raise
            except (LowerFailedError, NonFiniteError) as error:
                if self.context.hurried:
                    return False  # it may owe its failure to the hurry
                self._commit(self._failed(record, error))
                return True
            if self.context.hurried:
                # Half-solved work must not be kept: a run that goes on from it would be another one.
                return False
            record = self._advance(record, state)
        return True

    @staticmethod
    def _failed(record: StartRecord, error: LowerFailedError | NonFiniteError) -> StartRecord:
        if isinstance(error, LowerFailedError):
            return record.ended(error.termination, str(error))
        # A random point outside a function's domain says nothing about the others.
        fatal = record.number == 0 or record.state is not None
        return record.ended(Termination.ERROR, str(error), fatal=fatal)

    def ended_by_failure(self) -> bool:
        """Whether a start failed in a way that ends the run."""
        return any(record.fatal for record in self.saved.records.values())

    def checkpoint(self) -> None:
        """Keep a checkpoint, where one is wanted. One that cannot be written is a note in the result's message."""
        keeper = self.context.keeper
        if keeper is None:
            return
        self._last_checkpoint = time.monotonic()
        try:
            keeper.checkpoint(self.packed())
        except (OSError, TypeError) as error:
            text = f"A checkpoint could not be written: {error}"
            if text not in self.saved.notes:
                self.oracle.note(text)
                self.saved = replace(self.saved, notes=(*self.saved.notes, text))

    def packed(self) -> bytes:
        """The content of a checkpoint."""
        saved = replace(self.saved, trace=tuple(self.context.trace), elapsed=self.context.elapsed)
        entries = {"saved": saved, "elapsed": saved.elapsed, "solver": type(self.solver).__name__}
        return checkpoint.dumps(entries, self.types)

    def unpacked(self, stored: checkpoint.Stored) -> Saved:
        """The reverse of `packed`."""
        data = stored.data(self.types, getattr(self.oracle.zeros(), "device", None))
        saved = data.get("saved") if isinstance(data, dict) else None
        if not isinstance(saved, Saved):
            raise UsageError(f"{stored.place} is damaged, or of another version: it holds no state of a run.")
        return saved

    def user_objective(self, candidate: Candidate) -> float:
        """A candidate's objective in the user's sense."""
        if self._sign == 0.0 and candidate.objective != 0.0:
            with self._uncounted():
                users = self.oracle.objectives(candidate.x, candidate.y)[0]
            self._sign = -1.0 if users * candidate.objective < 0.0 else 1.0
        return float((self._sign or 1.0) * candidate.objective)

    def told(self, x: np.ndarray | None) -> dict[str, Any]:
        """What events say of the upper variables; nothing where a plugin's own oracle or state has nothing to say."""
        tell = getattr(self.oracle, "told", None)
        return {} if x is None or tell is None else {"x": tell(x)}

    def smaller(self, a: Any, b: Any) -> bool:
        """Whether one objective in the user's sense is better than another."""
        return (self._sign or 1.0) * a < (self._sign or 1.0) * b

    def _next(self, record: StartRecord) -> Any:
        """The next state: that of the starting point, or that after one more step."""
        if record.state is None:
            state = self.solver.init(self.oracle, self._starting_point(record.number), self.context)
            state.iteration = 0
        else:
            state = self.solver.step(self.oracle, record.state, self.context)
            state.iteration = record.iterations + 1
        found: Candidate | None = state.candidate
        if found is not None and self.oracle.has_upper_rows:
            # Points are compared by one measure, whichever the method works with.
            with self._uncounted():
                violation = leader_violation(self.oracle, found.x, found.y)
            state.candidate = replace(found, violation=violation)
        if not finite(state.candidate):
            raise NonFiniteError("upper(x, y)", f"after {state.iteration} iterations")
        return state

    def _starting_point(self, number: int) -> np.ndarray:
        oracle = self.oracle
        if number == 0:
            return np.clip(np.asarray(oracle.x_start, dtype=np.float64), oracle.x_lower, oracle.x_upper)
        # NumPy takes no negative seeds; this leaves the others as they are.
        return oracle.random_start(np.random.default_rng([self.context.seed % 2**64, number]))

    def _advance(self, record: StartRecord, state: Any) -> StartRecord:
        """Keep a new state, and tell of it."""
        found: Candidate | None = state.candidate
        before = self.saved.best
        best, memory = record.best, self.oracle.memory()
        best_memory = record.best_memory
        if found is not None and found.better(best):
            # What the method knows of a point counts when the start has converged to it.
            best, best_memory = replace(found, claim=Claim.FEASIBLE), memory
        new = replace(
            record, state=state, memory=memory, best=best, best_memory=best_memory, iterations=state.iteration
        )
        self._commit(new)
        where = {"start": record.number, "iteration": state.iteration, **self.told(getattr(state, "current_x", None))}
        if found is not None and found.feasible and found.better(before):
            progress = getattr(self.oracle, "progress", None)
            figures = {} if progress is None else progress(found.x, found.y)
            told = {"figures": figures} if figures else {}
            self.context.report("incumbent", objective=self.user_objective(found), **told, **where)
        now = self.saved.best
        self.context.report(
            "iteration",
            **{
                **state.figures,
                "objective": None if found is None else self.user_objective(found),
                "best": self.user_objective(now) if now is not None and now.feasible else None,
                **where,
            },
        )
        keeper = self.context.keeper
        due = time.monotonic() - self._last_checkpoint >= self.solver.checkpoint_every
        if keeper is not None and keeper.periodic and due:
            self.checkpoint()
        return new

    def _commit(self, record: StartRecord) -> None:
        self.saved = replace(
            self.saved,
            records={**self.saved.records, record.number: record},
            counts={str(k): int(v) for k, v in self.oracle.counts.items()},
            notes=tuple(self.oracle.notes),
        )

    def _restore(self, stored: checkpoint.Stored) -> None:
        saved = self.unpacked(stored)
        if saved.sizes != self.saved.sizes:
            raise UsageError(
                f"{stored.place} is of another problem: it has {saved.sizes[0]} upper and {saved.sizes[1]} lower "
                f"variables, this one {self.oracle.nx} and {self.oracle.ny}."
            )
        self._same_problem(saved, stored.place)
        self.saved = saved
        self.oracle.counts.clear()
        self.oracle.counts.update(saved.counts)
        self.oracle.notes[:] = saved.notes
        self.context.trace[:] = [dict(entry) for entry in saved.trace]

    def _same_problem(self, saved: Any, place: Any) -> None:
        """Refuse to go on where the objective at a stored point is no longer what it was.

        Raises:
            UsageError: the problem was changed since.
        """
        mine = self.oracle.memory()
        for record in saved.records.values():
            best = record.best
            if best is None or self.oracle.is_random:
                continue
            with self._uncounted():
                self.oracle.restore(record.best_memory)
                value = self.oracle.upper(best.x, best.y)
            if not abs(value - best.objective) <= CHANGED * max(1.0, abs(best.objective)):
                raise UsageError(
                    f"The problem has changed since {place} was written: at its best point the leader's objective was "
                    f"{best.objective:.9g} and is {value:.9g} now. Solve it anew."
                )
        self.oracle.restore(mine)

    def _limited(self, record: StartRecord) -> bool:
        return record.state is not None and record.iterations >= self.solver.max_iterations

    def _cut(self) -> Termination | None:
        """Why the run ended before all starts did."""
        if self.ended_by_failure():
            return None
        for number in range(self.solver.starts):
            record = self.saved.records.get(number, StartRecord(number))
            if record.end is None and number not in self.lost and not self._limited(record):
                return Termination.STOPPED_BY_USER if self.context.stopped else Termination.TIME_LIMIT
        return None

    @contextmanager
    def _uncounted(self) -> Generator[None]:
        """Evaluations for reports are no work of the method, and depend on where a run was interrupted."""
        before = Counter(self.oracle.counts)
        try:
            yield
        finally:
            self.oracle.counts.clear()
            self.oracle.counts.update(before)
