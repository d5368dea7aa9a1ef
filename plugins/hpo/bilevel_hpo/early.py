"""Early stopping for modules that are trained: rows that neither level sees decide where the descent ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import bilevel_core as bl
from bilevel_core.errors import UsageError
from bilevel_core.oracles import make_oracle
from bilevel_core.result import Claim, Result, Termination, Values
from bilevel_hpo.training import TrainingProblem

STOPPING = "stopping_loss"
EARLY = (
    "The answer is the point of the path with the smallest loss on the stopping rows, and nothing is claimed of it but "
    "feasibility."
)


@dataclass
class _Path:
    """The better points that a run passed, and a row of figures for each."""

    patience: int
    points: list[tuple[Values, Values]] = field(default_factory=list[tuple[Values, Values]])
    rows: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    ended: bool = False

    def passed(self, x: Values, y: Values) -> None:
        self.points.append((x, y))

    def event(self, event: Any) -> bool:
        if event.kind == "incumbent":
            self.rows.append({"step": len(self.rows), "objective": event.data["objective"], **event.data["figures"]})
            self.rows[-1]["seconds"] = event.time
            self.ended = len(self.rows) - 1 - self.best >= self.patience
        return self.ended

    @property
    def best(self) -> int:
        return min(range(len(self.rows)), key=lambda k: self.rows[k][STOPPING])


def tune_training(
    problem: TrainingProblem,
    *,
    solver: str = "hypergradient",
    options: Mapping[str, Any] | None = None,
    patience: int = 3,
    time_limit: float | None = None,
    seed: int = 0,
    verify: bool = True,
    callbacks: Sequence[Callable[[Any], Any]] = (),
) -> Result:
    """Tune the training of a module, and stop when the loss on ``problem.stopping`` no longer falls.

    Args:
        problem: with rows to stop by: ``TrainingProblem(..., stopping=batches)``.
        solver: any that goes from better point to better point: ``hypergradient``, ``auxiliary``, ``sample.tpe``, ...
        options, time_limit, seed, verify, callbacks: as for `bl.solve`.
        patience: better points in a row without a smaller loss on the stopping rows, after which the run ends.

    Returns:
        A result at the point with the smallest loss on the stopping rows. Its details have the table ``path``:
        objective, losses on validation, stopping and test rows, and seconds of each better point.

    Raises:
        UsageError: no stopping rows, or no patience.
    """
    if problem.stopping is None:
        raise UsageError("There are no rows to stop by: give the problem stopping=batches.")
    if patience < 1:
        raise UsageError(f"Expected a patience of at least 1, got {patience}.")
    path = _Path(patience)
    problem.passed = path.passed
    try:
        result = bl.solve(problem, solver, options, time_limit, seed, callbacks=[path.event, *callbacks], verify=False)
    finally:
        problem.passed = None
    if not path.rows or not result.has_point:
        return result
    chosen = path.best
    table = {"path": path.rows, "chosen_step": chosen, STOPPING: path.rows[chosen][STOPPING]}
    if path.ended or chosen < len(path.rows) - 1:
        x, y = path.points[chosen]
        flat = problem.x_layout.from_values(x).double().cpu().numpy(), problem.y_layout.from_values(y)
        stopped = f"Stopped early: the loss on the stopping rows had not fallen for {patience} better points."
        said = [result.message, stopped if path.ended else "", EARLY]
        result = replace(
            result,
            # The callback that asks for the end is ours, not the user's.
            termination=Termination.CONVERGED if path.ended else result.termination,
            claim=Claim.FEASIBLE,
            x=x,
            y=y,
            upper_objective=path.rows[chosen]["objective"],
            lower_objective=make_oracle(problem).objectives(*flat)[1],
            message=" ".join(s for s in said if s),
            details=problem.details(x, y),
        )
    result = replace(result, details={**result.details, **table})
    return replace(result, certificate=bl.verify(problem, result)) if verify else result
