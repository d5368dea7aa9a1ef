"""`tune`: a descent over hyperparameters with the path in its report, stopped early by rows that neither level sees.

Good at: problems with stopping rows (``-p stopping=0.2``), and hyperparameters of many entries, which begin where one
entry for all is best. Bad at: certificates of stationarity, which a point chosen by other rows does not have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bilevel_core.errors import UsageError
from bilevel_core.result import Result
from bilevel_core.run import RunContext
from bilevel_core.solvers.base import Accepted, Refused, Solver
from bilevel_core.solvers.descent import option
from bilevel_core.traits import Traits

if TYPE_CHECKING:
    from bilevel_hpo.problem import TuningProblem

STRUCTURE, EARLY = "tuning", "early-stopping"
"""Structures of the problems: one of tuning, and one with rows that say when to stop."""


@dataclass(frozen=True)
class Tune(Solver):
    """`bilevel_hpo.tune` as a solver."""

    method: Literal["hypergradient", "auxiliary", "trust-region"] = option("hypergradient", "what descends")
    max_iterations: int = option(50, "most steps of the descent, and of the one before it with one entry for all")
    tolerance: float = option(1e-4, "norm of the hypergradient, relative to its first, at which the descent ends")
    patience: int = option(3, "with stopping rows: steps without a smaller loss on them before the end")
    shared_first: bool = option(True, "tune one entry for all first, where a hyperparameter has many")

    def __post_init__(self) -> None:
        if self.max_iterations < 0 or self.patience < 1:
            raise UsageError(
                f"Expected max_iterations of at least 0 and patience of at least 1, got {self.max_iterations} and "
                f"{self.patience}."
            )
        if not (math.isfinite(self.tolerance) and self.tolerance > 0.0):
            raise UsageError(f"Expected a positive number for tolerance, got {self.tolerance!r}.")

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Tuning problems of a model and folds; chosen by itself for those with stopping rows."""
        if STRUCTURE not in traits.structure:
            return Refused("it is not a tuning problem of a model and folds", "hypergradient")
        early = EARLY in traits.structure
        how = f"{self.method} with the path kept" + (", ended by the stopping rows" if early else "")
        slow = "" if early else "there are no stopping rows, so that the method itself does"
        return Accepted(how, "local", slow)

    def run(self, problem: TuningProblem, context: RunContext) -> Result:
        """See `Solver.run`."""
        from bilevel_hpo.descents import tune

        if self.patience != Tune.patience and not problem.stopping:
            raise UsageError(
                f"Option patience = {self.patience} would have no effect here: the problem has no stopping rows. Set "
                "them aside with -p stopping=0.2, or leave patience out."
            )

        def heard(event: Any) -> bool:
            if event.kind in ("incumbent", "iteration"):
                return context.report(event.kind, **event.data)
            return context.stopped

        found = tune(
            problem,
            solver=self.method,
            options={"max_iterations": self.max_iterations, "tolerance": self.tolerance},
            patience=self.patience,
            time_limit=context.remaining(),
            seed=context.seed,
            verify=False,
            shared_first=self.shared_first,
            callbacks=[heard],
            report=False,
        )
        return found.result
