"""`global` on all problems with a nonconvex or multiplier-free follower: bound, gap, cuts, time, verdict.

    python benchmarks/nonconvex.py                                  # 60 s of CPU time for each problem
    python benchmarks/nonconvex.py --limit 10 --only "basblib/mb_*"
    python benchmarks/nonconvex.py --json rows.jsonl                # rows are kept, and not run again
    python benchmarks/nonconvex.py --basblib                        # the 27 nonlinear followers of BASBLib only

The limit is CPU time, so that figures of a busy machine can be compared; the independent check comes on top.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import time
from pathlib import Path
from typing import Any

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry
from bilevel_core.plugins.specs import ProblemSpec

BASBLIB = frozenset(
    {
        "cg_1999_01",
        "ka_2014_01",
        "mb_2007_05",
        "mb_2007_09",
        "mb_2007_10",
        "mb_2007_13",
        "mb_2007_13v",
        "mb_2007_16",
        "nwj_2017_01",
        "c_2002_01",
        "c_2002_05",
        "fz_1998_01",
        "mb_2007_24",
        "nwj_2017_02",
        "nwj_2017_04",
        "nwj_2017_05",
        "c_2002_04",
        "dd_2012_01",
        "mb_2007_12",
        "mb_2007_14",
        "mb_2007_18",
        "mb_2007_18v",
        "mb_2007_20",
        "mb_2007_21",
        "mb_2007_22v",
        "mb_2007_23",
        "yz_2010_01",
    }
)
"""Its classes LP-NLP, NLP-NLP and QP-NLP."""
PESSIMISTIC = {"classic/mitsos-barton-313": 0.0}
"""Problems that are solved for a pessimistic leader too, and that optimum (Mitsos and Barton 2006, example 3.13)."""
ERROR = 1e-3


def wanted(spec: ProblemSpec) -> bool:
    """Whether optimality conditions do not settle the problem: its follower is nonconvex, or lacks multipliers."""
    name = spec.name
    return name == "trap/no-multipliers" or name.removeprefix("basblib/") in BASBLIB or spec.needs == "global"


def run(spec: ProblemSpec, response: str, limit: float) -> dict[str, Any]:
    """One row."""
    start, begun = time.process_time(), time.monotonic()
    searched: list[float] = []

    def watch(event: Any) -> bool:
        if event.kind == "phase" and "checking" in event.data.get("message", ""):
            searched.append(time.process_time() - start)
        return time.process_time() - start > limit

    row: dict[str, Any] = {"problem": spec.name, "response": response, "limit": limit}
    known = None if spec.known is None else spec.known.upper_objective
    if response == "pessimistic":
        known = PESSIMISTIC[spec.name]
    row["known"] = known
    try:
        options = {"response": response}
        r = bl.solve(spec.load()(), solver="global", options=options, callbacks=(watch,), time_limit=20 * limit)
    except bl.BilevelError as error:
        return row | {"status": "refused", "verdict": "", "message": str(error), "right": False}
    bound, value = r.bound, r.upper_objective
    row |= {
        "status": r.status.value,
        "claim": r.claim.value,
        "verdict": "" if r.certificate is None else r.certificate.verdict.value,
        "objective": value,
        "bound": bound,
        "gap": None if bound is None or value is None else abs(value - bound),
        "cuts": r.counts.get("cuts", 0),
        "relaxations": r.counts.get("relaxations", 0),
        "cpu": searched[0] if searched else time.process_time() - start,
        "wall": time.monotonic() - begun,
        "message": r.message,
    }
    row["right"] = close(value, known)
    return row


def close(value: float | None, known: float | None) -> bool:
    """Whether a value is the known one within the epsilon that was asked for."""
    if value is None or known is None:
        return value is None and known is None
    return abs(value - known) <= ERROR * max(1.0, abs(known))


def line(row: dict[str, Any]) -> str:
    """A row of the table."""

    def number(value: float | None) -> str:
        return "-" if value is None or not math.isfinite(value) else f"{value:.6g}"

    name = row["problem"] + (" (pessimistic)" if row["response"] == "pessimistic" else "")
    cells = [f"{name:44}", *(f"{number(row.get(k)):>11}" for k in ("known", "objective", "bound", "gap"))]
    cells += [
        f"{row.get('cuts', 0):>5}",
        f"{number(row.get('cpu')):>8}",
        f"{row['status']:>10}",
        f"{row['verdict']:>12}",
    ]
    return " ".join(cells) + ("" if row["right"] else "  not the known optimum")


def main() -> None:
    """Print the table and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=60.0, help="CPU seconds for each search")
    parser.add_argument("--only", default="*", help="pattern of problem names")
    parser.add_argument("--basblib", action="store_true", help="only BASBLib's nonlinear followers")
    parser.add_argument("--json", type=Path, help="file in which rows are kept, one JSON object a line")
    given = parser.parse_args()
    kept: dict[tuple[str, str], dict[str, Any]] = {}
    if given.json is not None and given.json.is_file():
        for text in given.json.read_text(encoding="utf-8").splitlines():
            row = json.loads(text)
            kept[row["problem"], row["response"]] = row
    heads = ("known", "objective", "bound", "gap")
    print(f"{'problem':44} {' '.join(f'{h:>11}' for h in heads)}  cuts  CPU s     status      verdict")
    rows: list[dict[str, Any]] = []
    for spec in sorted(get_registry().problems.values(), key=lambda s: s.name):
        basblib = spec.name.startswith("basblib/") and spec.name.removeprefix("basblib/") in BASBLIB
        if not wanted(spec) or not fnmatch.fnmatch(spec.name, given.only) or (given.basblib and not basblib):
            continue
        for response in ("optimistic", *(["pessimistic"] if spec.name in PESSIMISTIC else [])):
            row = kept.get((spec.name, response)) or run(spec, response, given.limit)
            if given.json is not None and (spec.name, response) not in kept:
                with given.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            rows.append(row)
            print(line(row), flush=True)
    for title, chosen in (("all", rows), ("BASBLib, nonlinear followers", [r for r in rows if in_basblib(r)])):
        optimal = [r for r in chosen if r["status"] == "optimal"]
        wrong = [r["problem"] for r in optimal if not r["right"]]
        print(f"\n{title}: {len(optimal)} of {len(chosen)} optimal, {len(wrong)} of them wrong {' '.join(wrong)}")


def in_basblib(row: dict[str, Any]) -> bool:
    """Whether a row is of one of BASBLib's problems with nonlinear followers."""
    return row["problem"].startswith("basblib/") and row["problem"].removeprefix("basblib/") in BASBLIB


if __name__ == "__main__":
    main()
