"""The torch face: any module, loss and data loaders, and hyperparameters by name, as a `TorchProblem`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

import bilevel_core as bl
from bilevel_core.errors import ModelError, UsageError
from bilevel_core.problems.torch import TorchProblem
from bilevel_core.result import Values
from bilevel_hpo.hyperparameters import Hyperparameter, entry_of
from bilevel_hpo.knobs import Knob
from bilevel_hpo.problem import NEAR, SHOWN

Loss = Callable[[Any, Any], torch.Tensor]


class TrainingProblem(TorchProblem):
    """Train a module at the lower level, and choose hyperparameters of its training at the upper one.

    Batches are (inputs, targets), or (inputs, targets, row numbers) where a hyperparameter needs to know the rows. The
    training objective is the mean over rows of the loss, as the hyperparameters change it, and their penalties; the
    leader's is the mean loss on validation rows, with the module in evaluation mode. Training is not convex for most
    modules: answers are then local minima, and claims are local ones.

    Args:
        module: what is trained; its parameters are where training starts. Not changed: `load` writes a result into it.
        loss: of (outputs, targets), one value a row: ``torch.nn.CrossEntropyLoss(reduction="none")``.
        train, validation: batches that can be iterated again and again: a DataLoader, or a list.
        hyperparameters: what is tuned (`bilevel_hpo.knobs`): ``WeightDecay``, ``SampleWeights``, ``LabelSmoothing``,
            ``LossMixing``, ``Augmentation``.
        test: batches that neither level sees, for the report; None for none.
        stopping: batches that neither level sees, to stop by (`tune_training`); None for none.
        prior: precision of a normal prior on each log-hyperparameter, around its start.
        name: of the problem.

    Raises:
        ModelError: no hyperparameter, two of one name, batches of another form, or a loss that is not one value a row.
    """

    compared = ("validation_loss", "test_loss")

    def __init__(
        self,
        module: torch.nn.Module,
        loss: Loss,
        train: Iterable[Any],
        validation: Iterable[Any],
        hyperparameters: Sequence[Knob],
        *,
        test: Iterable[Any] | None = None,
        stopping: Iterable[Any] | None = None,
        prior: float = 0.0,
        name: str = "training",
    ) -> None:
        if not hyperparameters:
            raise ModelError("Nothing to tune: hyperparameters is empty.")
        if not prior >= 0.0:
            raise UsageError(f"Expected a prior's precision of at least 0, got {prior!r}.")
        self.loss = loss
        self.knobs = tuple(hyperparameters)
        self.entries: tuple[Hyperparameter, ...] = tuple(k.entries(module) for k in self.knobs)
        names = [h.variable for h in self.entries]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ModelError(f"Two hyperparameters are called {twice[0]!r}: give one of them another name=.")
        self.prior = prior
        self.test, self.stopping = test, stopping
        self.passed: Callable[[Values, Values], None] | None = None
        dtype = next((p.dtype for p in module.parameters() if p.requires_grad), torch.float32)

        def full(values: Sequence[float]) -> dict[str, torch.Tensor]:
            return {
                h.variable: torch.full((h.size,), v, dtype=dtype) for h, v in zip(self.entries, values, strict=True)
            }

        start = full([h.inverse(h.start) for h in self.entries])
        self._centre = {k: v.clone() for k, v in start.items()}
        self.validation_rows = sum(len(_parts(batch, "validation")[1]) for batch in validation)
        self._try(module, train)
        super().__init__(
            self.objective,
            self._train,
            start,
            module,
            x_bounds=(full([h.bounds[0] for h in self.entries]), full([h.bounds[1] for h in self.entries])),
            upper_data=validation,
            lower_data=train,
            name=name,
        )

    def _try(self, module: torch.nn.Module, train: Iterable[Any]) -> None:
        """One batch, so that what does not fit is said at once."""
        inputs, targets, rows = _parts(next(iter(train)), "train")
        if rows is None and any(k.needs_rows for k in self.knobs):
            raise ModelError(
                "SampleWeights needs batches (inputs, targets, row numbers): add the numbers to the data set."
            )
        with torch.no_grad():
            losses = self.loss(copy.deepcopy(module)(inputs), targets)
        if losses.shape != (len(targets),):
            raise ModelError(
                f"Expected one loss a row, shape ({len(targets)},), got {tuple(losses.shape)}: pass a loss with "
                "reduction='none' that is summed over everything but rows."
            )

    def entry(self, k: int, value: float) -> tuple[str, float]:
        """See `TorchProblem.entry`: hyperparameters in their own units."""
        return entry_of(self.entries, self.x_layout, k, value)

    def values(self, x: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Hyperparameters in their own units, by name."""
        return {h.name: h.value(x[h.variable]) for h in self.entries}

    def _train(self, x: Any, y: Any, batch: Any) -> torch.Tensor:
        inputs, targets, rows = _parts(batch, "train")
        values = [h.value(x[h.variable]) for h in self.entries]
        for knob, value in zip(self.knobs, values, strict=True):
            inputs = knob.inputs(value, inputs)
        outputs = y(inputs)
        losses = self.loss(outputs, targets)
        for knob, value in zip(self.knobs, values, strict=True):
            losses = knob.losses(value, losses, outputs, targets, rows)
        total = losses.mean()
        for knob, value in zip(self.knobs, values, strict=True):
            total = total + knob.penalty(value, y)
        return total

    def objective(self, x: Any, y: Any, batch: Any) -> torch.Tensor:
        """The leader's objective on a batch of validation rows."""
        inputs, targets, _ = _parts(batch, "validation")
        total = self.loss(y.eval()(inputs), targets).mean()
        if self.prior:
            squares = torch.stack([((x[k] - c.to(x[k])) ** 2).sum() for k, c in self._centre.items()]).sum()
            total = total + 0.5 * self.prior / self.validation_rows * squares
        return total

    def _mean(self, y: Any, data: Iterable[Any], label: str) -> tuple[float, int]:
        total, count = 0.0, 0
        with torch.no_grad():
            for batch in data:
                inputs, targets, _ = _parts(batch, label)
                losses = self.loss(y.eval()(inputs), targets)
                total, count = total + float(losses.sum()), count + len(losses)
        return total / max(1, count), count

    def _trained(self, y: Values) -> Any:
        """The module with the weights of a point."""
        flat = self.y_layout.from_values(y)
        return self.y_layout.unflatten(flat, {k: torch.as_tensor(v) for k, v in y.items() if k in self._buffers()})

    def progress(self, x: Values, y: Values) -> dict[str, float]:
        """Losses on validation, stopping and test rows, so that every solver's trace has the path of all."""
        assert self.upper_data is not None
        module = self._trained(y)
        found = {"validation_loss": self._mean(module, self.upper_data, "validation")[0]}
        if self.test is not None:
            found["test_loss"] = self._mean(module, self.test, "test")[0]
        if self.stopping is not None:
            found["stopping_loss"] = self._mean(module, self.stopping, "stopping")[0]
        if self.passed is not None:
            self.passed(x, y)
        return found

    def details(self, x: Values, y: Values) -> dict[str, Any]:
        """Losses on validation and test rows, and each hyperparameter with its hypergradient."""
        assert self.upper_data is not None
        module = self._trained(y)
        report: dict[str, Any] = {}
        report["validation_loss"], report["validation_rows"] = self._mean(module, self.upper_data, "validation")
        if self.test is not None:
            report["test_loss"], report["test_rows"] = self._mean(module, self.test, "test")
        count = sum(h.size for h in self.entries)
        if count >= NEAR * self.validation_rows:
            report["warning"] = (
                f"{count} hyperparameters were fitted to {self.validation_rows} validation rows: the validation loss "
                "says little about new rows. Go by the test loss; share hyperparameters or set a prior."
            )
        slopes: Any = bl.hypergradient(self, x, y).value
        rows: list[dict[str, Any]] = []
        for h in self.entries:
            parts = h.labels, h.value(np.asarray(x[h.variable])), slopes[h.variable].detach().cpu().numpy()
            for label, value, slope in zip(*parts, strict=True):
                entry = f"{h.name}[{label}]" if label else h.name
                rows.append({"name": entry, "value": float(value), "hypergradient": float(slope)})
        if len(rows) > SHOWN:
            rows = sorted(rows, key=lambda r: -abs(r["hypergradient"]))[:SHOWN]
        report["hyperparameters"] = rows
        return report

    def _buffers(self) -> set[str]:
        module = self.y_layout.module
        return set() if module is None else {name for name, _ in module.named_buffers()}


def _parts(batch: Any, label: str) -> tuple[Any, Any, Any]:
    """Inputs, targets, and row numbers or None."""
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):  # pyright: ignore[reportUnknownArgumentType]
        raise ModelError(
            f"{label}: expected batches (inputs, targets) or (inputs, targets, rows), got {type(batch).__name__}."
        )
    parts: Sequence[Any] = batch
    return parts[0], parts[1], parts[2] if len(parts) == 3 else None


def meta_problem(
    module: torch.nn.Module,
    loss: Callable[[Any, Any], torch.Tensor],
    tasks: Sequence[tuple[Any, Any, Any, Any]],
    *,
    strength: float = 1.0,
    name: str = "meta",
) -> TorchProblem:
    """Meta-learning an initialisation: the leader's variables are weights that each task is drawn to when it trains.

    Each task's weights minimise ``loss + strength / 2 |weights - x|^2`` on its support rows; the leader minimises the
    mean loss of all tasks on their query rows.

    Source: Rajeswaran et al. (2019), Meta-learning with implicit gradients.

    Args:
        module: its parameters are where both levels start.
        loss: of (outputs, targets), a scalar.
        tasks: (support inputs, support targets, query inputs, query targets) of each.
        strength: of the pull.
        name: of the problem.

    Raises:
        ModelError: no task, or a strength that is not positive.
    """
    if not tasks or not strength > 0.0:
        raise ModelError(f"Expected at least one task and a positive strength, got {len(tasks)} and {strength!r}.")
    start = {k: p.detach().clone() for k, p in module.named_parameters() if p.requires_grad}
    names = [f"task_{k + 1}" for k in range(len(tasks))]

    def outputs(weights: Mapping[str, torch.Tensor], inputs: Any) -> Any:
        return torch.func.functional_call(module, dict(weights), (inputs,))

    def lower(x: Any, y: Any) -> torch.Tensor:
        parts: list[torch.Tensor] = []
        for task, (inputs, targets, _, _) in zip(names, tasks, strict=True):
            pull = torch.stack([((y[task][k] - x[k]) ** 2).sum() for k in start]).sum()
            parts.append(loss(outputs(y[task], inputs), targets) + 0.5 * strength * pull)
        return torch.stack(parts).sum()

    def upper(x: Any, y: Any) -> torch.Tensor:
        parts = [loss(outputs(y[n], a), t) for n, (_, _, a, t) in zip(names, tasks, strict=True)]
        return torch.stack(parts).mean()

    return TorchProblem(upper, lower, start, {n: {k: v.clone() for k, v in start.items()} for n in names}, name=name)
