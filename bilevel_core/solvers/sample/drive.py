"""The loop around a sampler: trials in flight, budget, journal, incumbents, and the result.

The sampler is told outcomes one at a time, and is asked for more only while fewer than ``window`` trials are untold. So
with outcomes told in the order of their trials a run depends on the problem, the options, the seed and the window only,
wherever its trials are solved. Outcomes are journaled as they come in; a resumed run asks a fresh sampler the same
questions, and takes the answers from the journal.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.result import Result, Termination
from bilevel_core.run import RunContext, checkpoint
from bilevel_core.sampling import Sampler, Score, Trial
from bilevel_core.solvers.iterative import give_up
from bilevel_core.solvers.sample.send import Post
from bilevel_core.solvers.sample.task import Evaluation, Outcome, Task

if TYPE_CHECKING:
    from bilevel_core.solvers.sample.solver import SamplingSolver

TYPES = (Outcome, Score)
FREE = 100
"""Trials that need no solve do not count for the budget, but there may be only so many for each solve in it."""
BROKEN = 10
"""When so many trials have been made and every one broke, the run ends: it is no matter of the point."""
CONFIRMED = 20
"""Most candidates whose followers are solved globally at the end."""
SECONDS = 10.0
"""For the followers of one candidate, solved globally."""
CHANGED = 1e-6


class Search:
    """One run of a sampling solver.

    Args:
        solver: its options.
        problem: what is solved.
        evaluation: the same, as trials see it.
        sampler: what says where to look.
        context: the run.
    """

    def __init__(
        self, solver: SamplingSolver, problem: Any, evaluation: Evaluation, sampler: Sampler, context: RunContext
    ) -> None:
        self.solver, self.problem, self.evaluation = solver, problem, evaluation
        self.sampler, self.context = sampler, context
        self.window = solver.window(context.executor)
        self.limit = solver.budget(problem)
        self.trials: dict[int, Trial] = {}
        self.arrived: dict[int, Outcome] = {}
        self.order: list[int] = []
        self.best: list[Outcome] = []
        self.front: list[Outcome] = []
        self.answers: dict[int, Any] = {}
        self.counts: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.troubles: dict[str, None] = {}
        self.spent = 0.0
        self.told = 0
        self.failed = 0
        self.stale = 0
        self.unproven = 0
        self.sure: set[int] = set()
        self.corrected = 0
        self._replay: dict[int, Outcome] = {}
        self._replayed: list[int] = []
        self._last_checkpoint = -math.inf
        if context.restored is not None:
            self._restore()

    def run(self) -> Result:
        """Search until something ends it; whatever happens, a checkpoint is kept."""
        self.post = Post(
            self.evaluation,
            self.problem,
            self.solver.evaluation_settings(self.context),
            self.context.seed,
            self.context.executor,
            self.solver.devices,
            self.solver.batch,
            give_up(self.context),
        )
        self.checkpoint()
        ending = (Termination.STOPPED_BY_USER, "")
        try:
            try:
                ending = self._loop()
            except KeyboardInterrupt:
                self.context.stop()
            for outcome in self.post.close():
                self._arrive(outcome)
        finally:
            self.checkpoint()
        return self._result(*ending)

    def _loop(self) -> tuple[Termination, str]:
        while True:
            ending = self._ended()
            if ending is not None:
                return ending
            self._fill()
            number = self._next()
            if number is not None:
                self._tell(number)
                continue
            if not self.post.busy:
                return self._nothing_left()
            if self.context.stopped or self.context.expired:
                return self._cut()
            for outcome in self.post.receive(self.context.remaining()):
                if outcome.cut:
                    return self._cut()
                self._arrive(outcome)

    def _cut(self) -> tuple[Termination, str]:
        return (Termination.STOPPED_BY_USER if self.context.stopped else Termination.TIME_LIMIT), ""

    def _nothing_left(self) -> tuple[Termination, str]:
        if self.sampler.over:
            return Termination.CONVERGED, ""
        return Termination.ITERATION_LIMIT, self._budget_text()

    def _budget_text(self) -> str:
        if self.sampler.asked >= FREE * self.limit and self.spent < self.limit - 1e-9:
            return (
                f"{self.sampler.asked} points were looked at, {FREE} for each lower-level solve of the budget; most "
                "violate the leader's own constraints and so need no solve."
            )
        whole = self.sampler.whole
        more = f" The method has {whole:g} points in all, in order; it came to {self.told}." if whole else ""
        return f"The budget of {self.limit} lower-level solves is spent.{more}"

    def _ended(self) -> tuple[Termination, str] | None:
        """Why the search is over, as far as what has been told says."""
        solver = self.solver
        best = self.best[0] if self.best else None
        if self.told >= BROKEN and self.failed == self.told:
            return Termination.ERROR, f"Every trial failed: {next(iter(self.failures), '')}"
        if best is not None and solver.target is not None:
            sign = -1.0 if self.evaluation.maximise else 1.0
            while best.score.feasible and sign * best.user <= sign * solver.target and not self.is_sure(best):
                best = self.best[0]
            if best.score.feasible and sign * best.user <= sign * solver.target:
                return Termination.CONVERGED, f"The target of {solver.target:g} is reached."
        if solver.patience and best is not None and self.stale >= solver.patience:
            return Termination.CONVERGED, f"The last {solver.patience} trials brought nothing better."
        return None

    def is_sure(self, first: Outcome) -> bool:
        """Whether the best point is as it seems; where its follower turns out to answer otherwise, it is corrected."""
        if not self.evaluation.needs_confirmation or first.index in self.sure:
            return True
        self.sure.add(first.index)
        better = self.evaluation.confirm(first, SECONDS)
        self.counts["lower_solves"] += better is not first and better.counts.get("lower_solves", 0)
        if better.score.rank == first.score.rank:
            self.best[0] = better
            return True
        self.corrected += 1
        answer = better.y if isinstance(better.y, np.ndarray) else None
        self.sampler.amend(first.index, replace(better.score, answer=answer))
        self.best = sorted([better, *self.best[1:]], key=lambda o: (o.score.rank, o.index))
        return False

    def _reserved(self) -> float:
        return self.spent + sum(self.trials[i].budget for i in self.trials)

    def _fill(self) -> None:
        """Ask for trials while there is room for them."""
        limit = self.limit
        while len(self.trials) < self.window and self.sampler.asked < FREE * limit:
            if self._reserved() >= limit - 1e-9:
                return
            trial = self.sampler.ask()
            if trial is None:
                return
            self.trials[trial.index] = trial
            known = self._replay.pop(trial.index, None)
            if known is None:
                self.post.send(self._task(trial))
            elif not np.array_equal(known.point, trial.point, equal_nan=True):
                raise UsageError(
                    f"Trial {trial.index} of the recorded run was at another point: problem, options or a package have "
                    "changed since. Solve it anew."
                )
            else:
                self.arrived[trial.index] = known

    def _task(self, trial: Trial) -> Task:
        start = self.answers.get(trial.parent) if trial.parent is not None else trial.start
        seed = int(np.random.default_rng([self.context.seed % 2**64, trial.index, 1]).integers(2**31))
        left = self.context.remaining()
        deadline = None if left is None else time.time() + left
        return Task(trial.index, trial.point, trial.budget, seed, start, deadline=deadline)

    def _next(self) -> int | None:
        """The trial to tell next; None where it has not come in."""
        if self.solver.order == "index" or not self.arrived:
            number = min(self.trials, default=None)
            return number if number in self.arrived else None
        while self._replayed and self._replayed[0] not in self.trials:
            self._replayed.pop(0)
        if self._replayed:
            return self._replayed[0] if self._replayed[0] in self.arrived else None
        return self.order.pop(0) if self.order else None

    def _arrive(self, outcome: Outcome) -> None:
        """Take in an outcome, and write it down."""
        if outcome.cut or outcome.index in self.arrived:
            return
        outcome = self._slim(outcome)
        self.arrived[outcome.index] = outcome
        self.order.append(outcome.index)
        keeper = self.context.keeper
        if keeper is not None:
            try:
                keeper.journal(checkpoint.dumps(outcome, TYPES))
            except (OSError, TypeError) as error:
                self.troubles[f"The journal could not be written, so resuming will solve again: {error}."] = None
            if keeper.periodic and time.monotonic() - self._last_checkpoint >= self.solver.checkpoint_every:
                self.checkpoint()

    def _slim(self, outcome: Outcome) -> Outcome:
        """Without the lower variables, where nobody will ask for them."""
        wanted = self.sampler.wants_answers or self.evaluation.objectives > 1
        if wanted or not self.best or outcome.score.rank <= self.best[-1].score.rank:
            return outcome
        if len(self.best) < self._candidates():
            return outcome
        return replace(outcome, y=None, state=None, memory=None)

    def _candidates(self) -> int:
        """How many of the best points are kept for the end."""
        return CONFIRMED if self.evaluation.needs_confirmation else 1

    def _tell(self, number: int) -> None:
        trial, outcome = self.trials.pop(number), self.arrived.pop(number)
        if number in self.order:
            self.order.remove(number)
        self.told += 1
        self.spent += outcome.cost
        self.counts.update(outcome.counts)
        self.unproven += not (outcome.proven or (outcome.cost == 0.0 and not outcome.failed))
        self.failed += outcome.failed
        if outcome.message:
            (self.failures if outcome.failed else self.messages)[outcome.message] += 1
        whole, front = trial.budget >= 1.0, self.front
        improved = whole and self._keep(outcome)
        # A part of a budget could not have brought a better point.
        self.stale = 0 if improved or self.front is not front else self.stale + whole
        score = outcome.score
        if self.sampler.wants_answers:
            self.answers[number] = outcome.state if outcome.state is not None else outcome.y
            if isinstance(outcome.y, np.ndarray):
                score = replace(score, answer=outcome.y)
        self.sampler.tell(trial, score)
        needed = self.sampler.parents
        self.answers = {k: v for k, v in self.answers.items() if k in needed}
        best = self.best[0] if self.best else None
        tried = self.evaluation.told(outcome.point)
        if improved and outcome.score.feasible:
            figures = self.evaluation.progress(outcome)
            more = {"figures": figures} if figures else {}
            self.context.report(
                "incumbent", objective=outcome.user, **more, trial=number, lower_solves=self.spent, x=tried
            )
        self.context.report(
            "iteration",
            iteration=self.told,
            objective=None if math.isnan(outcome.user) else outcome.user,
            best=best.user if best is not None and best.score.feasible else None,
            lower_solves=self.spent,
            x=tried,
            **self.sampler.figures,
        )

    def _keep(self, outcome: Outcome) -> bool:
        """Put an outcome among the best; returns whether it is the best one now."""
        if outcome.y is None or not outcome.score.objectives:
            return False
        if self.evaluation.objectives > 1 and outcome.score.feasible:
            self.front = joined(self.front, outcome)
        improved = not self.best or outcome.score.rank < self.best[0].score.rank
        self.best = sorted([*self.best, outcome], key=lambda o: (o.score.rank, o.index))[: self._candidates()]
        return improved

    def checkpoint(self) -> None:
        """Keep where the run stands besides its journal: what it is, and how long it has taken."""
        keeper = self.context.keeper
        if keeper is None:
            return
        self._last_checkpoint = time.monotonic()
        header = {
            "elapsed": self.context.elapsed,
            "solver": type(self.solver).__name__,
            "window": self.window,
            "space": self._fingerprint(),
            "trace": tuple(self.context.trace),
        }
        try:
            keeper.checkpoint(checkpoint.dumps(header))
        except OSError as error:
            self.troubles[f"A checkpoint could not be written: {error}."] = None

    def _fingerprint(self) -> str:
        # Of nested problems the objectives, too: their recorded values cannot be computed again without a solve.
        names = getattr(self.problem, "objectives", ())
        return " ".join([repr(self.evaluation.space.variables), *names])

    def _restore(self) -> None:
        """Take up a recorded run.

        Raises:
            UsageError: it was a run over other variables, or its journal is damaged.
        """
        stored = self.context.restored
        assert stored is not None
        header = stored.data()
        if not isinstance(header, dict) or header.get("space") != self._fingerprint():
            raise UsageError(
                f"{stored.place} is of another problem, or of another version: its variables or objectives differ."
            )
        self.window = int(header["window"])
        for n, entry in enumerate(self.context.journaled):
            outcome = checkpoint.loads(entry, f"Entry {n} of the journal").data(TYPES)
            if not isinstance(outcome, Outcome):
                raise UsageError(f"Entry {n} of the journal is damaged: it is no outcome of a trial.")
            if outcome.index not in self._replay:
                self._replay[outcome.index] = outcome
                self._replayed.append(outcome.index)
        self._same_values()

    def _same_values(self) -> None:
        """Refuse to go on where the objective at a stored point is no longer what it was."""
        for outcome in self._replay.values():
            if not isinstance(outcome.y, np.ndarray) or not outcome.score.objectives or outcome.memory is not None:
                continue
            value = self.evaluation.assess(outcome.point, outcome.y)[0]
            if not abs(value - outcome.score.objectives[0]) <= CHANGED * max(1.0, abs(value)):
                raise UsageError(
                    f"The problem has changed since the run was recorded: at a point of it the leader's objective was "
                    f"{outcome.score.objectives[0]:.9g} and is {value:.9g} now. Solve it anew."
                )
            return

    def _result(self, termination: Termination, message: str) -> Result:
        from bilevel_core.solvers.sample.result import conclude

        return conclude(self, termination, message)


def joined(front: list[Outcome], new: Outcome) -> list[Outcome]:
    """A Pareto set with one outcome more: without those that it dominates, or unchanged where one is as good."""
    mine = np.array(new.score.objectives)
    theirs = np.array([o.score.objectives for o in front]).reshape(len(front), len(mine))
    if (theirs <= mine).all(axis=1).any():
        return front
    return [*(o for o, its in zip(front, theirs, strict=True) if not bool(np.all(mine <= its))), new]
