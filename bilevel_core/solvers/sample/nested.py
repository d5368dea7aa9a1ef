"""Points of nested problems: the user's function answers them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bilevel_core.problems.nested import Call, NestedProblem
from bilevel_core.result import Values
from bilevel_core.sampling import Score
from bilevel_core.solvers.sample.task import Evaluation, EvaluationSettings, Outcome, Task

NONE = "The follower has no answer at this x."


class NestedEvaluation(Evaluation):
    """See `Evaluation`."""

    budgeted = True

    def __init__(self, problem: NestedProblem, settings: EvaluationSettings) -> None:
        self.problem = problem
        self.settings = settings
        self.space = problem.space
        self.objectives = len(problem.objectives)

    def evaluate(self, task: Task, hurry: Callable[[], bool]) -> Outcome:
        """See `Evaluation.evaluate`. What the function raises comes out as it is."""
        call = Call(task.budget, task.seed, task.start, task.device or self.settings.device)
        found = self.problem.ask(task.point, call)
        upper = found.upper if isinstance(found.upper, tuple) else (found.upper,)
        counts = {**found.counts, "lower_solves": int(found.solved)}
        cost = task.budget if found.solved else 0.0
        if not all(math.isfinite(v) for v in (*upper, found.lower)):
            return Outcome(task.index, task.point, cost=cost, proven=self.problem.exact, counts=counts, message=NONE)
        return Outcome(
            task.index,
            task.point,
            Score(upper, max(0.0, found.violation), value=found.lower),
            y={name: np.asarray(value, dtype=float) for name, value in found.y.items()},
            state=found.state,
            user=upper[0],
            proven=self.problem.exact and task.budget >= 1.0,
            cost=cost,
            counts=counts,
        )

    def result(self, outcome: Outcome) -> tuple[Values, Values, float, float | tuple[float, ...]]:
        """See `Evaluation.result`."""
        y: Mapping[str, Any] = outcome.y
        return self.problem.values(outcome.point), Values(dict(y)), outcome.user, outcome.score.value
