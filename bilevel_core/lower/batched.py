"""Lower levels at many points as one tensor program: `torch.func.vmap` over the candidates, one optimiser for all.

First-order optimisers of torch.optim work entry by entry, so that a stack of vectors is optimised as if each were
alone; only the order of rounding differs. For unconstrained lower levels without randomness and buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from bilevel_core.errors import UsageError
from bilevel_core.lower.answer import answer
from bilevel_core.lower.base import LowerFailedError, LowerSettings, Response
from bilevel_core.lower.differentiable import attainable
from bilevel_core.lower.newton import UNBOUNDED
from bilevel_core.lower.optimiser import OPTIMISERS, arguments, batches_of, factor
from bilevel_core.oracles.base import NonFiniteError
from bilevel_core.oracles.torch import TorchOracle
from bilevel_core.result import Termination

JOINT = ("adafactor",)
"""Optimisers whose steps look at more than one entry: a stack would be another problem."""


def respond_many(
    oracle: TorchOracle, x: np.ndarray, starts: torch.Tensor, settings: LowerSettings
) -> list[Response | LowerFailedError | NonFiniteError]:
    """Solve the lower level at several points together.

    Args:
        oracle: the problem.
        x: the points, shape (b, nx).
        starts: where the lower level starts at each, shape (b, ny).
        settings: ``method`` is an optimiser of torch.optim; minibatches, where there are data, are the same for all.

    Returns:
        For each point what `respond` would return, or raise, at it.

    Raises:
        UsageError: another method, or a lower level with constraints, bounds, randomness or buffers.
    """
    refuse(oracle, settings)
    oracle.counts["lower_solves"] += len(x)
    scale = oracle.lower_scale
    settings = replace(settings, tolerance=max(settings.tolerance, attainable(oracle)) * scale)
    points = torch.stack([oracle.x_tensor(v) for v in x])
    y, steps = _optimise(oracle, points, starts.detach().clone(), settings)
    value, gradient = _whole(oracle, points, y)
    found: list[Response | LowerFailedError | NonFiniteError] = []
    for k in range(len(x)):
        if not (torch.isfinite(value[k]) and torch.isfinite(gradient[k]).all()):
            found.append(NonFiniteError("lower(x, y)", f"its value is {float(value[k])}"))
        elif float(value[k]) < UNBOUNDED:
            text = f"The lower objective falls to {float(value[k]):.3g} at this x: it seems to have no minimum."
            found.append(LowerFailedError(text, Termination.LOWER_UNBOUNDED))
        else:
            message = f"{settings.method} stopped after {int(steps[k])} steps."
            found.append(answer(y[k], float(value[k]), gradient[k], settings, int(steps[k]), message))
    return found


def upper_many(oracle: TorchOracle, x: np.ndarray, y: Sequence[torch.Tensor]) -> list[float]:
    """F at several (x, y)."""
    oracle.counts["upper_values"] += len(x)
    points = torch.stack([oracle.x_tensor(v) for v in x])
    with torch.no_grad():
        stacked = torch.stack(list(y))
        parts = [w * torch.func.vmap(term)(points, stacked).double() for w, term in oracle.terms.of("upper")]
    return [float(v) for v in sum(parts[1:], parts[0])]


def refuse(oracle: TorchOracle, settings: LowerSettings) -> None:
    """Refuse what a stack cannot be solved for.

    Raises:
        UsageError: see `respond_many`.
    """
    if settings.method not in OPTIMISERS or settings.method in JOINT:
        known = ", ".join(sorted(set(OPTIMISERS) - set(JOINT)))
        raise UsageError(
            f"Lower levels are solved together by an optimiser that works entry by entry, and lower_method is "
            f"{settings.method!r}. Take one of {known}, or batch=1."
        )
    if oracle.lower_constrained:
        raise UsageError("Lower levels with constraints or bounds are not solved together: leave out batch.")
    if oracle.is_random or oracle.terms.x_buffers or oracle.terms.y_buffers:
        raise UsageError("Lower levels with randomness or buffers are not solved together: leave out batch.")


def _optimise(
    oracle: TorchOracle, x: torch.Tensor, y: torch.Tensor, settings: LowerSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """The optimiser's loop. Returns the points, shape (b, ny), and how many steps each took."""
    optimiser: Any = OPTIMISERS[settings.method]([y], **arguments(OPTIMISERS[settings.method], settings))
    groups: list[dict[str, Any]] = optimiser.param_groups
    stochastic = oracle.problem.lower_data is not None
    ended = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    final, steps = y.clone(), torch.full((len(y),), settings.max_iterations)
    with batches_of(oracle) as batches:
        for step in range(settings.max_iterations):
            if settings.hurry():
                break
            y.grad = _gradient(oracle, x, y, next(batches)) if stochastic else _whole(oracle, x, y)[1]
            if not stochastic:
                now = ~ended & (y.grad.norm(dim=1) <= settings.tolerance)
                final[now], steps[now.cpu()] = y[now].clone(), step
                ended |= now
                if bool(ended.all()):
                    break
            for group in groups:
                group["lr"] = settings.learning_rate * factor(settings, step)
            optimiser.step()
    final[~ended] = y[~ended]
    return final.detach(), steps


def _gradient(oracle: TorchOracle, x: torch.Tensor, y: torch.Tensor, batch: Any) -> torch.Tensor:
    """The gradients by y on one batch, shape (b, ny)."""
    oracle.counts["lower_gradients"] += len(y)
    ((_, term),) = oracle.terms.of("lower", batch)
    return torch.func.vmap(torch.func.grad(term, argnums=1))(x, y.detach()).detach()


def _whole(oracle: TorchOracle, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole objective, shape (b,), and its gradients, shape (b, ny)."""
    oracle.counts["lower_gradients"] += len(y)
    value, gradient = torch.zeros(len(y), dtype=torch.float64, device=y.device), torch.zeros_like(y)
    for weight, term in oracle.terms.of("lower"):
        slope, part = torch.func.vmap(torch.func.grad_and_value(term, argnums=1))(x, y.detach())
        value, gradient = value + weight * part.detach().double(), gradient + weight * slope.detach()
    return value, gradient
