"""A reduction turns one problem into another, and any point of the other back into a point of the first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
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


class Chain:
    """Reductions one after the other."""

    def __init__(self, steps: Sequence[Reduction[Any, Any]]) -> None:
        self.steps = tuple(steps)

    def apply(self, source: Any) -> Any:
        """Apply all steps in order.

        Raises:
            ValueError: a step does not take what the step before it produced.
        """
        for step in self.steps:
            reason = step.accepts(source)
            if reason is not None:
                raise ValueError(f"{type(step).__name__}: {reason}")
            source = step.apply(source)
        return source

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Undo all steps on a point, last first."""
        for step in reversed(self.steps):
            values = step.invert(values)
        return values
