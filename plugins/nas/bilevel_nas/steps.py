"""One step of a supernet search: weights trained on batches, then the architecture parameters moved.

Hypergradients and the auxiliary program's direction come from `bilevel_core.hypergradients`; here is what a stochastic
search makes of them. All functions change the state they are given, which is a copy of the one before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevel_core.hypergradients import HypergradientSettings, OptimalitySystem, reduced_gradient
from bilevel_core.oracles import norm
from bilevel_core.solvers.iterative import State
from bilevel_nas import parallel
from bilevel_nas.oracle import MIXED_X, MIXED_Y, SupernetOracle, View
from bilevel_nas.problem import UNIT
from bilevel_nas.spaces import one_hot
from bilevel_nas.training import cosine

if TYPE_CHECKING:
    from bilevel_nas.solver import Supernet

SAMPLES = 4
"""Architectures that a controller draws for one step."""
BACKTRACKS = 4
CAP = 0.1
"""Longest move of the weights along the auxiliary direction, relative to their norm."""
WINDOW, LAG = 5, 4
"""Of the eigenvalue that stops a search: means of so many, compared so many looks apart (Zela et al. 2020)."""
ADAM = (0.5, 0.999)
ARCHITECTURE_DECAY = 1e-3
"""Adam's settings for architecture parameters are those of DARTS."""


def _floats() -> list[float]:
    return []


@dataclass
class SearchState(State):
    """Where a search stands.

    Attributes:
        x: architecture parameters.
        y: weights of the supernet.
        momentum: of the weights.
        first, second: Adam's moments of the architecture parameters.
        smooth: running mean of the auxiliary program's gradient.
        moves: steps of the architecture parameters so far.
        batches: batches of weights so far.
        passes: pass-equivalents so far.
        alive: choices that there still are.
        residuals: of the linear solves.
        negative: solves that met negative curvature.
        accepted: 1 for each line search that found descent along the joint direction, else 0.
        eigenvalues: dominant eigenvalue of the architecture Hessian, when it was looked at.
        past: architecture parameters at those times, the last few.
        ranking: order of the choices, and how many moves it has been the same.
        steady: that number.
        baseline: mean loss that a controller compares with.
        decay: weight decay of the supernet.
        ended: why the search is over; empty while it goes on.
    """

    x: np.ndarray = field(default_factory=lambda: np.zeros(0))
    y: Any = None
    momentum: Any = None
    first: np.ndarray = field(default_factory=lambda: np.zeros(0))
    second: np.ndarray = field(default_factory=lambda: np.zeros(0))
    smooth: np.ndarray | None = None
    moves: int = 0
    batches: int = 0
    passes: float = 0.0
    alive: tuple[tuple[int, ...], ...] = ()
    residuals: list[float] = field(default_factory=_floats)
    negative: int = 0
    accepted: list[float] = field(default_factory=_floats)
    eigenvalues: list[float] = field(default_factory=_floats)
    past: list[np.ndarray] = field(default_factory=list)
    ranking: tuple[int, ...] = ()
    steady: int = 0
    baseline: float = math.nan
    decay: float = 5e-4
    ended: str = ""

    @property
    def current_x(self) -> np.ndarray:
        """See `State.current_x`: there is no candidate before the end."""
        return self.x


def train_weights(solver: Supernet, oracle: SupernetOracle, state: SearchState, progress: float) -> None:
    """One step of SGD with momentum on one training batch."""
    batch = oracle.batch("lower", solver.batch, state.batches, parallel.rank())
    oracle.view = View(batch, oracle.probe.upper, seed=state.batches, progress=progress)
    with oracle.charged(len(batch[0])):
        _, gradient = oracle.lower_gradient(state.x, state.y)
    # The decay's part is left out of the clipping, as in DARTS.
    decay = oracle.weight_decay * state.y
    gradient = parallel.mean(gradient) - decay
    size = norm(gradient)
    gradient = gradient * min(1.0, solver.clip / size) if size > 0.0 else gradient
    state.momentum = solver.momentum * state.momentum + gradient + decay
    state.y = state.y - weight_rate(solver, progress) * state.momentum
    state.batches += 1


def weight_rate(solver: Supernet, progress: float) -> float:
    """The learning rate of the weights."""
    return cosine(progress, solver.weight_rate, 0.02 * solver.weight_rate)


def move_architecture(solver: Supernet, oracle: SupernetOracle, state: SearchState, progress: float) -> None:
    """One step of the architecture parameters."""
    hyper = oracle.parts.part("hyper")
    state.moves += 1
    if hyper.kind == "none":
        return
    if hyper.kind == "reinforce":
        _adam(solver, state, _controller(solver, oracle, state, progress))
        return
    sizes = (solver.second_order_batch, solver.validation_batch) if solver.implicit else (solver.batch, solver.batch)
    number = 1_000_000_000 + state.moves
    lower, upper = (
        oracle.batch(level, size, number, parallel.rank())
        for level, size in zip(("lower", "upper"), sizes, strict=True)
    )
    oracle.view = View(lower, upper, seed=number, progress=progress)
    size = len(lower[1])
    with oracle.charged(size, upper=len(upper[1]), gauss_newton=solver.gauss_newton):
        if hyper.kind == "aux":
            _auxiliary(solver, oracle, state, size)
            return
        response = oracle.response(state.y)
        found = reduced_gradient(oracle, state.x, response, settings(solver, oracle, progress))
    if solver.implicit:
        state.residuals.append(found.residual)
        state.negative += found.negative_curvature
    _adam(solver, state, parallel.mean_array(found.value))


def settings(solver: Supernet, oracle: SupernetOracle, progress: float) -> HypergradientSettings:
    """What the core is asked for."""
    hyper = oracle.parts.part("hyper")
    plain: dict[str, Any] = {"examine": False}
    if hyper.kind == "first":
        return HypergradientSettings("first-order", **plain)
    if hyper.kind == "fd":
        return HypergradientSettings("finite-difference", step=weight_rate(solver, progress), **plain)
    if hyper.kind == "unroll":
        return HypergradientSettings("unroll", steps=hyper.count, step=weight_rate(solver, progress), **plain)
    curved: dict[str, Any] = {"damping": solver.damping, "curvature": solver.core_curvature, **plain}
    if hyper.kind == "neumann":
        return HypergradientSettings("neumann", steps=hyper.count, step=solver.neumann_step, tolerance=1e-3, **curved)
    return HypergradientSettings("cg", max_iterations=hyper.count, tolerance=1e-3, **curved)


def _adam(solver: Supernet, state: SearchState, gradient: np.ndarray) -> None:
    g = gradient + ARCHITECTURE_DECAY * state.x
    state.first = ADAM[0] * state.first + (1.0 - ADAM[0]) * g
    state.second = ADAM[1] * state.second + (1.0 - ADAM[1]) * g * g
    k = state.moves
    step = (state.first / (1.0 - ADAM[0] ** k)) / (np.sqrt(state.second / (1.0 - ADAM[1] ** k)) + 1e-8)
    state.x = state.x - solver.rate * step


def _auxiliary(solver: Supernet, oracle: SupernetOracle, state: SearchState, batch: int) -> None:
    """The joint direction in x and y, with a line search on the validation batch.

    The weights are no minimum of the batch's loss, so that the direction keeps the follower as far from it as it is.
    The gradient is a running mean: one batch's is mostly noise.
    """
    x, y = state.x, state.y
    response = oracle.response(y)
    system = OptimalitySystem(oracle, x, response, settings(solver, oracle, 0.0))
    here, f_x, f_y = oracle.upper_gradients(x, y)
    adjoint = system.solve(f_y)
    gradient = parallel.mean_array(system.total(f_x, adjoint)) + ARCHITECTURE_DECAY * x
    state.smooth = gradient if state.smooth is None else 0.5 * (state.smooth + gradient)
    largest = float(np.abs(state.smooth).max())
    if largest == 0.0:
        return
    d_x = -state.smooth * (solver.radius / largest)
    move = system.follow(d_x)
    # The core counts both mixed products alike; this one takes two reverse passes.
    oracle.passes += (MIXED_Y - MIXED_X) * batch / UNIT * oracle.share
    d_y = parallel.mean(move.v)
    size, cap = norm(d_y), CAP * norm(y)
    d_y = d_y * (cap / size) if size > cap else d_y
    state.residuals += [adjoint.residual, move.residual]
    state.negative += adjoint.negative_curvature + move.negative_curvature
    here = parallel.mean_number(here)
    length = 1.0
    for _ in range(BACKTRACKS):
        if parallel.mean_number(oracle.upper(x + length * d_x, y + length * d_y)) < here:
            state.x, state.y = x + length * d_x, y + length * d_y
            state.accepted.append(1.0)
            return
        length *= 0.5
    # No descent along the joint direction on this batch: a short step of x alone, which keeps the search moving.
    state.x = x + 0.25 * d_x
    state.accepted.append(0.0)


def _controller(solver: Supernet, oracle: SupernetOracle, state: SearchState, progress: float) -> np.ndarray:
    """REINFORCE's estimate of the derivative of the expected validation loss, with a running mean as baseline."""
    total = np.zeros_like(state.x)
    losses: list[float] = []
    flat = oracle.x_tensor(state.x)
    ends = np.cumsum([0, *(len(d.choices) for d in oracle.decisions)])
    for k in range(SAMPLES):
        number = 2_000_000_000 + SAMPLES * state.moves + k
        batch = oracle.batch("upper", solver.batch, number)
        oracle.view = View(oracle.probe.lower, batch, seed=number, progress=progress)
        choices = oracle.choices(flat)
        with oracle.charged(len(batch[0])):
            loss = oracle.loss(state.y, choices, batch)
        losses.append(loss)
        baseline = loss if math.isnan(state.baseline) else state.baseline
        for n, (choice, p) in enumerate(zip(choices, oracle.probabilities(flat), strict=True)):
            total[ends[n] : ends[n + 1]] += (loss - baseline) * (choice.weights - p).double().cpu().numpy()
    mean = float(np.mean(losses))
    state.baseline = mean if math.isnan(state.baseline) else 0.9 * state.baseline + 0.1 * mean
    return total / SAMPLES


def dominant_eigenvalue(oracle: SupernetOracle, x: np.ndarray, y: torch.Tensor, batch: int, number: int) -> float:
    """The dominant eigenvalue of the validation loss's Hessian in the architecture parameters (Zela et al. 2020): three
    power iterations, products by differences of gradients.
    """
    oracle.view = View(oracle.probe.lower, oracle.batch("upper", batch, number), seed=number)
    v = np.random.default_rng(number).normal(size=len(x))
    value = 0.0
    with oracle.charged(batch):
        for _ in range(3):
            v = v / max(float(np.linalg.norm(v)), 1e-30)
            ahead, back = (oracle.upper_gradients(x + s * 0.05 * v, y)[1] for s in (1.0, -1.0))
            product = (ahead - back) / 0.1
            value, v = float(v @ product), product
    return value


def ranking(oracle: SupernetOracle, x: np.ndarray) -> tuple[int, ...]:
    """The order of the choices of all decisions, in a row."""
    probabilities = oracle.probabilities(oracle.x_tensor(x))
    return tuple(int(k) for p in probabilities for k in torch.argsort(p, descending=True, stable=True))


def prune(oracle: SupernetOracle, state: SearchState, progress: float, keep: int) -> None:
    """Take away the weakest choices: evenly over the search, down to ``keep`` of each decision."""
    alive: list[tuple[int, ...]] = []
    for p, d, left in zip(oracle.probabilities(oracle.x_tensor(state.x)), oracle.decisions, state.alive, strict=True):
        target = max(keep, math.ceil(len(d.choices) + (keep - len(d.choices)) * min(1.0, 1.5 * progress)))
        order = sorted(left, key=lambda k, p=p: float(p[k]), reverse=True)
        alive.append(tuple(sorted(order[: max(1, min(target, len(order)))])))
    state.alive = oracle.alive = tuple(alive)


def one_architecture_loss(oracle: SupernetOracle, y: torch.Tensor, architecture: tuple[int, ...], batch: Any) -> float:
    """Loss of one architecture with the supernet's weights."""
    flat = oracle.x_tensor(np.zeros(oracle.nx))
    return oracle.loss(y, one_hot(oracle.search_space, architecture, flat), batch)
