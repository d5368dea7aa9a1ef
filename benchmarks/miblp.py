"""Every mixed-integer bilevel instance of a folder with `branch-and-cut`, beside the recorded figures of MibS.

    python benchmarks/miblp.py FOLDER --times FILE.csv [--limit 60] [--only TEXT] [--no-verify] [--json FILE]

FOLDER holds pairs of MPS and AUX files and `instances.csv` (name, family, known_opt); FILE.csv the recorded figures, by
name: `mibs_status`, `mibs_obj`, `mibs_cpu`. One thread; CPU seconds of the search, without reading and checking. With
``--json FILE`` rows are kept, and those in FILE already are not run again.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import bilevel_core as bl
from bilevel_core.problems.mps import read_mps

TOLERANCE = 1e-5
SHIFT = 1.0
"""Seconds added to each time in the geometric mean."""


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as f:
        return {row["name"]: row for row in csv.DictReader(f)}


def run(folder: Path, name: str, limit: float, *, verify: bool) -> dict[str, Any]:
    problem = read_mps(folder / f"{name}.mps")
    started = time.process_time()
    # SCIP counts CPU seconds too, so that other work on the machine does not cut a run short.
    options = {"backend_options": {"timing/clocktype": 1, "limits/time": limit}}
    result = bl.solve(problem, solver="branch-and-cut", options=options, verify=False)
    seconds = time.process_time() - started
    verdict = bl.verify(problem, result).verdict.value if verify and result.has_point else "-"
    return {
        "name": name,
        "value": result.upper_objective,
        "bound": result.bound,
        "claim": result.claim.value,
        "cpu": seconds,
        "counts": dict(result.counts),
        "verdict": verdict,
    }


def warm_up() -> None:
    """Have everything imported before time is taken."""
    from bilevel_core.plugins.registry import get_registry

    bl.solve(get_registry().problems["classic/moore-bard"].load()(), solver="branch-and-cut")


def mean(seconds: list[float]) -> float:
    """The shifted geometric mean."""
    return math.exp(sum(math.log(s + SHIFT) for s in seconds) / len(seconds)) - SHIFT


def solved(row: dict[str, Any], known: float) -> bool:
    value = row["value"]
    return value is not None and row["claim"] == "global" and abs(value - known) <= TOLERANCE * max(1.0, abs(known))


def show(row: dict[str, Any], known: float, peer: dict[str, str], limit: float) -> str:
    counts = row["counts"]
    state = "right" if solved(row, known) else row["claim"]
    value = "-" if row["value"] is None else f"{row['value']:.6g}"
    bound = "-" if row["bound"] is None else f"{row['bound']:.6g}"
    theirs = peer["mibs_cpu"] if peer.get("mibs_status") == "completed" else f"unsolved ({peer.get('mibs_obj') or '-'})"
    return (
        f"| {row['name']} | {known:g} | {value} | {bound} | {state} | {row['cpu']:.2f} | {counts['nodes']} | "
        f"{counts['cuts']} | {counts['lower_solves']} | {row['verdict']} | {theirs} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--times", type=Path, required=True)
    parser.add_argument("--limit", type=float, default=60.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--no-verify", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    warm_up()
    instances, peers = table(asked.folder / "instances.csv"), table(asked.times)
    kept: dict[str, Any] = json.loads(asked.json.read_text()) if asked.json and asked.json.exists() else {}
    print("| instance | optimum | value | bound | state | CPU s | nodes | cuts | lower solves | check | MibS CPU s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    families: dict[str, list[tuple[float, float, bool, bool]]] = {}
    for name, facts in instances.items():
        if asked.only not in name:
            continue
        if name not in kept:
            kept[name] = run(asked.folder, name, asked.limit, verify=not asked.no_verify)
            if asked.json:
                asked.json.write_text(json.dumps(kept, indent=1))
        row, known, peer = kept[name], float(facts["known_opt"]), peers.get(name, {})
        print(show(row, known, peer, asked.limit), flush=True)
        done = peer.get("mibs_status") == "completed"
        theirs = float(peer["mibs_cpu"]) if done else asked.limit
        families.setdefault(facts["family"], []).append((row["cpu"], theirs, solved(row, known), done))
    print("\nShifted geometric mean of CPU seconds (shift 1; unsolved counts as the limit):\n")
    print("| family | instances | solved | MibS solved | ours | MibS |")
    print("|---|---|---|---|---|---|")
    for family, rows in families.items():
        mine = mean([r[0] if r[2] else asked.limit for r in rows])
        print(
            f"| {family} | {len(rows)} | {sum(r[2] for r in rows)} | {sum(r[3] for r in rows)} | {mine:.2f} | "
            f"{mean([r[1] for r in rows]):.2f} |"
        )


if __name__ == "__main__":
    main()
