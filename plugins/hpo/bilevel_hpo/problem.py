"""`TuningProblem`: hyperparameters above, a model trained on each fold below, and what can be said of the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

import bilevel_core as bl
from bilevel_core.errors import UsageError
from bilevel_core.lower import respond
from bilevel_core.oracles import make_oracle
from bilevel_core.problems.torch import TorchProblem
from bilevel_core.result import Values
from bilevel_hpo.hyperparameters import entry_of
from bilevel_hpo.models import Fold, Model, Rows
from bilevel_hpo.solver import EARLY, STRUCTURE
from bilevel_hpo.stack import stacks_of

NEAR = 0.5
"""Hyperparameters per validation row from which the validation loss says little about other rows."""
SHOWN = 200
"""Entries of hyperparameters that a report lists."""


def fold_of(
    model: Model, inputs: np.ndarray, targets: np.ndarray, train: np.ndarray, validation: np.ndarray, unit: float = 1.0
) -> Fold:
    """A fold from row numbers; columns are scaled by the training rows alone, targets by the same unit in all folds."""
    rows = Rows.of(inputs[train], targets[train], centred=model.centred, unit=unit)
    return Fold(rows, rows.like(inputs[validation], targets[validation]))


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What neither level sees, and what it is compared with.

    Attributes:
        tuning: (inputs, targets) of training and validation rows together: the model is trained on them once more.
        test: (inputs, targets) of the rows that judge.
        single: the same problem with one hyperparameter in place of many; None for nothing to compare with.
    """

    tuning: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    single: TuningProblem | None = None


class TuningProblem(TorchProblem):
    """Minimise the mean validation loss over hyperparameters; each fold's weights minimise its training objective.

    Squared errors are divided by the square of the targets' unit (their standard deviation), so that the leader's
    objective is about one minus the coefficient of determination; reports are in the targets' own units.

    The leader's variables are named ``log_...`` or ``logit_...``, the follower's ``weights`` (``weights_1``, ... with
    several folds). With a prior the leader's objective is the negative logarithm of a posterior density, divided by the
    number of validation rows (where the loss is a negative log-likelihood): ``prior / (2 rows) * |x - start|^2``.

    Args:
        model: what is trained.
        folds: training and validation rows.
        prior: precision of the normal prior on each log-hyperparameter, around its start; 0 for none.
        validation_rows: how many different rows the leader sees; by default the sum over the folds.
        held_out: for the figures on test rows; None for none.
        stopping: rows that say when to stop, one set a fold in the scale of that fold; seen by neither level, and of
            use to the solver ``tune``. None of them for no early stopping.
        notes: what else the report should say.
        name: of the problem.

    Raises:
        UsageError: no fold, a negative prior, or stopping rows that do not fit the folds.
    """

    compared = ("validation_loss", "test_loss")

    def __init__(
        self,
        model: Model,
        folds: Sequence[Fold],
        *,
        prior: float = 0.0,
        validation_rows: int | None = None,
        held_out: HeldOut | None = None,
        stopping: Sequence[Rows] = (),
        notes: Sequence[str] = (),
        name: str = "tuning",
    ) -> None:
        if not folds:
            raise UsageError("Tuning needs at least one fold of training and validation rows.")
        if not prior >= 0.0:
            raise UsageError(f"Expected a prior's precision of at least 0, got {prior!r}.")
        if len(stopping) not in (0, len(folds)):
            raise UsageError(f"Expected stopping rows for each of {len(folds)} folds, got {len(stopping)}.")
        self.model = model
        self.stopping = tuple(stopping)
        self.structure = frozenset({STRUCTURE, EARLY} if stopping else {STRUCTURE})
        self.quiet = False
        self.folds = tuple(folds)
        self.stacks = () if len(folds) == 1 else stacks_of(self.folds, model)
        self.prior = prior
        self.held_out = held_out
        self.notes = tuple(notes)
        self.validation_rows = validation_rows or sum(len(f.validation) for f in folds)
        start, bounds = model.variables()
        self._centre = {k: v.clone() for k, v in start.items()}
        names = self.names
        bounded = [model.bounds(f.train) for f in self.folds]
        sides = [b for b in bounded if b is not None]
        super().__init__(
            self.objective,
            self._lower,
            start,
            {n: model.start(f.train) for n, f in zip(names, self.folds, strict=True)},
            x_bounds=bounds,
            y_bounds=None
            if not sides
            else tuple({n: b[k] for n, b in zip(names, sides, strict=True)} for k in range(2)),  # type: ignore[arg-type]
            name=name,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The follower's variables: one vector of weights a fold."""
        if len(self.folds) == 1:
            return ("weights",)
        return tuple(f"weights_{k + 1}" for k in range(len(self.folds)))

    def _lower(self, x: Any, y: Any) -> torch.Tensor:
        if not self.stacks:
            return self.model.objective(x, y["weights"], self.folds[0].train)
        weights = [y[n] for n in self.names]
        return torch.cat([s.objectives(self.model, x, weights) for s in self.stacks]).sum()

    @property
    def lower_convex(self) -> bool:
        """See `TorchProblem.lower_convex`."""
        return self.model.convex

    def closed_form(self, x: Any) -> dict[str, torch.Tensor] | None:
        """See `TorchProblem.closed_form`: ridge regression has one, with a kernel or without."""
        if not all(self.model.solvable(f.train) for f in self.folds):
            return None
        if not self.stacks:
            rows = self.folds[0].train.on(next(iter(x.values())).device)
            return {"weights": self.model.closed_form(x, rows)}
        found: dict[int, torch.Tensor] = {}
        for stack in self.stacks:
            found |= dict(zip(stack.places, stack.closed_forms(self.model, x), strict=True))
        return {n: found[k] for k, n in enumerate(self.names)}

    def objective(self, x: Any, y: Any) -> torch.Tensor:
        """The leader's objective: the validation loss, and the prior where there is one."""
        total = self.loss(x, y)
        if self.prior:
            squares = torch.stack([((x[k] - c.to(x[k])) ** 2).sum() for k, c in self._centre.items()]).sum()
            total = total + 0.5 * self.prior / self.validation_rows * squares
        return total

    def loss(self, x: Any, y: Any) -> torch.Tensor:
        """The validation loss, mean over the folds, without the prior."""
        if not self.stacks:
            return self._loss_on(x, y["weights"], self.folds[0], self.folds[0].validation)
        weights = [y[n] for n in self.names]
        return torch.cat([s.losses(self.model, x, weights) for s in self.stacks]).mean()

    def loss_on(self, x: Any, y: Any, others: Sequence[Rows]) -> float:
        """The same loss on other rows, one set a fold, in the scale of that fold."""
        with torch.no_grad():
            parts = [self._loss_on(x, y[n], f, o) for (n, f), o in zip(self._parts(), others, strict=True)]
        return float(torch.stack(parts).mean())

    def _parts(self) -> list[tuple[str, Fold]]:
        return list(zip(self.names, self.folds, strict=True))

    def _loss_on(self, x: Any, weights: torch.Tensor, fold: Fold, rows: Rows) -> torch.Tensor:
        rows = rows.on(weights.device)
        return self.model.validation(self.model.scores(x, weights, fold.train, rows), rows.targets)

    def shared(self) -> TuningProblem:
        """The same problem with one entry of each hyperparameter in place of many."""
        model: Any = self.model
        fewer = replace(model, hyperparameters=tuple(h.shared() for h in self.model.hyperparameters))
        return TuningProblem(
            fewer, self.folds, prior=self.prior, validation_rows=self.validation_rows, name=f"{self.name}, shared"
        )

    def tensors(self, values: Values) -> dict[str, torch.Tensor]:
        """A level's values of a result as the functions take them."""
        return {k: torch.as_tensor(v, dtype=torch.float64) for k, v in values.items()}

    def chosen(self, x: Values) -> dict[str, np.ndarray]:
        """The hyperparameters in their own units, by name."""
        return {h.name: h.value(np.asarray(x[h.variable])) for h in self.model.hyperparameters}

    def entry(self, k: int, value: float) -> tuple[str, float]:
        """See `TorchProblem.entry`: hyperparameters in their own units."""
        return entry_of(self.model.hyperparameters, self.x_layout, k, value)

    def crowded(self) -> str:
        """A warning where hyperparameters are many for the validation rows; "" where they are not."""
        count = sum(h.size for h in self.model.hyperparameters)
        if count < NEAR * self.validation_rows:
            return ""
        return (
            f"{count} hyperparameters were fitted to {self.validation_rows} validation rows: the validation loss says "
            "little about new rows. Go by the test loss; share hyperparameters, set a prior, or validate on more rows."
        )

    def progress(self, x: Values, y: Values) -> dict[str, float]:
        """Losses on validation and test rows, so that every solver's trace has the path of both."""
        return {} if self.quiet else self.losses(self.tensors(x), self.tensors(y))

    def details(self, x: Values, y: Values) -> dict[str, Any]:
        """Losses on training, validation, stopping and test rows, and each hyperparameter with its hypergradient.

        Nothing while ``quiet`` is set: in runs whose end is not what is reported.
        """
        if self.quiet:
            return {}
        a, b = self.tensors(x), self.tensors(y)
        scale = self.folds[0].train.unit ** 2
        report: dict[str, Any] = {"loss": self.model.loss_name}
        report["training_loss"] = scale * self.loss_on(a, b, [f.train for f in self.folds])
        report["validation_loss"] = scale * self.loss_on(a, b, [f.validation for f in self.folds])
        report.update(self._remarks(a, b))
        report["training_rows"] = min(len(f.train) for f in self.folds)
        report["validation_rows"] = self.validation_rows
        if self.stopping:
            report["stopping_loss"] = scale * self.loss_on(a, b, self.stopping)
            report["stopping_rows"] = len(self.stopping[0])
        if self.held_out is not None:
            report.update(self._tested(a, b, self.held_out))
        if warning := self.crowded():
            report["warning"] = warning
        if self.notes:
            report["notes"] = " ".join(self.notes)
        report["hyperparameters"] = self._table(x, y)
        return report

    def losses(self, x: Any, y: Any) -> dict[str, float]:
        """Losses at a point of a path, in the targets' own units: on validation rows, and on test rows if there are."""
        scale = self.folds[0].train.unit ** 2
        found = {"validation_loss": scale * self.loss_on(x, y, [f.validation for f in self.folds])}
        if self.held_out is not None:
            others = [f.train.like(*self.held_out.test) for f in self.folds]
            found["test_loss"] = scale * self.loss_on(x, y, others)
        return found

    def _remarks(self, x: Any, y: Any) -> dict[str, float]:
        """The model's own, mean over the folds."""
        with torch.no_grad():
            found = [self.model.remarks(x, y[n], f.train) for n, f in self._parts()]
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}

    def _tested(self, x: Any, y: Any, held: HeldOut) -> dict[str, Any]:
        """Losses on the test rows: of the models as validated, and of one trained on all other rows."""
        scale = self.folds[0].train.unit ** 2
        others = [f.train.like(*held.test) for f in self.folds]
        report: dict[str, Any] = {"test_rows": len(held.test[0]), "test_loss": scale * self.loss_on(x, y, others)}
        y_rows = [(f.train, y[n], o) for (n, f), o in zip(self._parts(), others, strict=True)]
        if self.model.refits:
            again, weights = self.refitted(x, *held.tuning)
            y_rows = [(again, weights, again.like(*held.test))]
            report["test_loss_refitted"] = scale * self._judged(x, y_rows)[0]
        accuracy = self._judged(x, y_rows)[1]
        if accuracy is not None:
            report["test_accuracy"] = accuracy
        if held.single is not None:
            shared = bl.solve(held.single, "hypergradient", {"tolerance": 1e-5, "max_iterations": 30}, verify=False)
            figure = "test_loss_refitted" if self.model.refits else "test_loss"
            report[f"{figure}_single"] = shared.details[figure]
            report["validation_loss_single"] = shared.details["validation_loss"]
            better = report[figure] < shared.details[figure]
            report["against_single"] = (
                f"{'better' if better else 'not better'} on the test rows than one hyperparameter for all, tuned alike"
            )
        return report

    def _judged(self, x: Any, parts: Sequence[tuple[Rows, torch.Tensor, Rows]]) -> tuple[float, float | None]:
        """Mean loss and accuracy (None for numbers) over (training rows, weights, rows to judge by)."""
        losses: list[float] = []
        shares: list[float] = []
        with torch.no_grad():
            for train, weights, rows in parts:
                scores = self.model.scores(x, weights, train, rows)
                losses.append(float(self.model.validation(scores, rows.targets)))
                share = self.model.accuracy(scores, rows.targets)
                shares += [] if share is None else [share]
        return float(np.mean(losses)), float(np.mean(shares)) if shares else None

    def refitted(self, x: Any, inputs: np.ndarray, targets: np.ndarray) -> tuple[Rows, torch.Tensor]:
        """Train on other rows at fixed hyperparameters: the rows in their own scale, and the weights.

        Raises:
            LowerFailedError: the training objective has no minimum that can be found.
        """
        rows = Rows.of(inputs, targets, centred=self.model.centred, unit=self.folds[0].train.unit)
        alone = TuningProblem(self.model, [Fold(rows, rows)])
        answer = respond(make_oracle(alone), alone.x_layout.flatten(x).double().numpy())
        return rows, answer.y

    def _table(self, x: Values, y: Values) -> list[dict[str, Any]]:
        """A row for each entry, largest hypergradient first where there are more than are shown."""
        slopes: Any = bl.hypergradient(self, x, y).value
        rows: list[dict[str, Any]] = []
        for h in self.model.hyperparameters:
            values = h.value(np.asarray(x[h.variable]))
            slope = slopes[h.variable].detach().cpu().numpy()
            for k, (value, size) in enumerate(zip(values, slope, strict=True)):
                rows.append({"name": h.entry(k), "value": float(value), "hypergradient": float(size)})
        if len(rows) > SHOWN:
            rows = sorted(rows, key=lambda r: -abs(r["hypergradient"]))[:SHOWN]
        return rows
