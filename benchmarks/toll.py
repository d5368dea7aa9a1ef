"""Tolls: network pricing instances, second-best tolls, equilibria; each beside recorded figures.

    python benchmarks/toll.py equilibrium FOLDER                      # FOLDER with TNTP networks, one folder each
    python benchmarks/toll.py second-best
    python benchmarks/toll.py pricing FOLDER --known FILE.csv [--forms std,pvf] [--backends scip,highs] [--limit 60]
                              [--only g30,g40] [--json FILE]

Pricing: FOLDER holds instances as JSON, FILE.csv has columns inst and best. One thread; the limit is CPU seconds of
SCIP's search, and seconds of the clock for HiGHS, which counts no other. With ``--json FILE`` rows are kept, and those
in FILE already are not run again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import bilevel_core as bl

PROVEN = 1e-4
"""Relative gap at which an instance counts as proven, that of the published runs."""
BEST_TIMES = {5: 7462474.0, 10: 7417109.0, 20: 7363173.0, 40: 7203001.0}
"""Total times on Sioux Falls with tolls on the k arcs of largest v^2 t', found before by several methods."""


def line(*cells: Any) -> None:
    print("| " + " | ".join(f"{c:.6g}" if isinstance(c, float) else str(c) for c in cells) + " |", flush=True)


def equilibria(folder: Path) -> None:
    from bilevel_toll.congestion.equilibrium import user_equilibrium
    from bilevel_toll.congestion.library import braess, load_traffic

    user_equilibrium(braess())  # have everything imported before time is taken
    line("network", "choice", "Beckmann", "total time", "relative gap", "searches", "CPU s")
    line(*["---"] * 7)
    for file in sorted(folder.glob("*/*_net.tntp")):
        traffic = load_traffic(file)
        for system in (False, True):
            for gap in (1e-4, 1e-6, 1e-12):
                started = time.process_time()
                flows = user_equilibrium(traffic, system=system, tolerance=gap)
                cpu = time.process_time() - started
                choice = "system" if system else "users"
                figures = (f"{flows.beckmann:.4f}", f"{flows.total_time:.3f}", f"{flows.relative_gap:.1e}")
                line(traffic.name, choice, *figures, flows.iterations, f"{cpu:.3f}")


def second_best() -> None:
    from bilevel_toll.congestion.library import congested_tolls

    line("arcs", "total time", "best before", "equilibria", "CPU s", "equilibria, gradient only", "its total time")
    line(*["---"] * 7)
    for count, known in BEST_TIMES.items():
        problem = congested_tolls(arcs=(str(count),))
        started = time.process_time()
        result = bl.solve(problem, verify=False)
        cpu = time.process_time() - started
        quick = bl.solve(problem, options={"starts": 1, "random": 0, "polish": 0}, verify=False)
        line(
            count, f"{float(result.upper_objective or 0):.1f}", known, result.counts["lower_solves"], f"{cpu:.1f}",
            quick.counts["lower_solves"], f"{float(quick.upper_objective or 0):.1f}",
        )  # fmt: skip


def price(file: Path, form: str, backend: str, limit: float) -> dict[str, Any]:
    from bilevel_toll.pricing_file import read_pricing

    problem = read_pricing(file)
    clock = {"timing/clocktype": 1, "limits/time": limit} if backend == "scip" else {"time_limit": limit}
    options = {"formulation": form, "backend": backend, "backend_options": clock}
    started = time.process_time()
    result = bl.solve(problem, solver="toll-pricing", options=options, verify=False)
    return {
        "instance": file.stem,
        "form": form,
        "backend": backend,
        "revenue": result.upper_objective,
        "bound": result.bound,
        "safe": result.details["safe_revenue"],
        "cpu": time.process_time() - started,
    }


def pricing(arguments: argparse.Namespace) -> None:
    with Path(arguments.known).open(newline="", encoding="utf-8") as f:
        known = {row["inst"]: float(row["best"]) for row in csv.DictReader(f)}
    kept = Path(arguments.json) if arguments.json else None
    rows: list[dict[str, Any]] = []
    if kept and kept.exists():
        rows = [json.loads(text) for text in kept.read_text(encoding="utf-8").splitlines()]
    done = {(r["instance"], r["form"], r["backend"]) for r in rows}
    only = tuple(arguments.only.split(",")) if arguments.only else ("",)
    line("instance", "form", "backend", "revenue", "best known", "bound", "gap %", "CPU s")
    line(*["---"] * 8)
    for file in sorted(Path(arguments.folder).glob("*.json")):
        if not file.stem.startswith(only):
            continue
        for form in arguments.forms.split(","):
            for backend in arguments.backends.split(","):
                if (file.stem, form, backend) not in done:
                    rows.append(price(file, form, backend, arguments.limit))
                    if kept:
                        with kept.open("a", encoding="utf-8") as f:
                            f.write(json.dumps(rows[-1]) + "\n")
                row = next(r for r in rows if (r["instance"], r["form"], r["backend"]) == (file.stem, form, backend))
                gap = row["bound"] / row["revenue"] - 1.0
                figures = (row["revenue"], known.get(file.stem, "-"), row["bound"])
                line(file.stem, form, backend, *figures, f"{100 * gap:.3f}", f"{row['cpu']:.1f}")
    print()
    for form, backend in dict.fromkeys((r["form"], r["backend"]) for r in rows):
        mine = [r for r in rows if (r["form"], r["backend"]) == (form, backend)]
        proven = sum(r["bound"] <= r["revenue"] * (1.0 + PROVEN) for r in mine)
        beyond = [r["instance"] for r in mine if known.get(r["instance"], 0.0) > r["bound"] * (1.0 + PROVEN)]
        against = ", ".join(beyond) or "none"
        print(f"{form} {backend}: {proven} of {len(mine)} proven; bound below the best known: {against}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["equilibrium", "second-best", "pricing"])
    parser.add_argument("folder", nargs="?", default="")
    parser.add_argument("--known", default="")
    parser.add_argument("--forms", default="std,pastd,vf,pvf,pcs")
    parser.add_argument("--backends", default="scip,highs")
    parser.add_argument("--limit", type=float, default=60.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    if arguments.part == "equilibrium":
        equilibria(Path(arguments.folder))
    elif arguments.part == "second-best":
        second_best()
    else:
        pricing(arguments)


if __name__ == "__main__":
    main()
