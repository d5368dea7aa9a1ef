"""`bl.hypergradient`: the derivative in the user's own terms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.hypergradients.active import distances_scale
from bilevel_core.hypergradients.base import Hypergradient, HypergradientSettings
from bilevel_core.hypergradients.reduced import reduced_gradient
from bilevel_core.lower import Response
from bilevel_core.lower.base import own_bounds
from bilevel_core.lower.multipliers import ACTIVE, fit
from bilevel_core.oracles import Oracle, make_oracle, norm
from bilevel_core.problems.base import AlgebraicProblem, Problem, as_problem
from bilevel_core.result import Values
from bilevel_core.run.options import read


def hypergradient(problem: Any, x: Any, y: Any, mode: str = "cg", **options: Any) -> Hypergradient:
    """The derivative of upper(x, y*(x)) by x, at an (approximate) answer y of the lower level.

    The point is not improved: when y is far from stationary for the lower level the message says so, since then the
    value may even have the wrong sign.

    Args:
        problem: as for `solve`.
        x: the leader's variables, structured as in the problem (a tensor, a dictionary, ...), or arrays by name.
        y: the follower's variables, likewise.
        mode: ``cg`` (implicit, by conjugate gradients), ``minres``, ``neumann``, ``nystrom``, ``fixed-point``,
            ``dense``, ``unroll``, ``finite-difference`` or ``first-order``.
        options: further fields of `HypergradientSettings`: ``tolerance``, ``max_iterations``, ``steps``, ...

    Returns:
        ``.value`` has the structure of x (arrays by name for algebraic problems); ``.residual`` is the linear solve's,
        ``.counts`` the work done. All in the sense of the user's own upper objective, maximised or not.

    Raises:
        UsageError: an unknown mode or option, an option that the mode does not use, a mode that takes no lower
            constraints, or values that do not fit.
        NonFiniteError: a value or derivative is NaN or infinite; the message names the term.
    """
    problem = as_problem(problem)
    settings = HypergradientSettings(
        **read(HypergradientSettings, {"mode": mode, **options}, kind="option", owner="hypergradient")
    )
    settings.refuse_unused()
    oracle = make_oracle(problem)
    flat_x, flat_y = _flat(problem, oracle, x, y)
    found = reduced_gradient(oracle, flat_x, response_at(oracle, flat_x, flat_y), settings)
    message = " ".join([found.message, *oracle.notes]).strip()
    # Solvers minimise; the user asked for the derivative of the objective as written.
    maximise = isinstance(problem, AlgebraicProblem) and problem.program().leader.maximise
    if maximise:
        found = replace(
            found,
            value=-found.value,
            upper=-found.upper,
            bias=-found.bias,
            adjoint=None if found.adjoint is None else -found.adjoint,
        )
    return replace(found, value=_structured(problem, found.value), message=message)


def response_at(oracle: Oracle, x: np.ndarray, y: Any) -> Response:
    """A given point as the lower level's answer, with the multipliers that fit it best."""
    value, gradient = oracle.lower_gradient(x, y)
    if not oracle.lower_constrained:
        empty = np.zeros(0)
        return Response(y, value, empty, empty, residual=norm(gradient), details={"gradient": gradient})
    point, slope = oracle.to_numpy(y), oracle.to_numpy(gradient)
    rows = oracle.lower_rows(x, y, jacobian=True)
    assert rows.g_y is not None
    assert rows.h_y is not None
    low, high = own_bounds(oracle)
    room = ACTIVE * np.maximum(1.0, np.abs(point))
    found = fit(
        slope, rows, rows.g >= -ACTIVE * distances_scale(rows.g_y, point), point - low <= room, high - point <= room
    )
    rest = slope + rows.g_y.T @ found.inequality + rows.h_y.T @ found.equality - found.at_lower + found.at_upper
    return Response(
        y,
        value,
        found.inequality,
        found.equality,
        found.at_lower,
        found.at_upper,
        residual=found.residual,
        details={"gradient": oracle.from_numpy(rest)},
    )


def _flat(problem: Problem, oracle: Oracle, x: Any, y: Any) -> tuple[np.ndarray, Any]:
    if isinstance(problem, AlgebraicProblem):
        values = problem.vector(x, y)
        program = problem.program()
        return values[list(program.leader.columns)], values[list(program.lower_columns)]
    from bilevel_core.problems.torch import TorchProblem

    if not isinstance(problem, TorchProblem):
        raise UsageError(f"There is no hypergradient for {problem.form} problems of type {type(problem).__name__}.")
    from bilevel_core.oracles.torch import TorchOracle

    assert isinstance(oracle, TorchOracle)
    oracle.terms.take_buffers(x, y)
    return problem.x_layout.read(x).double().cpu().numpy(), problem.y_layout.read(y).to(oracle.device)


def _structured(problem: Problem, value: np.ndarray) -> Any:
    if isinstance(problem, AlgebraicProblem):
        columns = problem.program().leader.columns
        place = {c: k for k, c in enumerate(columns)}
        return Values(
            {
                g.name: np.array([value[place[c]] for c in g.columns]).reshape(g.shape)
                for g in problem.groups()[0]
                if not g.hidden
            }
        )
    import torch

    from bilevel_core.problems.torch import TorchProblem

    assert isinstance(problem, TorchProblem)
    layout = problem.x_layout
    flat = torch.as_tensor(value).to(dtype=layout.dtype, device=layout.device)
    return layout.split(flat) if layout.module is not None else layout.unflatten(flat)
