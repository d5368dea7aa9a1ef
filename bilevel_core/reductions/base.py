"""A reduction turns one problem into another, and any point of the other back into a point of the first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np

Source = TypeVar("Source")
Target = TypeVar("Target")


class Reduction(ABC, Generic[Source, Target]):
    """One step. `apply` is called once, `invert` after it as often as there are points."""

    @abstractmethod
    def accepts(self, source: Source) -> str | None:
        """None when the reduction takes this source, else why not."""

    @abstractmethod
    def apply(self, source: Source) -> Target:
        """The reduced problem."""

    @abstractmethod
    def invert(self, values: np.ndarray) -> np.ndarray:
        """Column values of the target as column values of the source."""

    def extend(self, values: np.ndarray) -> np.ndarray:
        """A point of the source as one of the target, for reductions whose new columns follow from the others.

        As it is, it serves those that add no columns.
        """
        return values


class Chain:
    """A source and the reductions applied to it so far. Never changed: `then` gives a longer chain."""

    def __init__(self, source: Any) -> None:
        self.stages: tuple[Any, ...] = (source,)
        """The source, and what each step made of the stage before."""
        self.steps: tuple[Reduction[Any, Any], ...] = ()

    @property
    def target(self) -> Any:
        """What the last step produced."""
        return self.stages[-1]

    def then(self, step: Reduction[Any, Any]) -> Chain:
        """The chain with one more step applied.

        Raises:
            ValueError: the step does not take what the step before it produced.
        """
        reason = step.accepts(self.target)
        if reason is not None:
            raise ValueError(f"{type(step).__name__}: {reason}")
        return self._with((*self.stages, step.apply(self.target)), (*self.steps, step))

    def until(self, stage: int) -> Chain:
        """The chain as it was at a stage."""
        return self._with(self.stages[: stage + 1], self.steps[:stage])

    def invert(self, values: np.ndarray, *, to: int = 0) -> np.ndarray:
        """A point of the target as a point of stage ``to``: 0 for the source."""
        for step in reversed(self.steps[to:]):
            values = step.invert(values)
        return values

    def extend(self, values: np.ndarray, *, stage: int) -> np.ndarray:
        """A point of a stage as a point of the target."""
        for step in self.steps[stage:]:
            values = step.extend(values)
        return values

    def _with(self, stages: tuple[Any, ...], steps: tuple[Reduction[Any, Any], ...]) -> Chain:
        other = Chain(stages[0])
        other.stages, other.steps = stages, steps
        return other
