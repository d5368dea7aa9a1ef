"""A descent over hyperparameters with its path kept, and stopped early by rows that the leader does not see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch

import bilevel_core as bl
from bilevel_core.errors import BilevelError, UsageError
from bilevel_core.result import Claim, Result, Values
from bilevel_hpo.models import Rows
from bilevel_hpo.problem import TuningProblem

SHARED_GAIN = 0.005
"""The first descent ends with a step that gains no more than this share: only its neighbourhood matters."""
STEEP = 1e3
EARLY = "Stopped early: the answer is the point with the smallest loss on the stopping rows."


@dataclass(frozen=True, eq=False)
class Step:
    """A point of the path: hyperparameters with the weights trained for them.

    Attributes:
        x, y: the two levels' variables, structured as the problem's.
        objective: the leader's.
        stopping: the loss on the rows that decide when to stop; None without such.
    """

    x: Any
    y: Any
    objective: float
    stopping: float | None = None


@dataclass(frozen=True, eq=False)
class Tuned:
    """The outcome of `tune`.

    Attributes:
        result: of the solver; with early stopping its point is that of ``path[chosen]``.
        path: the start and each point that was accepted.
        chosen: which of them is the answer.
    """

    result: Result
    path: tuple[Step, ...]
    chosen: int


@dataclass
class _Path:
    """Solvers say the objective at which they stand; the point belongs to that value of the leader's function."""

    problem: TuningProblem
    stopping: Sequence[Rows] | None
    patience: int
    unit: float = 1.0
    seen: dict[float, tuple[Any, Any]] = field(default_factory=dict[float, tuple[Any, Any]])
    steps: list[Step] = field(default_factory=list[Step])

    def upper(self, x: Any, y: Any) -> torch.Tensor:
        value = self.unit * type(self.problem).objective(self.problem, x, y)
        key = float(value.detach())
        copied = {k: v.detach().clone() for k, v in x.items()}, {k: v.detach().clone() for k, v in y.items()}
        self.seen[key] = copied
        return value

    def keep(self, objective: float) -> None:
        x, y = self.seen[objective]
        stopping = None if self.stopping is None else self.problem.loss_on(x, y, self.stopping)
        self.steps.append(Step(x, y, objective / self.unit, stopping))

    def event(self, event: Any) -> bool:
        objective = event.data.get("objective") if event.kind == "iteration" else None
        if objective is None or objective not in self.seen:
            return False
        if not self.steps or objective / self.unit < self.steps[-1].objective:
            self.keep(objective)
        self.seen = {objective: self.seen[objective]}
        return self.stopping is not None and len(self.steps) - 1 - self.best >= self.patience

    def settled(self, event: Any) -> bool:
        """Whether a first descent is near enough its end."""
        self.event(event)
        last = self.steps[-2:]
        return len(last) == 2 and last[0].objective - last[1].objective <= SHARED_GAIN * abs(last[1].objective)

    @property
    def best(self) -> int:
        """The step with the smallest loss on the stopping rows; without such the last."""
        if self.stopping is None:
            return len(self.steps) - 1
        return min(range(len(self.steps)), key=lambda k: cast("float", self.steps[k].stopping))


def tune(
    problem: TuningProblem,
    *,
    solver: str = "hypergradient",
    options: Mapping[str, Any] | None = None,
    stopping: Sequence[Rows] | None = None,
    patience: int = 3,
    time_limit: float | None = None,
    seed: int = 0,
    verify: bool = True,
    shared_first: bool = True,
) -> Tuned:
    """Tune by descent, keeping the path.

    The validation loss falls to the end, the loss on other rows need not: with ``stopping`` the run ends when that has
    not fallen for some steps, and the answer is where it was smallest.

    Where a hyperparameter has many entries a short descent with one entry for all comes first, since the many begin far
    better where the one is tuned. Its points are part of the path, its work is part of the counts.

    Args:
        problem: what to tune.
        solver: a solver that descends: ``hypergradient``, ``auxiliary``, ``trust-region``.
        options: the solver's.
        stopping: rows that neither level sees otherwise, one set a fold in the scale of that fold.
        patience: steps without a smaller loss on them.
        time_limit, seed, verify: as for `bl.solve`; the first descent has half the time at most.
        shared_first: whether one entry for all is tuned first.

    Raises:
        UsageError: stopping rows that do not fit the folds, or no patience.
        BilevelError: the model could not be trained at the start.
    """
    if stopping is not None and len(stopping) != len(problem.folds):
        raise UsageError(f"Expected stopping rows for each of {len(problem.folds)} folds, got {len(stopping)}.")
    if patience < 1:
        raise UsageError(f"Expected a patience of at least 1, got {patience}.")
    path = _Path(problem, stopping, patience)
    counts: Counter[str] = Counter()
    before, start = problem.upper, problem.x0
    if shared_first and any(h.size > 1 for h in problem.model.hyperparameters):
        half = None if time_limit is None else 0.5 * time_limit
        counts.update(_shared(problem, path, solver, options or {}, half, seed))
    problem.upper = path.upper
    try:
        result = bl.solve(
            problem, solver, options or {}, time_limit, seed, callbacks=[path.event], verify=verify and stopping is None
        )
    finally:
        problem.upper, problem.x0 = before, start
    if not path.steps:
        raise BilevelError(
            f"Training at the start did not end, so that there is no point to report ({result.termination}). "
            f"{result.message} Raise time_limit, or look at the model's start."
        )
    result = replace(result, counts=dict(counts + Counter(result.counts)))
    if stopping is None:
        return Tuned(result, tuple(path.steps), len(path.steps) - 1)
    chosen = path.best
    return Tuned(_at(problem, result, path.steps[chosen], verify=verify), tuple(path.steps), chosen)


def _shared(
    problem: TuningProblem, path: _Path, solver: str, options: Mapping[str, Any], time_limit: float | None, seed: int
) -> Mapping[str, int]:
    """Tune one entry for all, and let the many start there; the work that it took."""
    fewer = problem.shared()
    # A steep objective, so that the first step has length 1, which is the right size for a logarithm.
    first = _Path(fewer, None, 1, unit=STEEP)
    fewer.upper = first.upper
    result = bl.solve(fewer, solver, options, time_limit, seed, callbacks=[first.settled], verify=False)
    for step in first.steps:
        x = {
            h.variable: step.x[h.variable].expand(h.size).clone() if h.size > 1 else step.x[h.variable]
            for h in problem.model.hyperparameters
        }
        path.seen[step.objective] = x, step.y
        path.keep(step.objective)
    if path.steps:
        problem.x0 = problem.x_layout.flatten(path.steps[-1].x)
    return result.counts


def _at(problem: TuningProblem, result: Result, step: Step, *, verify: bool) -> Result:
    """The result with another point of its path; an early stop claims no more than a feasible one."""
    flat = problem.x_layout.flatten(step.x), problem.y_layout.flatten(step.y)
    x, y = problem.point(*flat)
    details = problem.details(Values(x), Values(y)) | {"stopping_loss": step.stopping}
    with torch.no_grad():
        lower = float(problem.lower(step.x, step.y))
    moved = replace(
        result,
        x=x,
        y=y,
        upper_objective=step.objective,
        lower_objective=lower,
        claim=Claim.FEASIBLE,
        certificate=None,
        details={**result.details, **details},
        message=f"{result.message} {EARLY}".strip(),
    )
    return replace(moved, certificate=bl.verify(problem, moved)) if verify else moved
