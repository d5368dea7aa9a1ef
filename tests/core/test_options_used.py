"""Options that would have no effect are refused by name, for each solver and choice."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import bilevel_core as bl
from bilevel_core.solvers.auxiliary.solver import Auxiliary
from bilevel_core.solvers.hypergradient.solver import HypergradientDescent
from bilevel_core.solvers.kkt.solver import KKT
from bilevel_core.solvers.penalty.solver import Penalty
from bilevel_core.solvers.trust_region.solver import TrustRegion
from bilevel_core.solvers.used_options import AUXILIARY, HYPERGRADIENT, Only, check
from bilevel_core.solvers.used_options import KKT as OF_KKT

from .models import bard_511

ALGEBRAIC, DIFFERENTIABLE = "algebraic", "differentiable"
VALUE = {"tolerance": 1e-3, "extrapolate": False, "lower_tolerance": 1e-3, "lower_iterations": 7}
LOWER = {"learning_rate": 0.5, "schedule": "cosine", "momentum": 0.5, "weight_decay": 0.1}
BILEVEL = {"upper_model": "linear", "complementarity": "bigm"}
BOUNDS = {"multiplier_bound": 3.0, "slack_bound": 3.0, "max_enlargements": 0}
REDUCED = {"quasi_newton": "sr1", "memory": 3, "hypergradient_tolerance": 1e-3}

Case = tuple[type[Any], tuple[Only, ...], dict[str, Any], str | None, dict[str, Any]]
"""A solver, what it declares, its choices, the form (None: not needed to decide), and options without effect."""

CASES: list[Case] = [
    (Penalty, Penalty.only, {"method": "duality-gap"}, None, VALUE),
    (Penalty, Penalty.only, {"method": "double"}, None, VALUE),
    (Penalty, Penalty.only, {}, ALGEBRAIC, VALUE),
    (Penalty, Penalty.only, {"method": "value-function"}, None, {"gap_tolerance": 1e-3}),
    (Penalty, Penalty.only, {}, DIFFERENTIABLE, {"gap_tolerance": 1e-3}),
    (TrustRegion, TrustRegion.only, {"model": "reduced"}, None, BILEVEL),
    (TrustRegion, TrustRegion.only, {}, DIFFERENTIABLE, BILEVEL),
    (TrustRegion, TrustRegion.only, {"model": "bilevel"}, None, REDUCED),
    (TrustRegion, TrustRegion.only, {}, ALGEBRAIC, {**REDUCED, "lower_method": "lbfgs"}),
    (HypergradientDescent, HYPERGRADIENT, {}, None, {**LOWER, "outer_rate": 0.5, "outer_momentum": 0.5}),
    (HypergradientDescent, HYPERGRADIENT, {"lower_method": "lbfgs"}, None, LOWER),
    (HypergradientDescent, HYPERGRADIENT, {"outer": "adam"}, None, {"memory": 3, "outer_momentum": 0.5}),
    (HypergradientDescent, HYPERGRADIENT, {"mode": "dense"}, None, {"hypergradient_steps": 3}),
    (HypergradientDescent, HYPERGRADIENT, {}, ALGEBRAIC, {"lower_method": "adam"}),
    (Auxiliary, AUXILIARY, {}, None, LOWER),
    (Auxiliary, AUXILIARY, {}, DIFFERENTIABLE, {"max_leaps": 2}),
    (KKT, OF_KKT, {}, None, {**BOUNDS, "starts": 3}),
    (KKT, OF_KKT, {"complementarity": "strong-duality", "modes": {"f": "sos1"}}, None, BOUNDS),
    (KKT, OF_KKT, {"complementarity": "relaxed"}, None, {**BOUNDS, "gap": 0.5}),
]

USED: list[Case] = [
    (Penalty, Penalty.only, {"method": "value-function"}, DIFFERENTIABLE, VALUE),
    (Penalty, Penalty.only, {}, DIFFERENTIABLE, VALUE),
    (Penalty, Penalty.only, {}, ALGEBRAIC, {"gap_tolerance": 1e-3}),
    (TrustRegion, TrustRegion.only, {}, ALGEBRAIC, BILEVEL),
    (TrustRegion, TrustRegion.only, {}, DIFFERENTIABLE, {**REDUCED, "lower_method": "lbfgs"}),
    (TrustRegion, TrustRegion.only, {"model": "reduced"}, ALGEBRAIC, REDUCED),
    (HypergradientDescent, HYPERGRADIENT, {"lower_method": "sgd"}, DIFFERENTIABLE, LOWER),
    (HypergradientDescent, HYPERGRADIENT, {"outer": "sgd"}, ALGEBRAIC, {"outer_rate": 0.5, "outer_momentum": 0.5}),
    (HypergradientDescent, HYPERGRADIENT, {"mode": "unroll"}, DIFFERENTIABLE, {"hypergradient_steps": 3}),
    (Auxiliary, AUXILIARY, {}, ALGEBRAIC, {"max_leaps": 2}),
    (KKT, OF_KKT, {"complementarity": "bigm"}, None, {**BOUNDS, "gap": 0.5}),
    (KKT, OF_KKT, {"modes": {"f": "bigm"}}, None, BOUNDS),
    (KKT, OF_KKT, {"complementarity": "penalised"}, None, {"starts": 3}),
]


def single(cases: list[Case]) -> list[Any]:
    """One case for each option."""
    return [
        pytest.param(kind, only, choices, form, name, value, id=f"{kind.__name__}-{choices}-{form}-{name}")
        for kind, only, choices, form, options in cases
        for name, value in options.items()
    ]


@pytest.mark.parametrize(("kind", "only", "choices", "form", "name", "value"), single(CASES))
def test_an_option_without_effect_is_refused_by_name(
    kind: type[Any], only: tuple[Only, ...], choices: dict[str, Any], form: str | None, name: str, value: Any
) -> None:
    with pytest.raises(bl.UsageError, match=rf"{name}.*(only (with|for)|belongs to)"):
        check(kind(**choices, **{name: value}), only, form)


@pytest.mark.parametrize(("kind", "only", "choices", "form", "name", "value"), single(USED))
def test_an_option_with_effect_is_taken(
    kind: type[Any], only: tuple[Only, ...], choices: dict[str, Any], form: str | None, name: str, value: Any
) -> None:
    check(kind(**choices, **{name: value}), only, form)


@pytest.mark.parametrize(("kind", "only", "choices", "form", "name", "value"), single(CASES))
def test_a_default_that_is_written_out_is_no_fault(
    kind: type[Any], only: tuple[Only, ...], choices: dict[str, Any], form: str | None, name: str, value: Any
) -> None:
    default = {f.name: f.default for f in dataclasses.fields(kind)}[name]
    check(kind(**{name: default}, **choices), only, form)


def test_what_the_options_say_is_checked_when_a_solver_is_made() -> None:
    with pytest.raises(bl.UsageError, match="complementarity"):
        TrustRegion(model="reduced", complementarity="bigm")
    with pytest.raises(bl.UsageError, match="gap_tolerance"):
        Penalty(method="value-function", gap_tolerance=1e-3)


@pytest.mark.parametrize(
    ("solver", "options", "name"),
    [("penalty", {"extrapolate": False}, "extrapolate"), ("trust-region", {"quasi_newton": "sr1"}, "quasi_newton")],
)
def test_what_the_form_says_is_checked_before_a_run(
    solver: str, options: dict[str, Any], name: str, tmp_path: Any
) -> None:
    with pytest.raises(bl.UsageError, match=name):
        bl.solve(bard_511(), solver, options, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_solver_may_be_run_without_being_chosen() -> None:
    """The check must not depend on the way that leads to the run."""
    with pytest.raises(bl.UsageError, match="extrapolate"):
        Penalty(extrapolate=False).run(bl.PyomoProblem(bard_511()), bl.RunContext())


@pytest.mark.parametrize("name", ["multiplier_bounds", "slack_bounds"])
def test_bounds_by_name_are_options_of_big_m(name: str) -> None:
    with pytest.raises(bl.UsageError, match=name):
        KKT(**{name: {"c": 1.0}})
    KKT(complementarity="bigm", **{name: {"c": 1.0}}).with_sets()
