"""A descent over hyperparameters with its path kept, and stopped early by rows that the leader does not see."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch

import bilevel_core as bl
from bilevel_core.errors import BilevelError, UsageError
from bilevel_core.result import Claim, Result, Termination
from bilevel_hpo.models import Rows
from bilevel_hpo.problem import TuningProblem

SHARED_GAIN = 0.005
"""The first descent ends with a step that gains no more than this share: only its neighbourhood matters."""
STEEP = 1e3
EARLY = (
    "The answer is the point of the path with the smallest loss on the stopping rows, and nothing is claimed of it but "
    "feasibility."
)
STOPPED = "Stopped early: the loss on the stopping rows had not fallen for {} steps."


@dataclass(frozen=True, eq=False)
class Step:
    """A point of the path: hyperparameters with the weights trained for them.

    Attributes:
        x, y: the two levels' variables, structured as the problem's.
        objective: the leader's.
        stopping: the loss on the rows that decide when to stop; None without such. As the objective, in the square of
            the targets' unit.
        seconds: since the beginning of the descent.
    """

    x: Any
    y: Any
    objective: float
    stopping: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Tuned:
    """The outcome of `tune`.

    Attributes:
        result: of the solver; with early stopping its point is that of ``path[chosen]``. Its details have the path as a
            table: losses on validation, stopping and test rows, and seconds. Test rows decide nothing.
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
    began: float = field(default_factory=time.monotonic)
    ended: bool = False

    def upper(self, x: Any, y: Any) -> torch.Tensor:
        value = self.unit * type(self.problem).objective(self.problem, x, y)
        key = float(value.detach())
        copied = {k: v.detach().clone() for k, v in x.items()}, {k: v.detach().clone() for k, v in y.items()}
        self.seen[key] = copied
        return value

    def keep(self, objective: float) -> None:
        x, y = self.seen[objective]
        stopping = None if self.stopping is None else self.problem.loss_on(x, y, self.stopping)
        self.steps.append(Step(x, y, objective / self.unit, stopping, time.monotonic() - self.began))

    def event(self, event: Any) -> bool:
        objective = event.data.get("objective") if event.kind == "iteration" else None
        if objective is None or objective not in self.seen:
            return False
        if not self.steps or objective / self.unit < self.steps[-1].objective:
            self.keep(objective)
        self.seen = {objective: self.seen[objective]}
        self.ended = self.stopping is not None and len(self.steps) - 1 - self.best >= self.patience
        return self.ended

    def settled(self, event: Any) -> bool:
        """Whether a first descent is near enough its end."""
        self.event(event)
        last = self.steps[-2:]
        self.ended = len(last) == 2 and last[0].objective - last[1].objective <= SHARED_GAIN * abs(last[1].objective)
        return self.ended

    @property
    def best(self) -> int:
        """The step with the smallest loss on the stopping rows; without such the last."""
        if self.stopping is None:
            return len(self.steps) - 1
        return least([cast("float", step.stopping) for step in self.steps])


def least(losses: Sequence[float]) -> int:
    """The place of the smallest loss, the first of equals; one that is no number is smaller than none."""
    return min(range(len(losses)), key=lambda k: math.inf if math.isnan(losses[k]) else losses[k])


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
    callbacks: Sequence[Callable[[Any], Any]] = (),
    report: bool = True,
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
        stopping: rows that neither level sees otherwise, one set a fold in the scale of that fold; None for the
            problem's own, if it has any.
        patience: steps without a smaller loss on them.
        time_limit, seed, verify: as for `bl.solve`; the first descent has half the time at most.
        shared_first: whether one entry for all is tuned first.
        callbacks: as for `bl.solve`; those of the first descent are not told of.
        report: whether the result has the problem's own details, which takes a few trainings.

    Raises:
        UsageError: stopping rows that do not fit the folds, or no patience.
        BilevelError: the model could not be trained at the start.
    """
    if stopping is None and problem.stopping:
        stopping = problem.stopping
    if stopping is not None and len(stopping) != len(problem.folds):
        raise UsageError(f"Expected stopping rows for each of {len(problem.folds)} folds, got {len(stopping)}.")
    if patience < 1:
        raise UsageError(f"Expected a patience of at least 1, got {patience}.")
    path = _Path(problem, stopping, patience)
    counts: Counter[str] = Counter()
    options = dict(options or {})
    before, start = problem.upper, problem.x0
    interrupted = False
    problem.quiet = True
    try:
        if shared_first and any(h.size > 1 for h in problem.model.hyperparameters):
            half = None if time_limit is None else 0.5 * time_limit
            first = _shared(problem, path, solver, options, half, seed)
            counts.update(first.counts)
            time_limit = None if time_limit is None else max(0.0, time_limit - first.wall_time)
            interrupted = first.termination is Termination.STOPPED_BY_USER
        if interrupted:
            options["max_iterations"] = 0
        problem.upper = path.upper
        result = bl.solve(problem, solver, options, time_limit, seed, callbacks=[path.event, *callbacks], verify=False)
    finally:
        problem.upper, problem.x0, problem.quiet = before, start, False
    if interrupted:
        result = replace(result, termination=Termination.STOPPED_BY_USER)
    if not path.steps:
        raise BilevelError(
            f"Training at the start did not end, so that there is no point to report ({result.termination}). "
            f"{result.message} Raise time_limit, or look at the model's start."
        )
    result = replace(result, counts=dict(counts + Counter(result.counts)))
    chosen = path.best
    if stopping is not None:
        result = _at(problem, result, path, chosen)
    own = problem.details(result.x, result.y) if report and result.has_point else {}
    result = replace(result, details={**result.details, **own, **_figures(problem, path.steps, chosen)})
    if verify and result.has_point:
        result = replace(result, certificate=bl.verify(problem, result))
    return Tuned(result, tuple(path.steps), chosen)


def _shared(
    problem: TuningProblem, path: _Path, solver: str, options: Mapping[str, Any], time_limit: float | None, seed: int
) -> Result:
    """Tune one entry for all, and let the many start there. Stopped by the user means so: not that it has settled."""
    fewer = problem.shared()
    # A steep objective, so that the first step has length 1, which is the right size for a logarithm.
    first = _Path(fewer, None, 1, unit=STEEP)
    fewer.upper, fewer.quiet = first.upper, True
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
    return replace(result, termination=Termination.CONVERGED) if first.ended else result


def _at(problem: TuningProblem, result: Result, path: _Path, chosen: int) -> Result:
    """The result with the point of its path that the stopping rows choose.

    It claims no more than a feasible one; only where a descent came to its own end, and that is the best point on the
    stopping rows, the result is as it was.
    """
    last = chosen == len(path.steps) - 1
    if last and not path.ended:
        return result
    step = path.steps[chosen]
    x, y = problem.point(problem.x_layout.flatten(step.x), problem.y_layout.flatten(step.y))
    with torch.no_grad():
        lower = float(problem.lower(step.x, step.y))
    said = [result.message, STOPPED.format(path.patience) if path.ended else "", EARLY]
    return replace(
        result,
        # The callback that asks for the end is ours, not the user's.
        termination=Termination.CONVERGED if path.ended else result.termination,
        x=x,
        y=y,
        upper_objective=step.objective,
        lower_objective=lower,
        claim=Claim.FEASIBLE,
        message=" ".join(s for s in said if s),
    )


def _figures(problem: TuningProblem, steps: Sequence[Step], chosen: int) -> dict[str, Any]:
    """The path as a table, and the stopping loss of the answer, both in the targets' own units."""
    scale = problem.folds[0].train.unit ** 2
    rows: list[dict[str, Any]] = []
    for k, step in enumerate(steps):
        row: dict[str, Any] = {"step": k, "objective": step.objective, **problem.losses(step.x, step.y)}
        if step.stopping is not None:
            row["stopping_loss"] = scale * step.stopping
        rows.append(row | {"seconds": step.seconds})
    figures: dict[str, Any] = {"path": rows}
    if steps[chosen].stopping is not None:
        figures |= {"stopping_loss": rows[chosen]["stopping_loss"], "chosen_step": chosen}
    return figures
