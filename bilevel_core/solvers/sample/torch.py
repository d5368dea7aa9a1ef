"""Points of differentiable problems: the lower level is solved by `respond`, every time from the same memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from bilevel_core.errors import UsageError
from bilevel_core.lower import Response, respond
from bilevel_core.oracles import NonFiniteError, make_oracle
from bilevel_core.problems.base import Problem
from bilevel_core.result import Values
from bilevel_core.sampling import Continuous, Score, Space
from bilevel_core.sampling.archive import Joint
from bilevel_core.solvers.sample.box import box, no_bounds
from bilevel_core.solvers.sample.task import Evaluation, EvaluationSettings, Outcome, Task
from bilevel_core.solvers.violation import leader_violation


class TorchEvaluation(Evaluation):
    """See `Evaluation`.

    Raises:
        UsageError: an upper variable without finite bounds, and no box.
    """

    budgeted = True

    def __init__(self, problem: Problem, settings: EvaluationSettings, seed: int) -> None:
        self.settings = settings
        self.problem: Any = problem
        self._oracles: dict[str, Any] = {}
        self._seed = seed
        self.oracle: Any = self.on("")
        # Found out once: every task begins with it.
        _ = self.oracle.lower_scale
        self._fresh = self.oracle.memory()
        lower, upper = box(self.oracle.x_lower, self.oracle.x_upper, self.oracle.x_start, settings.box)
        names = [self.problem.x_layout.entry(k) for k in range(self.oracle.nx)]
        for name, low, high in zip(names, lower, upper, strict=True):
            if not np.isfinite([low, high]).all():
                raise UsageError(no_bounds(name))
        self.space = Space(
            tuple(Continuous(n, float(a), float(b)) for n, a, b in zip(names, lower, upper, strict=True))
        )

    def on(self, device: str) -> Any:
        """The oracle on a device; "" for the run's."""
        if device not in self._oracles:
            self._oracles[device] = make_oracle(self.problem, seed=self._seed, device=device or self.settings.device)
        return self._oracles[device]

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Evaluation.notes`."""
        return tuple(self.oracle.notes)

    def start(self) -> np.ndarray:
        """See `Evaluation.start`."""
        return np.array(self.oracle.x_start, dtype=float)

    def evaluate(self, task: Task, hurry: Callable[[], bool]) -> Outcome:
        """See `Evaluation.evaluate`."""
        oracle = self.on(task.device)
        oracle.restore(self._fresh)
        oracle.terms.seed = task.seed
        oracle.counts.clear()
        start = None if task.start is None else oracle.from_numpy(task.start)
        found = respond(oracle, task.point, start, self.settings.lower_settings(task.budget, hurry))
        upper = oracle.upper(task.point, found.y)
        violation = leader_violation(oracle, task.point, found.y)
        return Outcome(
            task.index,
            task.point,
            Score((upper,), violation, value=found.value),
            y=oracle.to_numpy(found.y),
            memory=(oracle.memory(), task.seed),
            user=upper,
            cost=task.budget,
            counts={**oracle.counts, "lower_unconverged": int(not found.converged)},
        )

    def evaluate_many(self, tasks: Sequence[Task], hurry: Callable[[], bool]) -> list[Outcome]:
        """See `Evaluation.evaluate_many`: one tensor program, with the first task's order of minibatches for all."""
        from bilevel_core.lower.batched import respond_many, upper_many

        first = tasks[0]
        oracle = self.on(first.device)
        oracle.restore(self._fresh)
        oracle.terms.seed = first.seed
        oracle.counts.clear()
        x = np.array([task.point for task in tasks])
        start = oracle.y_start()
        starts = torch.stack([start if t.start is None else oracle.from_numpy(t.start) for t in tasks])
        found = respond_many(oracle, x, starts, self.settings.lower_settings(first.budget, hurry))
        answered = [k for k, r in enumerate(found) if isinstance(r, Response)]
        answers = [r.y for r in found if isinstance(r, Response)]
        values = dict(zip(answered, upper_many(oracle, x[answered], answers), strict=True)) if answered else {}
        memory = oracle.memory()
        outcomes: list[Outcome] = []
        for k, (task, response) in enumerate(zip(tasks, found, strict=True)):
            counts = dict(oracle.counts) if k == 0 else {}
            counts["lower_unconverged"] = int(isinstance(response, Response) and not response.converged)
            if not isinstance(response, Response) or not math.isfinite(values[k]):
                text = "upper(x, y) is not finite." if isinstance(response, Response) else str(response)
                outcomes.append(Outcome(task.index, task.point, cost=task.budget, counts=counts, message=text))
                continue
            violation = leader_violation(oracle, task.point, response.y)
            outcomes.append(
                Outcome(
                    task.index,
                    task.point,
                    Score((values[k],), violation, value=response.value),
                    y=oracle.to_numpy(response.y),
                    memory=(memory, first.seed),
                    user=values[k],
                    cost=task.budget,
                    counts=counts,
                )
            )
        return outcomes

    def assess(self, point: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        """See `Evaluation.assess`."""
        vector = self.oracle.from_numpy(y)
        return self.oracle.upper(point, vector), leader_violation(self.oracle, point, vector)

    def joint(self, point: np.ndarray, y: np.ndarray) -> Joint:
        """Both levels at any (x, y), for methods that model the answer.

        Raises:
            ValueError: a value is undefined there.
        """
        vector = self.oracle.from_numpy(y)
        try:
            upper, lower = self.oracle.upper_rows(point, vector), self.oracle.lower_rows(point, vector)
            values = self.oracle.upper(point, vector), self.oracle.lower(point, vector)
        except NonFiniteError as error:
            raise ValueError(str(error)) from error
        return Joint(*values, upper.g, upper.h, lower.g, lower.h)

    @property
    def y_lower(self) -> np.ndarray:
        """Lower bounds of the lower variables."""
        return self.oracle.y_lower

    @property
    def y_upper(self) -> np.ndarray:
        """Upper bounds of the lower variables."""
        return self.oracle.y_upper

    def told(self, point: np.ndarray) -> dict[str, Any]:
        """See `Evaluation.told`."""
        return self.oracle.told(point)

    def progress(self, outcome: Outcome) -> dict[str, float]:
        """See `Evaluation.progress`."""
        memory, seed = outcome.memory
        before = self.oracle.memory(), self.oracle.terms.seed
        self.oracle.restore(memory)
        self.oracle.terms.seed = seed
        found = self.oracle.progress(outcome.point, self.oracle.from_numpy(outcome.y))
        self.oracle.restore(before[0])
        self.oracle.terms.seed = before[1]
        return found

    def result(self, outcome: Outcome) -> tuple[Values, Values, float, float | tuple[float, ...]]:
        """See `Evaluation.result`."""
        memory, seed = outcome.memory
        self.oracle.restore(memory)
        self.oracle.terms.seed = seed
        y = self.oracle.from_numpy(outcome.y)
        return (*self.oracle.point(outcome.point, y), *self.oracle.objectives(outcome.point, y))
