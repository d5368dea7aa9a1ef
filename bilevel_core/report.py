"""A result as text for people: one short table, no colours, readable when piped to a file."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from bilevel_core.errors import BilevelError
from bilevel_core.result import Certificate, Result, Status, Verdict, plain

SHOWN_VALUES = 12
SHOWN_VARIABLES = 24
SHOWN_ROWS = 40

_MEANING = {
    Status.OPTIMAL: "globally optimal, and the point was checked independently",
    Status.LOCALLY_OPTIMAL: "locally optimal, and the point was checked independently",
    Status.FEASIBLE: "a point, without a proof that it is the best",
    Status.INFEASIBLE: "no point satisfies both levels",
    Status.UNBOUNDED: "the leader's objective has no bound",
    Status.NO_SOLUTION: "there is no point to show",
    Status.REFUTED: "THE POINT FAILED THE INDEPENDENT CHECK: do not use it",
    Status.ERROR: "the solver failed",
}


def meaning(status: Status) -> str:
    """What a status means, in a few words."""
    return _MEANING[status]


def result_text(result: Result) -> str:
    """The text of ``str(result)`` and of ``bilevel solve -f text``."""
    lines = [f"{result.status.value}: {_MEANING[result.status]}", ""]
    facts: list[tuple[str, str]] = [("problem", result.problem), ("solver", _solver(result))]
    facts.append(("stopped", f"{result.termination.value}, claims {result.claim.value}"))
    if result.upper_objective is not None:
        facts.append(("upper objective", number(result.upper_objective)))
    if result.bound is not None:
        facts.append(("bound", number(result.bound)))
    if isinstance(result.lower_objective, float | int):
        facts.append(("lower objective", number(result.lower_objective)))
    elif result.lower_objective is not None:
        facts.append(("lower objectives", _array(np.array(result.lower_objective))))
    facts.append(("time", f"{result.wall_time:.2f} s"))
    if result.certificate is not None:
        facts += _certificate(result.certificate)
    elif result.has_point:
        facts.append(("check", "not asked for"))
    lines += aligned(facts)
    for text in (result.message, result.termination.advice):
        if text:
            lines += ["", text]
    for title, values in (("leader", result.x), ("follower", result.y)):
        if values:
            lines += ["", title, *_values(values)]
    lines += details_text(result.details)
    return "\n".join(lines)


def number(value: float) -> str:
    """Nine significant digits; rounding noise around zero is zero."""
    return "0" if abs(value) < 1e-9 else f"{value:.9g}"


def aligned(facts: Sequence[tuple[str, str]], indent: str = "  ") -> list[str]:
    """Name and text in two columns; entries without a text are left out."""
    shown = [(name, text) for name, text in facts if text]
    width = max((len(name) for name, _ in shown), default=0)
    return [f"{indent}{name:<{width}}  {text}" for name, text in shown]


def table(rows: Sequence[Mapping[str, Any]], indent: str = "  ", limit: int = SHOWN_ROWS) -> list[str]:
    """Rows with the same keys as columns, numbers to the right. Long tables are cut, and say so."""
    if not rows:
        return []
    names = list(rows[0])
    cells = [[cell(row.get(n)) for n in names] for row in rows[:limit]]
    right = [all(isinstance(row.get(n), int | float) or row.get(n) is None for row in rows) for n in names]
    heads = [n.replace("_", " ") for n in names]
    widths = [max(len(heads[k]), *(len(c[k]) for c in cells)) for k in range(len(names))]

    def line(texts: Sequence[str]) -> str:
        padded = [t.rjust(w) if r else t.ljust(w) for t, w, r in zip(texts, widths, right, strict=True)]
        return (indent + "  ".join(padded)).rstrip()

    out = [line(heads), *(line(c) for c in cells)]
    if len(rows) > limit:
        out.append(f"{indent}... and {len(rows) - limit} more rows (all of them with -f json)")
    return out


def details_text(details: Mapping[str, Any]) -> list[str]:
    """What a problem type reports in its own terms: lists of rows as tables, the rest as lines."""
    lines: list[str] = []
    scalars: list[tuple[str, str]] = []
    for name, value in details.items():
        title = name.replace("_", " ")
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines += ["", title, *table(cast("list[Mapping[str, Any]]", value))]
        elif isinstance(value, Mapping):
            inner = cast("Mapping[str, Any]", value)
            lines += ["", title, *aligned([(k.replace("_", " "), cell(v)) for k, v in inner.items()])]
        else:
            scalars.append((title, cell(value)))
    return (["", *aligned(scalars, indent="")] if scalars else []) + lines


def certificate_text(certificate: Certificate) -> str:
    """A certificate alone, as ``bilevel verify`` prints it."""
    return "\n".join(aligned(_certificate(certificate), indent=""))


def _solver(result: Result) -> str:
    """The solver with the options that differ from its defaults."""
    defaults = _defaults(result.solver)
    told = {k: v for k, v in result.options.items() if k not in defaults or plain(v) != plain(defaults[k])}
    changed = ", ".join(f"{k}={v}" for k, v in told.items() if v not in (None, {}, ""))
    return f"{result.solver} ({changed})" if changed else result.solver


def _defaults(solver: str) -> dict[str, Any]:
    """A solver's defaults; nothing for one that is not installed here, as with a result from elsewhere."""
    from bilevel_core.plugins.registry import get_registry

    spec = get_registry().solvers.get(solver)
    if spec is None:
        return _defaults_here(solver)
    try:
        return dataclasses.asdict(spec.load()())
    except (BilevelError, TypeError):
        return {}


def _defaults_here(place: str) -> dict[str, Any]:
    """Those of a solver that goes by ``module:Class`` and is in use: showing a result imports nothing that it names."""
    module, _, name = place.partition(":")
    factory: Any = getattr(sys.modules.get(module), name, None) if name else None
    try:
        return dataclasses.asdict(factory()) if factory is not None else {}
    except (BilevelError, TypeError):
        return {}


def _certificate(c: Certificate) -> list[tuple[str, str]]:
    facts = [("check", f"{c.verdict.value}. {c.reason}")]
    if math.isfinite(c.lower_gap):
        facts.append(("follower's gap", f"{c.lower_gap:.2g} ({c.lower_scope} re-solve)"))
    if math.isfinite(c.upper_violation) and math.isfinite(c.lower_violation):
        facts.append(("violations", f"leader {c.upper_violation:.2g}, follower {c.lower_violation:.2g}"))
    if c.verdict is not Verdict.REFUTED:
        facts.append(("follower's answer", c.response))
    if c.worst_response is not None and c.response != "unique":
        facts.append(("worst answer", f"{number(c.worst_response)} for the leader"))
    return facts


def _values(values: Mapping[str, np.ndarray]) -> list[str]:
    facts = [(name, _array(array)) for name, array in list(values.items())[:SHOWN_VARIABLES]]
    lines = aligned(facts)
    if len(values) > SHOWN_VARIABLES:
        lines.append(f"  ... and {len(values) - SHOWN_VARIABLES} more variables (all of them with -f json)")
    return lines


def _array(array: np.ndarray) -> str:
    if array.ndim == 0:
        return number(float(array))
    flat = array.reshape(-1)
    if flat.size <= SHOWN_VALUES:
        return "[" + ", ".join(number(float(v)) for v in flat) + "]"
    shape = " x ".join(str(n) for n in array.shape)
    nonzero = int(np.count_nonzero(np.abs(flat) > 1e-9))
    low, high = number(float(flat.min())), number(float(flat.max()))
    return f"{shape} values from {low} to {high}, {nonzero} of them not zero"


def cell(value: Any) -> str:
    """A value of a table or of the options as short text."""
    value = plain(value)
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return ", ".join(cell(v) for v in cast("list[Any]", value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {cell(v)}" for k, v in cast("dict[str, Any]", value).items()) or "none"
    return str(value)
