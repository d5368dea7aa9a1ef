"""Early stopping for modules that are trained: rows that neither level sees decide where the descent ends."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import bilevel_core as bl
from bilevel_core.errors import UsageError
from bilevel_core.oracles import make_oracle
from bilevel_core.result import Claim, Result, Termination, Values
from bilevel_core.run.checkpoint import load, save
from bilevel_core.run.record import CHECKPOINT, RunRecord, read_request
from bilevel_hpo.descents import least
from bilevel_hpo.training import TrainingProblem

STOPPING = "stopping_loss"
PATH = "path"
"""The file of a run's folder that has the path beside the checkpoint."""
EARLY = (
    "The answer is the point of the path with the smallest loss on the stopping rows, and nothing is claimed of it but "
    "feasibility."
)


@dataclass
class _Path:
    """A row of figures for each better point that a run passed, and the point that the stopping rows like best."""

    patience: int
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    point: tuple[Values, Values] | None = None
    ended: bool = False
    _latest: tuple[Values, Values] | None = None

    def passed(self, x: Values, y: Values) -> None:
        self._latest = x, y

    def event(self, event: Any) -> bool:
        if event.kind == "incumbent":
            row = {"step": len(self.rows), "objective": event.data["objective"], **event.data["figures"]}
            before = self.best if self.rows else None
            self.rows.append({**row, "seconds": event.time})
            if self.best != before:
                self.point = self._latest
            self.ended = len(self.rows) - 1 - self.best >= self.patience
        return self.ended

    @property
    def best(self) -> int:
        return least([row[STOPPING] for row in self.rows])

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"rows": list(self.rows), "point": None if self.point is None else tuple(dict(v) for v in self.point)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The reverse of `state`."""
        self.rows = [dict(row) for row in state["rows"]]
        self.point = None if state["point"] is None else (Values(state["point"][0]), Values(state["point"][1]))
        self.ended = bool(self.rows) and len(self.rows) - 1 - self.best >= self.patience


class _Record(RunRecord):
    """A run's record that has the path beside each checkpoint.

    They are two files, each replaced whole. So the path's file holds it as of the newest checkpoint and as of the one
    before, by their contents' hashes: whichever is on the disk after a crash finds its own.
    """

    def __init__(self, folder: str | os.PathLike[str], path: _Path, request: Mapping[str, Any] | None = None) -> None:
        super().__init__(Path(folder), request)
        self._path = path
        self._before: dict[str, Any] = {}

    def checkpoint(self, content: bytes) -> None:
        """See `RunRecord.checkpoint`."""
        now = {_hash(content): self._path.state()}
        save(self.folder / PATH, {**self._before, **now})
        super().checkpoint(content)
        self._before = now

    def recall(self) -> None:
        """The path as of the checkpoint that is there. Sampling solvers need none: they pass their points again.

        Raises:
            UsageError: there is none.
        """
        if self.journaled():
            return
        content = (self.folder / CHECKPOINT).read_bytes() if (self.folder / CHECKPOINT).is_file() else b""
        states = load(self.folder / PATH) if content and (self.folder / PATH).is_file() else {}
        found = states.get(_hash(content)) if isinstance(states, dict) else None
        if found is None:
            raise UsageError(f"{self.folder} holds no checkpoint with a path of tune_training: tune anew, with out=.")
        self._path.restore(found)
        self._before = {_hash(content): found}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tune_training(
    problem: TrainingProblem,
    *,
    solver: str = "hypergradient",
    options: Mapping[str, Any] | None = None,
    patience: int = 3,
    time_limit: float | None = None,
    seed: int = 0,
    device: str = "auto",
    verify: bool = True,
    callbacks: Sequence[Callable[[Any], Any]] = (),
    out: str | os.PathLike[str] | None = None,
) -> Result:
    """Tune the training of a module, and stop when the loss on ``problem.stopping`` no longer falls.

    Args:
        problem: with rows to stop by: ``TrainingProblem(..., stopping=batches)``.
        solver: any that goes from better point to better point: ``hypergradient``, ``auxiliary``, ``sample.bayes``, ...
        options, time_limit, seed, device, verify, callbacks: as for `bl.solve`.
        patience: better points in a row without a smaller loss on the stopping rows, after which the run ends.
        out: folder for the record of the run, as for `bl.solve`; a run that was cut short goes on from there by
            `resume_training`. None for none.

    Returns:
        A result at the point with the smallest loss on the stopping rows. Its details have the table ``path``:
        objective, losses on validation, stopping and test rows, and seconds of each better point.

    Raises:
        UsageError: no stopping rows, or no patience; a folder that cannot be used.
    """
    _check(problem, patience)
    path = _Path(patience)
    asked = {"early_stopping": {"patience": patience, "verify": verify}}
    record = None if out is None else _Record(out, path, asked)

    def run() -> Result:
        heard = [path.event, *callbacks]
        return bl.solve(problem, solver, options, time_limit, seed, device, heard, verify=False, out=record)

    return _tuned(problem, path, run, record, verify=verify)


def resume_training(
    problem: TrainingProblem,
    folder: str | os.PathLike[str],
    *,
    time_limit: float | None = None,
    max_iterations: int | None = None,
    callbacks: Sequence[Callable[[Any], Any]] = (),
    device: str = "auto",
) -> Result:
    """Go on with a run of `tune_training` that was recorded and cut short, with its own solver, options and patience.

    On a CPU the path, the step chosen and all figures are those of a run that was never interrupted; only times differ.

    Args:
        problem: the problem that the run tuned.
        folder: the run's folder, ``out`` of `tune_training`.
        time_limit, max_iterations, callbacks, device: as for `bl.resume`.

    Raises:
        UsageError: the folder holds no run of `tune_training`, or that of another problem.
    """
    asked = read_request(Path(folder)).get("early_stopping")
    if not isinstance(asked, Mapping):
        raise UsageError(f"{os.fspath(folder)} holds no run of tune_training: go on with it by bl.resume.")
    told = cast("Mapping[str, Any]", asked)
    _check(problem, told["patience"])
    path = _Path(told["patience"])
    record = _Record(folder, path, {"early_stopping": dict(told)})
    record.recall()

    def run() -> Result:
        limits: dict[str, Any] = {"time_limit": time_limit, "max_iterations": max_iterations, "device": device}
        return bl.resume(problem, record, callbacks=[path.event, *callbacks], **limits)

    return _tuned(problem, path, run, record, verify=bool(told["verify"]))


def _check(problem: TrainingProblem, patience: int) -> None:
    if problem.stopping is None:
        raise UsageError("There are no rows to stop by: give the problem stopping=batches.")
    if patience < 1:
        raise UsageError(f"Expected a patience of at least 1, got {patience}.")


def _tuned(
    problem: TrainingProblem, path: _Path, run: Callable[[], Result], record: _Record | None, *, verify: bool
) -> Result:
    """Run, and answer with the point of the path that the stopping rows choose."""
    problem.passed = path.passed
    try:
        result = run()
    finally:
        problem.passed = None
    if not path.rows or not result.has_point:
        return result
    chosen = path.best
    table = {"path": path.rows, "chosen_step": chosen, STOPPING: path.rows[chosen][STOPPING]}
    if path.ended or chosen < len(path.rows) - 1:
        assert path.point is not None
        x, y = path.point
        flat = problem.x_layout.from_values(x).double().cpu().numpy(), problem.y_layout.from_values(y)
        stopped = f"Stopped early: the loss on the stopping rows had not fallen for {path.patience} better points."
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
    result = replace(result, certificate=bl.verify(problem, result)) if verify else result
    if record is not None:
        record.finish(result)
    return result
