"""Options that have an effect only with some choices of other options, or only for some problems.

Each solver declares them in its ``only``. One that is given another value than its default where it has no effect is an
error: whoever sets it expects it to do something.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bilevel_core.errors import UsageError


@dataclass(frozen=True)
class Only:
    """Options that are used in some cases only.

    Attributes:
        names: the options.
        where: what the case is, to follow "it is used only": ``with model=bilevel``.
        used: says from the solver and the form of the problem (None where that is not known yet) whether they are
            used; None where that depends on the form.
    """

    names: tuple[str, ...]
    where: str
    used: Callable[[Any, str | None], bool | None]


def with_choice(option: str, choices: Sequence[str], *names: str) -> Only:
    """Options that are used only where another option has one of these values."""

    def used(solver: Any, form: str | None) -> bool:
        return getattr(solver, option) in choices

    return Only(names, "with " + " or ".join(f"{option}={c}" for c in choices), used)


def for_form(form: str, *names: str) -> Only:
    """Options that are used only for problems of one form."""
    return for_forms((form,), *names)


def for_forms(forms: Sequence[str], *names: str) -> Only:
    """Options that are used only for problems of some forms."""

    def used(solver: Any, actual: str | None) -> bool | None:
        return None if actual is None else actual in forms

    return Only(names, f"for {' or '.join(forms)} problems", used)


def check(solver: Any, only: Sequence[Only], form: str | None = None) -> None:
    """Refuse options that were given and would have no effect.

    Args:
        solver: a dataclass of options.
        only: what it declares.
        form: of the problem; None while it is not known, when only what the options say by themselves is checked.

    Raises:
        UsageError: an option has another value than its default and no effect.
    """
    defaults = {
        f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        for f in dataclasses.fields(solver)
    }
    for entry in only:
        if entry.used(solver, form) is not False:
            continue
        for name in entry.names:
            value = getattr(solver, name)
            if value != defaults[name]:
                raise UsageError(
                    f"Option {name} = {value!r} would have no effect here: it is used only {entry.where}. Leave {name} "
                    "out, or change that choice."
                )


def _by_optimiser(solver: Any, form: str | None) -> bool:
    return solver.lower_method not in ("auto", "lbfgs", "newton-cg")


DESCENT = (
    Only(
        ("learning_rate", "schedule", "momentum", "weight_decay"),
        "with an optimiser such as adam or sgd as lower_method",
        _by_optimiser,
    ),
    for_form("differentiable", "lower_method"),
)
"""What the solvers that descend along hypergradients have in common."""

HYPERGRADIENT = (
    *DESCENT,
    with_choice("outer", ("adam", "sgd"), "outer_rate"),
    with_choice("outer", ("sgd",), "outer_momentum"),
    with_choice("outer", ("lbfgs",), "memory"),
    with_choice("mode", ("neumann", "unroll"), "hypergradient_steps"),
    with_choice("mode", ("cg", "minres", "neumann", "nystrom", "fixed-point", "dense"), "damping", "curvature"),
)
"""Of `bilevel_core.solvers.hypergradient.solver.HypergradientDescent`."""

AUXILIARY = (*DESCENT, for_form("algebraic", "max_leaps"))
"""Of `bilevel_core.solvers.auxiliary.solver.Auxiliary`."""


def _with_bounds(solver: Any, form: str | None) -> bool:
    return "bigm" in (solver.complementarity, *solver.modes.values())


KKT = (
    Only(
        ("multiplier_bound", "slack_bound", "multiplier_bounds", "slack_bounds", "max_enlargements"),
        "with complementarity=bigm, or with bigm among modes",
        _with_bounds,
    ),
    with_choice("complementarity", ("sos1", "indicator", "bigm", "strong-duality"), "gap"),
    with_choice("complementarity", ("relaxed", "penalised"), "starts"),
)
"""Of `bilevel_core.solvers.kkt.solver.KKT`."""
