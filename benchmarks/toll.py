"""Tolls: network pricing instances, second-best tolls, equilibria; each beside recorded figures.

    python benchmarks/toll.py equilibrium FOLDER [--only SiouxFalls]  # FOLDER with TNTP networks, one folder each
                              [--peer-python PATH]                    # Python with the package aequilibrae
    python benchmarks/toll.py second-best                             # least total time
    python benchmarks/toll.py revenue                                 # most revenue
    python benchmarks/toll.py booths [--only 5,10] [--solves 2000]    # least total time, at most so many arcs tolled
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
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

import bilevel_core as bl

PEER_GAPS = (1e-4, 1e-6)
"""Gaps to which AequilibraE is asked."""
PROVEN = 1e-4
"""Relative gap at which an instance counts as proven, that of the published runs."""
BEST_TIMES = {5: 7462474.0, 10: 7417109.0, 20: 7363173.0, 40: 7203001.0}
"""Total times on Sioux Falls with tolls on the k arcs of largest v^2 t', found before by several methods."""

BEST_REVENUES = {5: 2.905e6, 10: 7.920e6}
"""Revenues found before on the same arcs by CMA-ES; the bounds of tolls are not recorded, and 100 agrees with both."""
REVENUE_UPPER = 100.0


def line(*cells: Any) -> None:
    print("| " + " | ".join(f"{c:.6g}" if isinstance(c, float) else str(c) for c in cells) + " |", flush=True)


def equilibria(folder: Path, only: tuple[str, ...], peer: str) -> None:
    from bilevel_toll.congestion.equilibrium import user_equilibrium
    from bilevel_toll.congestion.library import braess, load_traffic

    user_equilibrium(braess())  # have everything imported before time is taken
    line("network", "choice", "package", "gap asked for", "Beckmann", "total time", "relative gap", "searches", "CPU s")
    line(*["---"] * 9)
    for file in sorted(folder.glob("*/*_net.tntp")):
        if not file.parent.name.startswith(only):
            continue
        traffic = load_traffic(file)
        for system in (False, True):
            for gap in (1e-4, 1e-6, 1e-12):
                started = time.process_time()
                flows = user_equilibrium(traffic, system=system, tolerance=gap)
                cpu = time.process_time() - started
                choice = "system" if system else "users"
                figures = (f"{flows.beckmann:.4f}", f"{flows.total_time:.3f}", f"{flows.relative_gap:.1e}")
                line(traffic.name, choice, "bilevel", f"{gap:g}", *figures, flows.iterations, f"{cpu:.3f}")
        for gap in PEER_GAPS if peer else ():
            line(traffic.name, "users", *peer_cells(traffic, gap, peer))


def peer_cells(traffic: Any, gap: float, python: str) -> list[str]:
    """AequilibraE's row, its Beckmann function and relative gap computed from its flows by us; or why there is none."""
    network = traffic.network
    zones = sorted({network.index(node) for _, d in traffic.demands for node in (d.origin, d.destination)})
    missing = ["-"] * 3
    if network.no_through and set(network.no_through) != set(zones):
        return ["AequilibraE", f"{gap:g}", "skipped: it closes all zones to through traffic or none", *missing]
    given = {
        "zones": [z + 1 for z in zones],
        "closed": bool(network.no_through),
        "arcs": [
            (int(i) + 1, int(j) + 1, a.cost, a.capacity, a.b, a.power)
            for i, j, a in zip(network.tails, network.heads, network.arcs, strict=True)
        ],
        "trips": [(network.index(d.origin) + 1, network.index(d.destination) + 1, d.trips) for _, d in traffic.demands],
        "gap": gap,
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.json"
        file.write_text(json.dumps(given), encoding="utf-8")
        done = subprocess.run(
            [python, str(Path(__file__).parent / "toll_peer.py"), str(file)], capture_output=True, text=True
        )
    rows = [text for text in done.stdout.splitlines() if text.startswith("ROW ")]
    if done.returncode != 0 or not rows:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1].replace("|", "/")
        return ["AequilibraE", f"{gap:g}", f"failed: {reason[:120]}", *missing]
    row = json.loads(rows[-1][4:])
    flow, roads = np.array(row["flow"]), traffic.roads
    times = roads.time(flow)
    trees = traffic.graph.trees(times, traffic.origins)
    least = float(traffic.trips @ trees.distance[traffic.origin_row, traffic.ends])
    real = (float(flow @ times) - least) / least
    name = f"{row['package']} {row['version']}"
    total = f"{float(flow @ times):.3f}"
    beckmann = f"{float(roads.integral(flow).sum()):.4f}"
    return [name, f"{gap:g}", beckmann, total, f"{real:.1e}", row["iterations"], f"{row['cpu']:.3f}"]


def until(problem: Any, known: float) -> tuple[Any, int | None]:
    """A result, and after how many equilibria it was as good as a value known without decimals; None for never."""
    asked, flows = 0, problem.flows
    reached: list[int] = []

    def counted(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return flows(*arguments)

    def met(event: bl.Event) -> None:
        if event.kind == "incumbent" and event.data["objective"] <= known + 1.0:
            reached.append(asked)

    problem.flows = counted
    result = bl.solve(problem, verify=False, callbacks=[met])
    problem.flows = flows
    return result, reached[0] if reached else None


def second_best() -> None:
    from bilevel_toll.congestion.library import congested_tolls

    head = ("arcs", "total time", "best before", "equilibria", "until the best before", "CPU s")
    line(*head, "equilibria, one start", "its total time")
    line(*["---"] * 8)
    for count, known in BEST_TIMES.items():
        problem = congested_tolls(arcs=(str(count),))
        started = time.process_time()
        result, reached = until(problem, known)
        cpu = time.process_time() - started
        quick = bl.solve(problem, options={"starts": 1, "random": 0}, verify=False)
        total, quickly = (f"{float(r.upper_objective or 0):.1f}" for r in (result, quick))
        counts = [r.counts["lower_solves"] for r in (result, quick)]
        line(count, total, known, counts[0], reached or "never", f"{cpu:.1f}", counts[1], quickly)


def revenues() -> None:
    from bilevel_toll.congestion.library import congested_tolls

    line("arcs", "revenue", "best before", "tolls up to", "equilibria", "CPU s")
    line(*["---"] * 6)
    for count, known in BEST_REVENUES.items():
        problem: Any = congested_tolls(arcs=(str(count),), objective=("revenue",), upper=REVENUE_UPPER)
        started = time.process_time()
        result = bl.solve(problem, verify=False)
        cpu = time.process_time() - started
        revenue = f"{-float(result.upper_objective or 0):.1f}"
        line(count, revenue, known, problem.upper, result.counts["lower_solves"], f"{cpu:.1f}")


def booths(counts: list[int], budget: int) -> None:
    """Any arcs of Sioux Falls may be tolled, at most so many at once."""
    from bilevel_toll.congestion.library import congested_tolls

    line("booths", "total time", "on the arcs above", "equilibria", "CPU s", "arcs")
    line(*["---"] * 6)
    for count in counts:
        problem = congested_tolls(arcs=("all",), most_booths=count)
        started = time.process_time()
        result = bl.solve(problem, options={"solves": budget}, verify=False)
        cpu = time.process_time() - started
        arcs = " ".join(name[5:-1] for name, value in result.x.items() if float(value) > 0.0)
        total = f"{float(result.upper_objective or 0):.1f}"
        line(count, total, BEST_TIMES.get(count, "-"), result.counts["lower_solves"], f"{cpu:.1f}", arcs)


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


def contradicts(row: dict[str, Any], best: float) -> bool:
    """Whether a revenue known to be reached is above the bound that a row calls proven: one of the two is wrong."""
    return best > row["bound"] * (1.0 + PROVEN)


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
                best = known.get(file.stem)
                told = "-" if best is None else f"{best:.6g}, above the bound!" if contradicts(row, best) else best
                figures = (row["revenue"], told, row["bound"])
                line(file.stem, form, backend, *figures, f"{100 * gap:.3f}", f"{row['cpu']:.1f}")
    print()
    for form, backend in dict.fromkeys((r["form"], r["backend"]) for r in rows):
        mine = [r for r in rows if (r["form"], r["backend"]) == (form, backend)]
        proven = sum(r["bound"] <= r["revenue"] * (1.0 + PROVEN) for r in mine)
        beyond = [r["instance"] for r in mine if contradicts(r, known.get(r["instance"], 0.0))]
        against = ", ".join(beyond) or "none"
        print(f"{form} {backend}: {proven} of {len(mine)} proven; bound below the best known: {against}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["equilibrium", "second-best", "revenue", "booths", "pricing"])
    parser.add_argument("folder", nargs="?", default="")
    parser.add_argument("--known", default="")
    parser.add_argument("--forms", default="std,pastd,vf,pvf,pcs")
    parser.add_argument("--backends", default="scip,highs")
    parser.add_argument("--limit", type=float, default=60.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--solves", type=int, default=2000, help="budget of equilibria, for booths")
    parser.add_argument("--json", default="")
    parser.add_argument("--peer-python", default="", help="a Python that has aequilibrae, for equilibrium")
    arguments = parser.parse_args()
    if arguments.part == "equilibrium":
        only = tuple(arguments.only.split(",")) if arguments.only else ("",)
        equilibria(Path(arguments.folder), only, arguments.peer_python)
    elif arguments.part == "second-best":
        second_best()
    elif arguments.part == "revenue":
        revenues()
    elif arguments.part == "booths":
        booths([int(n) for n in (arguments.only or "1,3,5,10,20").split(",")], arguments.solves)
    else:
        pricing(arguments)


if __name__ == "__main__":
    main()
