"""A point's certificate: which check a problem's form has, and what plugins' checks add."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from bilevel_core.plugins.registry import Registry, get_registry
from bilevel_core.problems.base import AlgebraicProblem, DifferentiableProblem, Problem
from bilevel_core.problems.nested import NestedProblem
from bilevel_core.result import Certificate, Claim, Result, Verdict
from bilevel_core.run import RunContext
from bilevel_core.verification import check
from bilevel_core.verification.nested import check_nested


def claimed_gap(result: Result) -> float:
    """How far from optimal a result's point may be by the bound that comes with it."""
    if result.bound is None or result.upper_objective is None or not math.isfinite(result.bound):
        return 0.0
    return abs(result.upper_objective - result.bound)


def certificate_of(
    problem: Problem,
    x: Mapping[str, Any],
    y: Mapping[str, Any],
    claim: Claim,
    context: RunContext | None,
    response: str,
    time_limit: float | None,
    gap: float = 0.0,
) -> Certificate:
    """The check for the problem's form, and the checks that plugins bring.

    Args:
        problem: the problem.
        x, y: the point, by name.
        claim: what a solver says of it.
        context: of the run that the check belongs to, which may spread it; None for none.
        response: the followers' choice among their optimal answers that was asked for.
        time_limit: seconds; None for no limit.
        gap: how far from optimal the claim allows the point to be.
    """
    if isinstance(problem, AlgebraicProblem):
        run = None if context is None else context.map
        point = problem.vector(x, y)
        certificate = check(problem, point, claim=claim, gap=gap, run=run, response=response, time_limit=time_limit)
    elif isinstance(problem, DifferentiableProblem):
        certificate = _differentiable_certificate(problem, x, y, time_limit)
    elif isinstance(problem, NestedProblem):
        certificate = check_nested(problem, x, y)
    else:
        return Certificate(Verdict.UNVERIFIABLE, reason=f"There is no check for {problem.form} problems.")
    return _with_more_checks(problem, x, y, certificate, get_registry())


def _differentiable_certificate(
    problem: Problem, x: Mapping[str, Any], y: Mapping[str, Any], time_limit: float | None
) -> Certificate:
    # Torch is imported only where a problem is made of it.
    from bilevel_core.problems.torch import TorchProblem
    from bilevel_core.verification.differentiable import LocalTolerances, check_differentiable

    if not isinstance(problem, TorchProblem):
        kind = type(problem).__name__
        return Certificate(Verdict.UNVERIFIABLE, reason=f"There is no check for problems of type {kind}.")
    tolerances = LocalTolerances.of(problem.y_layout.dtype)
    if time_limit is not None:
        tolerances = dataclasses.replace(tolerances, time_limit=min(tolerances.time_limit, time_limit))
    return check_differentiable(problem, x, y, tolerances)


def _with_more_checks(
    problem: Problem, x: Mapping[str, Any], y: Mapping[str, Any], certificate: Certificate, registry: Registry
) -> Certificate:
    """Checks that plugins bring: one that objects refutes; one that breaks is switched off and says nothing."""
    for name, spec in list(registry.checks.items()):
        try:
            objection = str(spec.load()(problem, x, y) or "")
        except Exception as error:  # noqa: BLE001 - a plugin's failure must cost only itself
            registry.manager.fail(registry.owners["checks", name], error, f"its check {name!r} failed")
            continue
        if objection and certificate.verdict is not Verdict.REFUTED:
            certificate = dataclasses.replace(certificate, verdict=Verdict.REFUTED, reason=f"{name}: {objection}")
    return certificate
