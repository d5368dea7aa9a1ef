"""Products with second derivatives of a torch lower level, by reverse mode over reverse mode.

With one term (no minibatches) the graph of the gradient is kept, and each product is one backward pass through it.
With many, it is built anew for each product, so that memory does not grow with the data.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevel_core.errors import ModelError, UsageError
from bilevel_core.oracles.base import Curvature

if TYPE_CHECKING:
    from bilevel_core.oracles.torch import TorchOracle

Term = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class TorchCurvature(Curvature):
    """See `Curvature`. Also has ``value`` and ``gradient`` (by y) of the Lagrangian at the point."""

    def __init__(
        self,
        oracle: TorchOracle,
        x: np.ndarray,
        y: torch.Tensor,
        inequality: np.ndarray | None,
        equality: np.ndarray | None,
        *,
        gauss_newton: bool,
    ) -> None:
        if gauss_newton and oracle.problem.outputs is None:
            raise UsageError(
                "Gauss-Newton products need the model's outputs apart from the loss: give TorchProblem outputs=..., or "
                "use curvature='hessian'."
            )
        self.oracle = oracle
        self.gauss_newton = gauss_newton
        # Copies: whoever writes into the point's storage later does not change the products.
        self._x_flat = oracle.x_tensor(x).requires_grad_(True)
        self._y_flat = y.detach().clone().requires_grad_(True)
        self._multipliers = (inequality, equality)
        self._kept: torch.Tensor | None = None
        self._linear: Any = None
        self._suspect = False
        self._many = oracle.problem.lower_data is not None
        self.value, self.gradient = self._first()

    def _terms(self) -> Iterable[tuple[float, Term]]:
        yield from self.oracle.terms.of("lower")
        yield from self._constraint_terms()

    def _constraint_terms(self) -> Iterable[tuple[float, Term]]:
        if self.oracle.has_lower_rows and any(m is not None and np.any(m) for m in self._multipliers):
            yield 1.0, self.oracle.terms.guarded(self._constraint_term, "lower")

    def _constraint_term(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), dtype=y.dtype, device=y.device)
        for values, m in zip(self.oracle.terms.row_values("lower", x, y), self._multipliers, strict=True):
            if m is not None and values.numel():
                total = total + (torch.as_tensor(m).to(values) * values).sum()
        return total

    def _gradient_of(self, term: Term) -> tuple[torch.Tensor, torch.Tensor | None]:
        """A term and its gradient by y, with a graph; None where it does not depend on y."""
        value = term(self._x_flat, self._y_flat)
        if not value.requires_grad:
            return value, None
        (gradient,) = torch.autograd.grad(value, (self._y_flat,), create_graph=True, allow_unused=True)
        return value, gradient

    def _first(self) -> tuple[float, torch.Tensor]:
        self.oracle.counts["lower_gradients"] += 1
        total, gradient = 0.0, torch.zeros_like(self._y_flat)
        connected = False
        for weight, term in self._terms():
            value, part = self._gradient_of(term)
            self._suspect = self._suspect or _has_custom_functions(value)
            total += weight * float(value.detach())
            if part is not None:
                connected = True
                gradient = gradient + weight * part
            if self._many:
                gradient = gradient.detach()
        if not connected:
            raise ModelError(does_not_depend("lower", ("y",)))
        if not self._many:
            self._kept = gradient
        self.oracle.check_finite(gradient.detach(), "gradient of lower by", "y")
        return total, gradient.detach()

    # Products.

    def product(self, v: torch.Tensor) -> torch.Tensor:
        """See `Curvature.product`."""
        self.oracle.counts["hessian_products"] += 1
        self._examine()
        if self.oracle.finite_differences:
            out = self._difference_y(v)
        elif self.gauss_newton:
            out = torch.zeros_like(v)
            with self._falling_back():
                out = self._gauss_newton(v)
            if self.oracle.finite_differences:
                out = self._difference_y(v)
        else:
            out = self._reverse(v, self._y_flat)
        self.oracle.check_finite(out, "Hessian-vector product of lower at", "y")
        return out

    def mixed_x(self, q: torch.Tensor) -> np.ndarray:
        """See `Curvature.mixed_x`."""
        self.oracle.counts["mixed_products"] += 1
        self._examine()
        out = self._difference_mixed(q) if self.oracle.finite_differences else self._reverse(q, self._x_flat)
        self.oracle.check_finite(out, "mixed second derivatives of lower at", "x")
        return out.double().cpu().numpy()

    def mixed_y(self, d: np.ndarray) -> torch.Tensor:
        """See `Curvature.mixed_y`."""
        self.oracle.counts["mixed_products"] += 1
        self._examine()
        along = torch.as_tensor(d).to(self._x_flat)
        out = torch.zeros_like(self._y_flat)
        if not self.oracle.finite_differences:
            with self._falling_back():
                for weight, gradient in self._gradients():
                    out = out + weight * _forward_by_reverse(gradient, self._x_flat, along)
        if self.oracle.finite_differences:
            out = self._difference(lambda x: self._plain_gradient(x, self._y_flat), self._x_flat, along)
        self.oracle.check_finite(out, "mixed second derivatives of lower at", "y")
        return out.detach()

    def dense(self) -> np.ndarray:
        """See `Curvature.dense`."""
        rows = [self.product(e) for e in torch.eye(self.oracle.ny, dtype=self.oracle.dtype, device=self.oracle.device)]
        matrix = torch.stack(rows).double().cpu().numpy()
        return 0.5 * (matrix + matrix.T)

    def dense_mixed(self) -> np.ndarray:
        """See `Curvature.dense_mixed`."""
        if self.oracle.nx <= self.oracle.ny:
            return np.stack([self.oracle.to_numpy(self.mixed_y(e)) for e in np.eye(self.oracle.nx)], axis=1)
        eye = torch.eye(self.oracle.ny, dtype=self.oracle.dtype, device=self.oracle.device)
        return np.stack([self.mixed_x(e) for e in eye], axis=0)

    def _gradients(self) -> Iterable[tuple[float, torch.Tensor]]:
        """The gradient by y with its graph, in as many weighted parts as there are terms."""
        if self._kept is not None:
            yield 1.0, self._kept
        else:
            for weight, term in self._terms():
                part = self._gradient_of(term)[1]
                if part is not None:
                    yield weight, part

    def _reverse(self, v: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
        """The derivative of ``gradient . v``. Layers without a second derivative are found out here."""
        out = torch.zeros_like(by)
        with self._falling_back():
            for weight, gradient in self._gradients():
                if gradient.requires_grad:
                    (part,) = _grad(gradient, (by,), v.detach(), retain_graph=self._kept is not None)
                    out = out + weight * part
        if self.oracle.finite_differences:
            return self._difference_y(v) if by is self._y_flat else self._difference_mixed(v)
        return out.detach()

    @contextlib.contextmanager
    def _falling_back(self) -> Generator[None]:
        """Go over to finite differences where autograd refuses a second derivative."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._fall_back(str(error).splitlines()[0])

    def _examine(self) -> None:
        """Compare both second derivatives once with differences, along a random direction, where a function of the
        user's own takes part: a backward written without a graph gives no error, and its part is simply missing.
        """
        if not self._suspect or self.oracle.finite_differences:
            return
        self._suspect = False
        random = torch.Generator().manual_seed(0)
        v = torch.randn(self.oracle.ny, generator=random, dtype=torch.float64).to(self._y_flat)
        for by, difference in ((self._y_flat, self._difference_y), (self._x_flat, self._difference_mixed)):
            found = self._reverse(v, by)
            if self.oracle.finite_differences:
                return
            expected = difference(v)
            size = float(torch.linalg.vector_norm(expected)) + float(torch.linalg.vector_norm(found))
            scale = float(torch.linalg.vector_norm(self.gradient)) + abs(self.value)
            error = torch.finfo(expected.dtype).eps ** (2 / 3) * max(1.0, scale) * math.sqrt(self.oracle.ny)
            if float(torch.linalg.vector_norm(expected - found)) > 1e-3 * size + 1e3 * error:
                self._fall_back("the gradient of a custom function carries no graph")
                return

    def _fall_back(self, reason: str) -> None:
        self.oracle.finite_differences = True
        self.oracle.note(
            f"A layer of the lower level has no second derivative ({reason}): Hessian products are finite differences "
            "of gradients, good to about half the digits."
        )

    def _gauss_newton(self, v: torch.Tensor) -> torch.Tensor:
        """J' l_zz J v and what the loss itself holds of y (a regulariser), without second derivatives of outputs z.

        The Hessian of l(x, y, z(y0) + J (y - y0)) at y0 (Schraudolph 2002), and the whole one of the constraints times
        their multipliers.
        """
        out = torch.zeros_like(self._y_flat)
        for weight, z, along_y, loss in self._outputs():
            jv = along_y(v)
            y_leaf = self._y_flat.detach().clone().requires_grad_(True)
            z_leaf = z.detach().clone().requires_grad_(True)
            value = loss(self._x_flat, y_leaf, z_leaf)
            by_y, by_z = _grad(value, (y_leaf, z_leaf), create_graph=True)
            along = (by_y * v).sum() + (by_z.reshape(-1) * jv.detach()).sum()
            if not along.requires_grad:
                continue
            a, b = _grad(along, (y_leaf, z_leaf))
            (back,) = _grad(z, (self._y_flat,), b, retain_graph=True)
            out = out + weight * (a + back)
        for weight, term in self._constraint_terms():
            part = self._gradient_of(term)[1]
            if part is not None and part.requires_grad:
                out = out + weight * _grad(part, (self._y_flat,), v.detach())[0]
        return out.detach()

    def _outputs(self) -> Iterable[tuple[float, torch.Tensor, Callable[[torch.Tensor], torch.Tensor], Any]]:
        """(weight, outputs, their derivative along a direction of y, loss) of each term; kept where there is one."""
        if self._linear is not None:
            yield self._linear
            return
        for weight, outputs, loss in self.oracle_parts():
            z = outputs(self._x_flat, self._y_flat)
            term = weight, z, _derivative(z.reshape(-1), self._y_flat), loss
            if not self._many:
                self._linear = term
            yield term

    def oracle_parts(self) -> Iterable[tuple[float, Any, Any]]:
        """(weight, outputs, loss) of each term of the lower objective, as functions of flat tensors."""
        problem, oracle = self.oracle.problem, self.oracle
        made = problem.outputs
        assert made is not None
        for weight, batch in oracle.terms.weighted_batches():

            def outputs(x: torch.Tensor, y: torch.Tensor, batch: tuple[Any, ...] = batch) -> torch.Tensor:
                return made(*oracle.terms.trees(x, y), *batch)

            def loss(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, batch: tuple[Any, ...] = batch) -> torch.Tensor:
                return problem.lower(*oracle.terms.trees(x, y), z, *batch)

            yield weight, oracle.terms.guarded(outputs, "lower"), loss

    # Finite differences of gradients.

    def _plain_gradient(self, x: torch.Tensor, y: torch.Tensor, by: str = "y") -> torch.Tensor:
        self.oracle.counts["lower_gradients"] += 1
        point = {"x": x.detach().clone(), "y": y.detach().clone()}
        leaf = point[by].requires_grad_(True)
        total = torch.zeros_like(leaf)
        for weight, term in self._terms():
            value = term(point["x"], point["y"])
            if value.requires_grad:
                (part,) = _grad(value, (leaf,))
                total = total + weight * part
        return total

    def _difference_y(self, v: torch.Tensor) -> torch.Tensor:
        return self._difference(lambda y: self._plain_gradient(self._x_flat, y), self._y_flat, v)

    def _difference_mixed(self, q: torch.Tensor) -> torch.Tensor:
        return self._difference(lambda y: self._plain_gradient(self._x_flat, y, "x"), self._y_flat, q)

    @staticmethod
    def _difference(
        gradient: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor, along: torch.Tensor
    ) -> torch.Tensor:
        """Central difference with the step that balances rounding and curvature."""
        size = float(torch.linalg.vector_norm(along))
        if size == 0.0:
            return torch.zeros_like(gradient(at))
        scale = 1.0 + float(torch.linalg.vector_norm(at.detach()))
        step = torch.finfo(at.dtype).eps ** (1 / 3) * scale / size
        return (gradient(at.detach() + step * along) - gradient(at.detach() - step * along)) / (2 * step)


def does_not_depend(level: str, by: tuple[str, ...]) -> str:
    """What to say where autograd finds no way from a level's value to its variables."""
    return (
        f"{level}(x, y) does not depend on {' or '.join(by)}: autograd finds no way from its value back. Compute it "
        "from them by torch operations; detach(), item(), torch.no_grad() and NumPy cut the way."
    )


def _has_custom_functions(value: torch.Tensor) -> bool:
    """Whether a `torch.autograd.Function` written in Python stands in a tensor's graph."""
    seen: set[Any] = set()
    waiting: list[Any] = [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if hasattr(type(node), "_forward_cls"):
            return True
        seen.add(node)
        waiting.extend(following for following, _ in node.next_functions)
    return False


def _derivative(outputs: torch.Tensor, by: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The derivative of ``outputs`` along directions, by two reverse passes of which the first is done once."""
    if not outputs.requires_grad:
        return lambda along: torch.zeros_like(outputs)
    dummy = torch.zeros_like(outputs, requires_grad=True)
    (back,) = _grad(outputs, (by,), dummy, create_graph=True, retain_graph=True)
    if not back.requires_grad:
        return lambda along: torch.zeros_like(outputs)
    return lambda along: _grad(back, (dummy,), along, retain_graph=True)[0]


def _forward_by_reverse(outputs: torch.Tensor, by: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    """The derivative of ``outputs`` along a direction, by two reverse passes: forward mode is wrong in some layers."""
    return _derivative(outputs, by)(along)


def _grad(
    outputs: torch.Tensor, by: tuple[torch.Tensor, ...], weights: torch.Tensor | None = None, **how: bool
) -> tuple[torch.Tensor, ...]:
    """`torch.autograd.grad` with zeros for what the outputs do not depend on."""
    if weights is not None and not weights.requires_grad:
        # The same numbers. Given weights make torch import its symbolic shapes, and SymPy: most of a second.
        outputs, weights = (outputs * weights).sum(), None
    return torch.autograd.grad(outputs, by, weights, allow_unused=True, materialize_grads=True, **how)
