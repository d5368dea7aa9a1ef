"""Ground truth for hypergradients: differences of the leader's objective with the lower level solved anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import bilevel_core as bl
from bilevel_core.lower import LowerSettings, Response, respond
from bilevel_core.oracles import make_oracle
from bilevel_core.oracles.torch import TorchOracle

TIGHT = LowerSettings(tolerance=1e-12)


def oracle_of(problem: Any, **how: Any) -> TorchOracle:
    found = make_oracle(problem, **how)
    assert isinstance(found, TorchOracle)
    return found


def answer(problem: Any, x: np.ndarray | None = None) -> tuple[np.ndarray, Response]:
    """Flat x (the problem's start by default) and the lower level's answer there."""
    oracle = oracle_of(problem)
    x = oracle.x_start if x is None else np.asarray(x, dtype=float)
    return x, respond(oracle, x, None, TIGHT)


def resolved(problem: Any) -> Callable[[np.ndarray], float]:
    """Phi(x) = F(x, y(x)) by solving the lower level."""
    oracle = oracle_of(problem)

    def phi(x: np.ndarray) -> float:
        return oracle.upper(x, respond(oracle, x, None, TIGHT).y)

    return phi


def differences(phi: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """Gradient by central differences of fourth order."""
    out = np.zeros(x.size)
    for k in range(x.size):
        e = np.zeros(x.size)
        e[k] = step * max(1.0, abs(float(x[k])))
        out[k] = (8.0 * (phi(x + e) - phi(x - e)) - (phi(x + 2 * e) - phi(x - 2 * e))) / (12.0 * e[k])
    return out


def hypergradient(problem: Any, mode: str = "cg", x: np.ndarray | None = None, **options: Any) -> Any:
    """`bl.hypergradient` at the lower level's answer, through values by name as a result has them."""
    x, response = answer(problem, x)
    x_values, y_values = oracle_of(problem).point(x, response.y)
    return bl.hypergradient(problem, x_values, y_values, mode, **options)


def flat(problem: Any, value: Any) -> np.ndarray:
    return problem.x_layout.read(value).double().numpy()


def close(found: np.ndarray, expected: np.ndarray, relative: float = 1e-6) -> None:
    scale = float(np.linalg.norm(expected))
    assert scale > 1e-3, "a vanishing gradient would test nothing"
    assert float(np.linalg.norm(found - expected)) <= relative * scale, f"{found} is not {expected}"
