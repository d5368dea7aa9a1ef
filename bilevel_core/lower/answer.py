"""The response of a method for unconstrained lower levels."""

from __future__ import annotations

import numpy as np
import torch

from bilevel_core.lower.base import LowerSettings, Response
from bilevel_core.oracles import norm


def answer(
    y: torch.Tensor, value: float, gradient: torch.Tensor, settings: LowerSettings, iterations: int, message: str
) -> Response:
    """The response at ``y``; the message is kept only where the gradient is above the tolerance."""
    residual = norm(gradient)
    converged = residual <= settings.tolerance
    return Response(
        y=y.detach(),
        value=value,
        inequality=np.zeros(0),
        equality=np.zeros(0),
        residual=residual,
        converged=converged,
        iterations=iterations,
        message="" if converged else message,
        details={"gradient": gradient},
    )
