"""Lower levels solved by PyTorch's own optimisers: L-BFGS, and the first-order ones on minibatches."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import torch

from bilevel_core.errors import UsageError
from bilevel_core.lower.answer import answer
from bilevel_core.lower.base import HurriedError, LowerSettings, Response
from bilevel_core.oracles import norm
from bilevel_core.oracles.torch import TorchOracle

OPTIMISERS: dict[str, type[torch.optim.Optimizer]] = {
    name.lower(): kind
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind)
    and issubclass(kind, torch.optim.Optimizer)
    and name not in ("Optimizer", "LBFGS", "SparseAdam", "Muon")
}
"""The first-order optimisers of torch.optim by name in lower case. Muon wants matrices, and our vector is flat."""


def lbfgs(oracle: TorchOracle, x: np.ndarray, start: torch.Tensor, settings: LowerSettings) -> Response:
    """Minimise f(x, .) by limited-memory BFGS with a strong Wolfe search (`torch.optim.LBFGS`).

    When time is up, the answer is the best point that was evaluated.
    """
    y = start.detach().clone()
    best: tuple[torch.Tensor, float, torch.Tensor] | None = None

    def closure() -> float:
        nonlocal best
        if best is not None:
            settings.ask()
        value, gradient = oracle.lower_gradient(x, y)
        y.grad = gradient
        if best is None or value < best[1]:
            best = (y.detach().clone(), value, gradient)
        return value

    optimiser = torch.optim.LBFGS(
        [y],
        max_iter=settings.max_iterations,
        max_eval=4 * settings.max_iterations,
        # torch compares the largest entry; the Euclidean norm is at most this.
        tolerance_grad=settings.tolerance / math.sqrt(oracle.ny),
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    hurried = False
    try:
        with torch.no_grad():
            optimiser.step(torch.enable_grad()(closure))
    except HurriedError:
        hurried = True
    steps = int(optimiser.state[y].get("n_iter", 0))
    if hurried and best is not None:
        point, value, gradient = best
    else:
        point, (value, gradient) = y, oracle.lower_gradient(x, y)
    return answer(point, value, gradient, settings, steps, _stopped("L-BFGS", steps, gradient, settings))


def optimise(
    oracle: TorchOracle,
    x: np.ndarray,
    start: torch.Tensor,
    settings: LowerSettings,
    kind: type[torch.optim.Optimizer],
) -> Response:
    """Minimise f(x, .) by a first-order optimiser, on one minibatch a step where the problem has data.

    Without data the loop stops on the gradient norm; with data it takes all its steps, since a minibatch's gradient
    does not vanish at the minimum. The residual is that of the whole objective either way.
    """
    y = start.detach().clone()
    optimiser: Any = kind([y], **arguments(kind, settings))
    groups: list[dict[str, Any]] = optimiser.param_groups
    stochastic = oracle.problem.lower_data is not None
    steps = 0
    with batches_of(oracle) as batches:
        while steps < settings.max_iterations and not settings.hurry():
            if stochastic:
                oracle.terms.advance()
                _, y.grad = oracle.batch_gradient(x, y, next(batches))
            else:
                _, y.grad = oracle.lower_gradient(x, y)
                if norm(y.grad) <= settings.tolerance:
                    break
            for group in groups:
                group["lr"] = settings.learning_rate * factor(settings, steps)
            optimiser.step()
            steps += 1
    value, gradient = oracle.lower_gradient(x, y)
    return answer(y, value, gradient, settings, steps, _stopped(kind.__name__, steps, gradient, settings))


@contextlib.contextmanager
def batches_of(oracle: TorchOracle) -> Generator[Any]:
    """Minibatches of the lower level's data without end; nothing where there are no data."""
    if oracle.problem.lower_data is None:
        yield iter(())
        return
    with contextlib.closing(oracle.terms.batches()) as batches:
        yield batches


def factor(settings: LowerSettings, step: int) -> float:
    """What the learning rate is multiplied by at a step."""
    share = step / max(1, settings.max_iterations)
    schedules: dict[str, Callable[[float], float]] = {
        "constant": lambda _: 1.0,
        "cosine": lambda t: 0.5 * (1.0 + math.cos(math.pi * t)),
        "linear": lambda t: 1.0 - t,
    }
    if settings.schedule not in schedules:
        raise UsageError(f"There is no schedule {settings.schedule!r}. Known: {', '.join(schedules)}.")
    return schedules[settings.schedule](share)


def arguments(kind: type[torch.optim.Optimizer], settings: LowerSettings) -> dict[str, Any]:
    """What an optimiser is made with.

    Raises:
        UsageError: it has no momentum or weight decay, and one was asked for.
    """
    accepted = inspect.signature(kind).parameters
    arguments: dict[str, Any] = {"lr": settings.learning_rate}
    for name in ("momentum", "weight_decay"):
        value = getattr(settings, name)
        if name in accepted:
            arguments[name] = value
        elif value:
            raise UsageError(f"Optimiser {kind.__name__} of torch has no {name}: leave it out.")
    return arguments


def _stopped(kind: str, steps: int, gradient: torch.Tensor, settings: LowerSettings) -> str:
    return (
        f"{kind} stopped after {steps} steps with lower gradient norm {norm(gradient):.2g}; asked for "
        f"{settings.tolerance:.2g}."
    )
