"""Folds whose parts have equally many rows, evaluated as one batch: one call of a function for all of them.

That takes functions of tensors alone. Models of the user's own with Python's `if` and `float` in them are evaluated
fold by fold, as a fold is that has no other of its size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from bilevel_hpo.models import Fold, Model, Rows, Tensors

Weights = Sequence[torch.Tensor] | Mapping[int, torch.Tensor]
"""A vector for each fold, by its number."""


@dataclass(frozen=True, eq=False)
class Stack:
    """Some folds, stacked.

    Attributes:
        places: their numbers.
        train, validation: their rows, with one more axis in front of everything.
    """

    places: tuple[int, ...]
    train: Rows
    validation: Rows

    @classmethod
    def of(cls, places: Sequence[int], folds: Sequence[Fold], model: Model) -> Stack:
        """Stack folds of equal sizes.

        Args:
            places: numbers of the folds.
            folds: the folds themselves.
            model: what is trained on them.
        """
        train = _stacked([f.train for f in folds], moments=model.by_moments(folds[0].train))
        return cls(tuple(places), train, _stacked([f.validation for f in folds], moments=False))

    def weights(self, y: Weights) -> torch.Tensor:
        """Of these folds, shape (folds, weights), from those of all."""
        return torch.stack([y[k] for k in self.places])

    def objectives(self, model: Model, x: Tensors, y: Weights) -> torch.Tensor:
        """The training objective of each fold, shape (folds,)."""
        weights = self.weights(y)
        return _mapped(lambda w, rows: model.objective(x, w, rows), weights, self.train.on(weights.device))

    def losses(self, model: Model, x: Tensors, y: Weights) -> torch.Tensor:
        """The validation loss of each fold, shape (folds,)."""
        weights = self.weights(y)

        def loss(w: torch.Tensor, train: Rows, rows: Rows) -> torch.Tensor:
            return model.validation(model.scores(x, w, train, rows), rows.targets)

        return _mapped(loss, weights, self.train.on(weights.device), self.validation.on(weights.device))

    def closed_forms(self, model: Model, x: Tensors) -> torch.Tensor:
        """The weights of each fold by the model's formula, shape (folds, weights)."""
        rows = self.train.on(next(iter(x.values())).device)
        return _mapped(lambda _, one: model.closed_form(x, one), rows.shift, rows)


def stacks_of(folds: Sequence[Fold], model: Model) -> tuple[Stack, ...]:
    """Folds by their numbers of rows: those of cross-validation differ by one at most, and make two stacks."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for k, fold in enumerate(folds):
        kind = fold.train.inputs.shape, len(fold.validation), fold.train.unit
        groups.setdefault(kind, []).append(k)
    found: list[Stack] = []
    for places in groups.values():
        stack = Stack.of(places, [folds[k] for k in places], model)
        found += [stack] if _batches(stack, folds, model) else [Stack.of([k], [folds[k]], model) for k in places]
    return tuple(found)


def _batches(stack: Stack, folds: Sequence[Fold], model: Model) -> bool:
    """Whether a model's functions can be called for several folds at once."""
    if len(stack.places) == 1:
        return True
    x = model.variables()[0]
    y = {k: model.start(folds[k].train) for k in stack.places}
    try:
        with torch.no_grad():
            stack.objectives(model, x, y)
            stack.losses(model, x, y)
            if model.solvable(folds[stack.places[0]].train):
                stack.closed_forms(model, x)
    except RuntimeError:
        # What is wrong with the model itself comes up again fold by fold.
        return False
    return True


def _stacked(rows: Sequence[Rows], *, moments: bool) -> Rows:
    parts = [(*r.tensors[:4], *(r.moments if moments else ())) for r in rows]
    # Where targets were shifted from does not matter to objectives and losses.
    return Rows.made([torch.stack(same) for same in zip(*parts, strict=True)], 0.0, rows[0].unit)


def _mapped(function: Callable[..., torch.Tensor], weights: torch.Tensor, *rows: Rows) -> torch.Tensor:
    """A function of one fold's weights and rows for all folds."""
    units = [r.unit for r in rows]

    def single(w: torch.Tensor, *parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return function(w, *(Rows.made(p, 0.0, unit) for p, unit in zip(parts, units, strict=True)))

    if len(weights) == 1:
        return single(weights[0], *(tuple(p[0] for p in r.tensors) for r in rows))[None]
    return torch.func.vmap(single)(weights, *(r.tensors for r in rows))
