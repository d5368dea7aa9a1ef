"""The oracle for `TorchProblem`: reverse-mode derivatives by PyTorch, never nested forward mode."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import torch

from bilevel_core.errors import ModelError, UsageError
from bilevel_core.oracles.base import NonFiniteError, Oracle, Rows, Vector, norm
from bilevel_core.oracles.torch_adjoint import TorchAdjointCurvature
from bilevel_core.oracles.torch_curvature import TorchCurvature, does_not_depend
from bilevel_core.oracles.torch_terms import Terms
from bilevel_core.problems.torch import TorchProblem
from bilevel_core.result import Values

MUST_DEPEND = (("lower", ("y",)), ("upper", ("x", "y")))
"""Levels and variables with gradients that would otherwise be taken for zero, and every point for stationary."""


class TorchOracle(Oracle):
    """Values and derivatives of a `TorchProblem`.

    Args:
        problem: the problem.
        seed: seeds what is random in the user's functions, and the order of minibatches.
        device: ``auto`` for where the starting points are, or a torch device; batches are moved there.
    """

    form = "differentiable"

    def __init__(self, problem: TorchProblem, *, seed: int = 0, device: str = "auto") -> None:
        super().__init__()
        self.problem = problem
        self.device = problem.y_layout.device if device == "auto" else _device(device)
        self.dtype = problem.y_layout.dtype
        self.nx, self.ny = problem.x_layout.size, problem.y_layout.size
        self.x_lower, self.x_upper = problem.x_bounds
        self.y_lower, self.y_upper = problem.y_bounds
        self.x_start = np.clip(problem.x0.double().cpu().numpy(), self.x_lower, self.x_upper)
        self.finite_differences = False
        self._lower_scale: float | None = None
        self.terms = Terms(problem, seed, self.device, self.note)
        sizes = problem.sizes()
        self._upper_rows, self._lower_rows = sizes.upper_rows > 0, sizes.lower_rows > 0

    @property
    def precision(self) -> float:
        """See `Oracle.precision`."""
        return float(torch.finfo(self.dtype).eps)

    @property
    def is_random(self) -> bool:
        """Whether a level draws from torch's random state, so that values and optima are those of one draw."""
        return any(self.terms.is_random(level) for level in ("upper", "lower"))

    @property
    def lower_scale(self) -> float:
        """Size of the lower gradient beside the starting point, at most 1: what tolerances on it are multiplied by, so
        that an objective in small units is solved as far as one in large units.
        """
        if self._lower_scale is None:
            before = self.counts.copy()
            start = self.y_start()
            try:
                size = norm(self.lower_gradient(self.x_start, start + self.displacement(start))[1])
            except NonFiniteError:
                size = 1.0
            self.counts.clear()
            self.counts.update(before)
            self._lower_scale = min(1.0, size) or 1.0
        return self._lower_scale

    def displacement(self, y: Vector) -> torch.Tensor:
        """A random step of y's own size, at least 1 an entry; always the same."""
        generator = torch.Generator().manual_seed(20_261)
        step = torch.randn(self.ny, generator=generator, dtype=torch.float64)
        return step.to(y) * max(1.0, norm(y) / math.sqrt(self.ny))

    # Vectors.

    def y_start(self) -> torch.Tensor:
        """See `Oracle.y_start`."""
        start = self.problem.y0.to(self.device)
        if self.has_lower_bounds:
            low, high = self.from_numpy(self.y_lower), self.from_numpy(self.y_upper)
            return torch.clamp(start, low, high)
        return start.clone()

    def zeros(self) -> torch.Tensor:
        """See `Oracle.zeros`."""
        return torch.zeros(self.ny, dtype=self.dtype, device=self.device)

    def to_numpy(self, y: Vector) -> np.ndarray:
        """See `Oracle.to_numpy`."""
        return y.detach().double().cpu().numpy().copy()

    def from_numpy(self, values: np.ndarray) -> torch.Tensor:
        """See `Oracle.from_numpy`."""
        return torch.as_tensor(values).to(dtype=self.dtype, device=self.device)

    def x_tensor(self, x: np.ndarray) -> torch.Tensor:
        """The upper variables as the user's functions get them, flat."""
        return torch.as_tensor(x).to(dtype=self.problem.x_layout.dtype, device=self.device).clone()

    # Objectives.

    def _value(self, level: str, x: np.ndarray, y: Vector) -> float:
        self.counts[f"{level}_values"] += 1
        x_flat = self.x_tensor(x)
        with torch.no_grad():
            value = float(sum(w * term(x_flat, y).double() for w, term in self.terms.of(level)))
        return self._finite_value(level, value)

    @staticmethod
    def _finite_value(level: str, value: float) -> float:
        if not np.isfinite(value):
            raise NonFiniteError(f"{level}(x, y)", f"its value is {value}")
        return value

    def upper(self, x: np.ndarray, y: Vector) -> float:
        """See `Oracle.upper`."""
        return self._value("upper", x, y)

    def lower(self, x: np.ndarray, y: Vector) -> float:
        """See `Oracle.lower`."""
        return self._value("lower", x, y)

    def _gradients(
        self, level: str, x: np.ndarray, y: Vector, by: tuple[str, ...], only: Any = None
    ) -> tuple[float, list[torch.Tensor]]:
        self.counts[f"{level}_gradients"] += 1
        point = {"x": self.x_tensor(x), "y": y.detach()}
        leaves = [point[v].requires_grad_(True) if v == "x" else point[v].clone().requires_grad_(True) for v in by]
        point.update(zip(by, leaves, strict=True))
        total, sums = 0.0, [torch.zeros_like(leaf) for leaf in leaves]
        connected = False
        for weight, term in self.terms.of(level, only):
            value = term(point["x"], point["y"])
            total += weight * float(value.detach())
            if value.requires_grad:
                parts: Any = torch.autograd.grad(value, leaves, allow_unused=True)
                connected = connected or any(part is not None for part in parts)
                sums = [s if part is None else s + weight * part for s, part in zip(sums, parts, strict=True)]
        self._finite_value(level, total)
        if not connected and (level, by) in MUST_DEPEND:
            raise ModelError(does_not_depend(level, by))
        for name, part in zip(by, sums, strict=True):
            self.check_finite(part, f"gradient of {level} by", name)
        return total, sums

    def check_finite(self, part: torch.Tensor, what: str, name: str) -> None:
        """Raise for a vector with a NaN or infinity, naming the leaf that it is in."""
        if bool(torch.isfinite(part).all()):
            return
        layout = self.problem.x_layout if name == "x" else self.problem.y_layout
        where = int(torch.nonzero(~torch.isfinite(part))[0])
        raise NonFiniteError(f"{what} {layout.locate(where)}")

    def upper_gradients(self, x: np.ndarray, y: Vector) -> tuple[float, np.ndarray, torch.Tensor]:
        """See `Oracle.upper_gradients`."""
        value, (by_x, by_y) = self._gradients("upper", x, y, ("x", "y"))
        return value, by_x.double().cpu().numpy(), by_y

    def lower_gradient(self, x: np.ndarray, y: Vector) -> tuple[float, torch.Tensor]:
        """See `Oracle.lower_gradient`."""
        value, (by_y,) = self._gradients("lower", x, y, ("y",))
        return value, by_y

    def batch_gradient(self, x: np.ndarray, y: Vector, batch: Any) -> tuple[float, torch.Tensor]:
        """The lower objective and its gradient by y on one batch alone."""
        value, (by_y,) = self._gradients("lower", x, y, ("y",), batch)
        return value, by_y

    def lower_gradient_x(self, x: np.ndarray, y: Vector) -> np.ndarray:
        """See `Oracle.lower_gradient_x`."""
        _, (by_x,) = self._gradients("lower", x, y, ("x",))
        return by_x.double().cpu().numpy()

    # Constraints.

    @property
    def has_upper_rows(self) -> bool:
        """See `Oracle.has_upper_rows`."""
        return self._upper_rows

    @property
    def has_lower_rows(self) -> bool:
        """See `Oracle.has_lower_rows`."""
        return self._lower_rows

    def upper_rows(self, x: np.ndarray, y: Vector, *, jacobian: bool = False) -> Rows:
        """See `Oracle.upper_rows`."""
        return self._rows("upper", x, y, jacobian)

    def lower_rows(self, x: np.ndarray, y: Vector, *, jacobian: bool = False) -> Rows:
        """See `Oracle.lower_rows`."""
        return self._rows("lower", x, y, jacobian)

    def _rows(self, level: str, x: np.ndarray, y: Vector, jacobian: bool) -> Rows:
        x_flat = self.x_tensor(x).requires_grad_(jacobian)
        y_flat = y.detach().clone().requires_grad_(jacobian)
        with contextlib.nullcontext() if jacobian else torch.no_grad():
            both = self.terms.row_values(level, x_flat, y_flat)
        arrays: list[np.ndarray] = []
        jacobians: list[np.ndarray | None] = []
        names: list[tuple[str, ...]] = []
        for kind, values in zip(("inequality", "equality"), both, strict=True):
            array = values.detach().double().cpu().numpy()
            names.append(tuple(f"{level}_{kind}[{k}]" for k in range(array.size)))
            if not np.isfinite(array).all():
                raise NonFiniteError(names[-1][int(np.flatnonzero(~np.isfinite(array))[0])])
            arrays.append(array)
            jacobians += self._jacobian(values, x_flat, y_flat) if jacobian else [None, None]
        return Rows(arrays[0], arrays[1], *jacobians, g_names=names[0], h_names=names[1])

    def _jacobian(self, values: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> list[np.ndarray | None]:
        by_x, by_y = np.zeros((values.numel(), self.nx)), np.zeros((values.numel(), self.ny))
        if values.requires_grad:
            for k in range(values.numel()):
                dx, dy = torch.autograd.grad(
                    values[k], (x, y), retain_graph=True, allow_unused=True, materialize_grads=True
                )
                by_x[k], by_y[k] = dx.double().cpu().numpy(), dy.double().cpu().numpy()
        return [by_x, by_y]

    # Second order.

    def curvature(
        self,
        x: np.ndarray,
        y: Vector,
        inequality: np.ndarray | None = None,
        equality: np.ndarray | None = None,
        *,
        gauss_newton: bool = False,
    ) -> TorchCurvature:
        """See `Oracle.curvature`.

        Args:
            x: upper variables.
            y: lower variables.
            inequality: multipliers of the lower inequality constraints.
            equality: multipliers of the lower equality constraints.
            gauss_newton: leave out the second derivatives of the model's outputs; needs ``outputs``.
        """
        return TorchCurvature(self, x, y, inequality, equality, gauss_newton=gauss_newton)

    def adjoint_curvature(self, x: np.ndarray, y: Vector, adjoint: Vector) -> TorchAdjointCurvature:
        """See `Oracle.adjoint_curvature`."""
        return TorchAdjointCurvature(self, x, y, adjoint)

    # In the user's terms.

    def point(self, x: np.ndarray, y: Vector) -> tuple[Values, Values]:
        """See `Oracle.point`. Buffers of modules stand among the values, so that a model can be rebuilt from them."""
        x_values, y_values = self.problem.point(self.x_tensor(x), y)
        with self.terms.refreshed(self.x_tensor(x), y):
            for values, buffers in ((x_values, self.terms.x_buffers), (y_values, self.terms.y_buffers)):
                values.update({k: b.double().cpu().numpy() for k, b in buffers.items()})
        return x_values, y_values

    def entry(self, k: int, value: float) -> tuple[str, float]:
        """See `Oracle.entry`."""
        return self.problem.entry(k, value)

    def progress(self, x: np.ndarray, y: Vector) -> dict[str, float]:
        """See `Oracle.progress`."""
        if type(self.problem).progress is TorchProblem.progress:
            return {}
        return dict(self.problem.progress(*self.point(x, y)))

    def objectives(self, x: np.ndarray, y: Vector) -> tuple[float, float | tuple[float, ...]]:
        """See `Oracle.objectives`."""
        with self.terms.refreshed(self.x_tensor(x), y):
            return self.upper(x, y), self.lower(x, y)

    def advance(self) -> None:
        """See `Oracle.advance`."""
        self.terms.advance()

    # What a checkpoint must keep.

    def memory(self) -> dict[str, Any]:
        """See `Oracle.memory`."""
        return {**self.terms.memory(), "lower_scale": self._lower_scale}

    def restore(self, memory: Any) -> None:
        """See `Oracle.restore`."""
        self.terms.restore(memory)
        self._lower_scale = memory["lower_scale"]


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"Device {name!r} cannot be used: {str(error).splitlines()[0]} Pass device='cpu' or leave it out."
        ) from error
    return device
