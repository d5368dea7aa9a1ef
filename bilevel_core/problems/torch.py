"""`TorchProblem`: both levels as functions of tensors, differentiated by PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch

from bilevel_core.errors import ModelError
from bilevel_core.problems.base import DifferentiableProblem, Sizes
from bilevel_core.problems.tree import Layout
from bilevel_core.result import Result, Values

Function = Callable[..., Any]


class TorchProblem(DifferentiableProblem):
    """A bilevel problem written with PyTorch. Both levels minimise.

    ``upper`` and ``lower`` are called with (x, y), structured as ``x0`` and ``y0``, and return a scalar tensor; with
    data loaders they are called with (x, y, batch), and the objective is the mean over the batches, weighted by their
    sizes. A module as ``y0`` (or ``x0``) comes to them as a `ModuleView`: call it like the module; ``y.eval()(inputs)``
    runs it in evaluation mode. Parameters that do not require gradients stay as they are.

    In results a plain tensor is called ``x`` or ``y``, the leaves of a structure by their path (``layer.weight``).

    Args:
        upper: the leader's objective.
        lower: the follower's objective.
        x0: where the leader starts.
        y0: where the follower starts.
        upper_inequality, lower_inequality: functions of (x, y) whose values must be <= 0; tensors of any shape.
        upper_equality, lower_equality: functions of (x, y) whose values must be 0.
        x_bounds, y_bounds: a pair (lower, upper), each a number, None, or a structure like the level's variables.
        upper_data, lower_data: iterables of batches that can be iterated again and again, such as a DataLoader.
        outputs: a function of (x, y) or (x, y, batch) that gives the model's outputs; ``lower`` then gets them as
            third argument, before the batch. It makes Gauss-Newton products possible (``curvature="gauss-newton"``).
        name: what to call the problem.

    Raises:
        ModelError: starting points that are no tensors, dtypes that differ, or bounds that do not fit.
    """

    def __init__(
        self,
        upper: Function,
        lower: Function,
        x0: Any,
        y0: Any,
        *,
        upper_inequality: Function | None = None,
        upper_equality: Function | None = None,
        lower_inequality: Function | None = None,
        lower_equality: Function | None = None,
        x_bounds: tuple[Any, Any] | None = None,
        y_bounds: tuple[Any, Any] | None = None,
        upper_data: Iterable[Any] | None = None,
        lower_data: Iterable[Any] | None = None,
        outputs: Function | None = None,
        name: str = "problem",
    ) -> None:
        for label, function in (("upper", upper), ("lower", lower)):
            if not callable(function):
                raise ModelError(f"Expected {label} as a function of (x, y), got {type(function).__name__}.")
        self.upper = upper
        self.lower = lower
        self.upper_inequality = upper_inequality
        self.upper_equality = upper_equality
        self.lower_inequality = lower_inequality
        self.lower_equality = lower_equality
        self.upper_data = _repeatable(upper_data, "upper_data")
        self.lower_data = _repeatable(lower_data, "lower_data")
        self.outputs = outputs
        self.name = name
        self.x_layout = Layout(x0, "x")
        self.y_layout = Layout(y0, "y")
        # Copies: what the user does to the tensors or to the module afterwards does not move the start.
        self.x0 = self.x_layout.flatten(x0)
        self.y0 = self.y_layout.flatten(y0)
        self.x_bounds = _bounds(x_bounds, self.x_layout)
        self.y_bounds = _bounds(y_bounds, self.y_layout)
        self._sizes: Sizes | None = None

    def sizes(self) -> Sizes:
        """See `DifferentiableProblem.sizes`. Constraints are evaluated once at the start to count them."""
        if self._sizes is None:
            buffers = buffers_of(self.y_layout), buffers_of(self.x_layout)
            with torch.no_grad():
                x = self.x_layout.unflatten(self.x0, buffers[1])
                y = self.y_layout.unflatten(self.y0, buffers[0])
                counts = [
                    0 if f is None else int(torch.as_tensor(f(x, y)).numel())
                    for f in (
                        self.upper_inequality,
                        self.upper_equality,
                        self.lower_inequality,
                        self.lower_equality,
                    )
                ]
            self._sizes = Sizes(
                upper_variables=self.x_layout.size,
                lower_variables=self.y_layout.size,
                upper_rows=counts[0] + counts[1],
                lower_rows=counts[2] + counts[3],
                lower_bounds=bool(np.isfinite(self.y_bounds[0]).any() or np.isfinite(self.y_bounds[1]).any()),
                stochastic=self.upper_data is not None or self.lower_data is not None,
            )
        return self._sizes

    def point(self, x: torch.Tensor, y: torch.Tensor) -> tuple[Values, Values]:
        """Flat tensors as the dictionaries of a result."""
        return self.x_layout.values(x), self.y_layout.values(y)

    def entry(self, k: int, value: float) -> tuple[str, float]:
        """What logs and figures of a run call an entry of x, and the value in units that people know."""
        return self.x_layout.entry(k), value

    def progress(self, x: Values, y: Values) -> dict[str, float]:
        """Figures of a better point, while solving goes on: losses on other data, say. They decide nothing.

        Found in the events ``incumbent`` and in `Result.trace`. Called with the same as `details`.
        """
        return {}

    @property
    def lower_convex(self) -> bool:
        """Whether the lower level is convex in y whatever x is; False where that is not known.

        A promise of subclasses: where the gradient vanishes nothing is spent on looking for negative curvature. The
        check does not go by it.
        """
        return False

    def closed_form(self, x: Any) -> Any:
        """The follower's answer where a formula gives it, structured as ``y0``; None where there is none.

        Newton's method starts there, in place of the last answer, and has nothing left to do if the formula is right.
        Only for lower levels without constraints and bounds. The check does not go by it.
        """
        return None

    def load(self, result: Result) -> None:
        """Write a result's values back into the modules that were given as starting points, buffers included.

        Raises:
            ModelError: neither starting point is a module.
            UsageError: the result has other variables.
        """
        done = False
        for layout, values in ((self.x_layout, result.x), (self.y_layout, result.y)):
            if layout.module is None:
                continue
            done = True
            new = layout.split(layout.from_values(values))
            state = dict(layout.module.named_parameters()) | dict(layout.module.named_buffers())
            with torch.no_grad():
                for name, tensor in state.items():
                    if name in new:
                        tensor.copy_(new[name])
                    elif name in values:
                        tensor.copy_(torch.as_tensor(values[name]).to(tensor))
        if not done:
            raise ModelError("load() writes into modules, and neither x0 nor y0 was one: take result.x and result.y.")


def buffers_of(layout: Layout) -> dict[str, torch.Tensor]:
    """Copies of a module's buffers, and of the parameters that stay as they are; empty for plain structures."""
    if layout.module is None:
        return {}
    fixed = {name: p.detach() for name, p in layout.module.named_parameters() if not p.requires_grad}
    return {name: b.detach().clone() for name, b in layout.module.named_buffers()} | fixed


def _repeatable(data: Iterable[Any] | None, label: str) -> Iterable[Any] | None:
    if data is not None and (not hasattr(data, "__iter__") or iter(data) is data):
        raise ModelError(
            f"{label} cannot be iterated again and again: pass a DataLoader or a list of batches, not an iterator."
        )
    return data


def _bounds(bounds: tuple[Any, Any] | None, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    if bounds is None:
        bounds = (None, None)
    if not isinstance(bounds, tuple) or len(bounds) != 2:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ModelError(f"Expected {layout.label}_bounds as a pair (lower, upper), got {bounds!r}.")
    low, high = (_side(side, layout, fill) for side, fill in zip(bounds, (-np.inf, np.inf), strict=True))
    wrong = np.flatnonzero(~(low <= high))
    if wrong.size:
        k = int(wrong[0])
        raise ModelError(f"{layout.label}_bounds: {layout.locate(k)} has lower {low[k]} above upper {high[k]}.")
    return low, high


def _side(side: Any, layout: Layout, fill: float) -> np.ndarray:
    if side is None:
        return np.full(layout.size, fill)
    if isinstance(side, (int, float)):
        return np.full(layout.size, float(side))
    if isinstance(side, Mapping) or layout.module is None:
        return layout.read(side).detach().double().cpu().numpy().copy()
    raise ModelError(f"Expected each of {layout.label}_bounds as a number, None or a dictionary of tensors by name.")
