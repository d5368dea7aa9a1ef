"""The report of a run: one HTML page that needs nothing else, with figures as data in it."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from bilevel_core.figures.base import Drawn, picture
from bilevel_core.report import cell, meaning, number
from bilevel_core.result import Certificate, Result, Status, Values
from bilevel_core.run.stored import StoredRun

SHOWN_ROWS = 200
"""Longer tables are cut, and say so."""
SHOWN_ENTRIES = 24
"""Of an array; of more the range is told."""
GOOD = (Status.OPTIMAL, Status.LOCALLY_OPTIMAL)
BAD = (Status.REFUTED, Status.ERROR)

STYLE = """
:root { --ink: #1c2430; --soft: #5b6675; --line: #dfe3e8; --back: #f6f7f9; --good: #00734f; --bad: #b3261e;
  --middling: #8a5a00; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 .75rem; }
section { background: #fff; border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; margin-top: 1rem; }
.status { display: inline-block; padding: .15rem .6rem; border-radius: 1rem; color: #fff; background: var(--middling);
  font-weight: 600; }
.status.good { background: var(--good); }
.status.bad { background: var(--bad); }
.soft { color: var(--soft); }
p { margin: .5rem 0 0; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .25rem 1rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 500; white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; }
.figures { display: grid; gap: 1.25rem; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); }
figure { margin: 0; }
figure img { display: block; width: 100%; max-width: 44rem; height: auto; }
figcaption { color: var(--soft); font-size: .9rem; }
code { font-family: ui-monospace, monospace; font-size: .9em; }
pre { margin: 0; overflow-x: auto; }
@media (max-width: 34rem) { main { padding: 1rem .5rem 3rem; } section { padding: .75rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
@media print { body { background: #fff; } section { break-inside: avoid; border: 0; padding: 0; } }
"""


def page(run: StoredRun, figures: Sequence[Drawn] = (), notes: Sequence[str] = ()) -> str:
    """The page as text.

    Args:
        run: the run.
        figures: what to show, see `bilevel_core.figures.base.draw`.
        notes: sentences about figures that are missing.
    """
    result = run.result
    status = "no result yet" if result is None else result.status.value
    parts = [
        _head(run, status),
        _section("The answer", _answer(result)) if result is not None else _unfinished(),
        _section("The independent check", _check(result.certificate, result)) if result is not None else "",
        _section("Figures", [_figures(figures), *(f"<p>{_text(note)}</p>" for note in notes)]),
    ]
    if result is not None:
        parts += [_section(title, _values(values)) for title, values in (("Leader", result.x), ("Follower", result.y))]
        parts += _details(result.details)
        parts.append(_section("Options", [_facts(_options(result))]))
        parts.append(_section("Work", [_facts({k.replace("_", " "): v for k, v in result.counts.items()})]))
    parts.append(_section("What happened", [_events(run)]))
    parts.append(_section("How to repeat it", _repeat(run)))
    title = _text(f"{run.name}: {status}")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(p for p in parts if p)
        + "\n</main>\n</body>\n</html>\n"
    )


def _head(run: StoredRun, status: str) -> str:
    kind = "good" if status in GOOD else "bad" if status in BAD else ""
    text = "" if run.result is None else meaning(run.result.status)
    return (
        f'<header><h1>{_text(run.name)}</h1>\n<p><span class="status {kind}">{_text(status)}</span> {_text(text)}</p>\n'
        f'<p class="soft">solver {_text(run.solver)}, started {_text(run.request.get("started", "at an unknown time"))}'
        "</p></header>"
    )


def _answer(result: Result) -> list[str]:
    lower = result.lower_objective
    several = isinstance(lower, tuple)
    facts = {
        "leader's objective": result.upper_objective,
        "proven bound": result.bound,
        "followers' objectives" if several else "follower's objective": _entries(np.array(lower)) if several else lower,
        "stopped": result.termination.value,
        "claim of the solver": result.claim.value,
        "time": f"{result.wall_time:.2f} s",
    }
    told = [result.message, result.termination.advice]
    return [_facts(facts), *(f"<p>{_text(t)}</p>" for t in told if t)]


def _unfinished() -> str:
    return _section("The answer", ["<p>The run has no result: it is still going, or ended before its first point.</p>"])


def _check(certificate: Certificate | None, result: Result) -> list[str]:
    if certificate is None:
        return ["<p>There is no point to check.</p>" if not result.has_point else "<p>The check was not asked for.</p>"]
    facts = {
        "verdict": certificate.verdict.value,
        "leader's violation": _small(certificate.upper_violation),
        "follower's violation": _small(certificate.lower_violation),
        "follower's gap": _small(certificate.lower_gap),
        "re-solve is valid": f"{certificate.lower_scope}ly",
        "follower's answer": certificate.response,
        "leader's value at the worst answer": certificate.worst_response,
        "leader's value at a better answer": certificate.better_response,
    }
    return [_facts(facts), f"<p>{_text(certificate.reason)}</p>"]


def _small(value: float) -> str | None:
    if not math.isfinite(value):
        return None
    return "0" if abs(value) < 1e-15 else f"{value:.2g}"


def _figures(figures: Sequence[Drawn]) -> str:
    return f'<div class="figures">{"".join(map(_figure, figures))}</div>' if figures else ""


def _figure(drawn: Drawn) -> str:
    data = base64.b64encode(picture(drawn.figure, "svg")).decode()
    label = _text(drawn.title)
    return (
        f'<figure><img alt="{label}" src="data:image/svg+xml;base64,{data}"><figcaption>{label}</figcaption></figure>'
    )


def _values(values: Values) -> list[str]:
    rows: list[Mapping[str, Any]] = []
    for name, array in values.items():
        flat = np.asarray(array, dtype=float).reshape(-1)
        rows.append({"variable": name, "shape": "x".join(map(str, array.shape)) or "scalar", "value": _entries(flat)})
    return [_table(rows)] if rows else []


def _entries(flat: np.ndarray) -> str:
    """A few numbers as they are, of many the range."""
    if flat.size <= SHOWN_ENTRIES:
        return ", ".join(number(float(v)) for v in flat)
    inside = f"{number(float(flat.min()))} to {number(float(flat.max()))}"
    return f"{flat.size} values from {inside}, {int(np.count_nonzero(np.abs(flat) > 1e-9))} of them not zero"


def _details(details: Mapping[str, Any]) -> list[str]:
    """What the problem type says of the point: tables, groups of facts, and single facts."""
    sections: list[str] = []
    single: dict[str, Any] = {}
    for name, value in details.items():
        title = name.replace("_", " ").capitalize()
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            sections.append(_section(title, [_table(cast("list[Mapping[str, Any]]", value))]))
        elif isinstance(value, Mapping):
            inner = cast("Mapping[str, Any]", value)
            sections.append(_section(title, [_facts({k.replace("_", " "): v for k, v in inner.items()})]))
        else:
            single[name.replace("_", " ")] = value
    return [_section("In the problem's own terms", [_facts(single)] if single else []), *sections]


def _options(result: Result) -> dict[str, Any]:
    return {**result.options, "seed": result.seed}


def _events(run: StoredRun) -> str:
    """Everything but iterations, of which there may be millions; these are counted."""
    rows: list[dict[str, Any]] = []
    for event in run.events:
        if event.get("event") == "iteration":
            continue
        rest = {k: v for k, v in event.items() if k not in ("event", "time", "message")}
        text = ", ".join(f"{k.replace('_', ' ')} {cell(v)}" for k, v in rest.items() if v is not None)
        told = str(event.get("message", ""))
        rows.append(
            {"seconds": event.get("time"), "event": event.get("event"), "": ", ".join(filter(None, (told, text)))}
        )
    count = len(run.of_kind("iteration"))
    tail = f'<p class="soft">and {count} iterations (events.jsonl)</p>' if count else ""
    return (_table(rows) if rows else "<p>Nothing was recorded.</p>") + tail


def _repeat(run: StoredRun) -> list[str]:
    parts: list[str] = []
    command = run.request.get("command")
    if isinstance(command, list) and command:
        import shlex

        line = shlex.join(["bilevel", *map(str, cast("list[Any]", command))])
        parts.append(f"<pre><code>{_text(line)}</code></pre>")
    if run.result is not None:
        parts.append(_facts(dict(run.result.versions)))
    return parts


def _section(title: str, parts: Sequence[str]) -> str:
    inside = "\n".join(p for p in parts if p)
    return f"<section><h2>{_text(title)}</h2>\n{inside}\n</section>" if inside else ""


def _facts(facts: Mapping[str, Any]) -> str:
    shown = [(name, cell(value)) for name, value in facts.items() if value is not None and value != ""]
    if not shown:
        return ""
    return "<dl>" + "".join(f"<dt>{_text(n)}</dt><dd>{_text(v)}</dd>" for n, v in shown) + "</dl>"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    right = [all(isinstance(row.get(n), int | float) or row.get(n) is None for row in rows) for n in names]
    kinds = [' class="number"' if r else "" for r in right]
    head = "".join(f"<th{k}>{_text(n.replace('_', ' '))}</th>" for n, k in zip(names, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{k}>{_text(cell(row.get(n)))}</td>" for n, k in zip(names, kinds, strict=True)) + "</tr>"
        for row in rows[:SHOWN_ROWS]
    )
    more = f'<p class="soft">and {len(rows) - SHOWN_ROWS} more rows (result.json)</p>' if len(rows) > SHOWN_ROWS else ""
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}'


def _text(value: Any) -> str:
    return html.escape(str(value))
