"""Every problem of the library with every way of `kkt`, against the best known optimum; and three peers beside it.

    python benchmarks/algebraic.py [--limit 60] [--only TEXT] [--modes sos1,bigm] [--json FILE]
    python benchmarks/algebraic.py --peers-only --install-peers FOLDER

Rows are printed as they come. With ``--json FILE`` they are kept too, and rows that are in FILE already are not run
again: a long run may be done in pieces.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import statistics
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import algebraic_peers

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry

MODES = ("sos1", "indicator", "bigm", "strong-duality")
LOCAL_MODES = ("relaxed", "penalised")
TOLERANCE = 1e-5
"""Relative, of the leader's objective."""
SOLVER = "kkt"


def library(only: str) -> dict[str, Any]:
    """The problems with a known outcome whose names contain the text, or match the pattern."""
    pattern = only if "*" in only else f"*{only}*"
    known = {n: s for n, s in get_registry().problems.items() if s.known is not None}
    return {n: s for n, s in known.items() if fnmatch.fnmatch(n, pattern) and not n.startswith("toll/")}


def right(found: float | None, optimum: float, tolerance: float = 0.0) -> bool:
    return found is not None and abs(found - optimum) <= max(TOLERANCE * max(1.0, abs(optimum)), tolerance)


def judge(result: bl.Result, known: Any) -> str:
    """One word: right, wrong, no point, infeasible told rightly or not."""
    if known.upper_objective is None:
        told = result.termination == known.termination and not result.has_point
        return "right" if told else "wrong"
    if not result.has_point:
        return "no point"
    return "right" if right(result.upper_objective, known.upper_objective, known.tolerance) else "wrong"


def run(name: str, spec: Any, mode: str, limit: float) -> dict[str, Any]:
    row: dict[str, Any] = {"problem": name, "solver": SOLVER, "mode": mode, "known": spec.known.upper_objective}
    started = time.perf_counter()
    try:
        options = {"complementarity": mode}
        result = bl.solve(spec.load()(), solver=SOLVER, options=options, time_limit=limit)
    except bl.RefusedError as error:
        return row | {"outcome": "refused", "reason": str(error)}
    except Exception as error:  # noqa: BLE001 - a crash is a row of the table
        return row | {"outcome": "error", "reason": f"{type(error).__name__}: {error}"}
    return row | {
        "found": result.upper_objective,
        "outcome": judge(result, spec.known),
        "status": result.status.value,
        "verdict": None if result.certificate is None else result.certificate.verdict.value,
        "seconds": time.perf_counter() - started,
        "termination": result.termination.value,
        "reason": result.message,
    }


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.7g}"


def line(row: dict[str, Any]) -> str:
    cells = [row["problem"], row["solver"], row["mode"], number(row.get("found")), number(row["known"])]
    cells += [row["outcome"], row.get("status", "-"), row.get("verdict") or "-"]
    cells.append(f"{row['seconds']:.2f}" if "seconds" in row else "-")
    return "| " + " | ".join(cells) + " |"


def summary(rows: list[dict[str, Any]]) -> list[str]:
    out = ["", "| mode | right | of these optimal | wrong | no point | refused | error | optimal though wrong |"]
    out.append("|---|---|---|---|---|---|---|---|")
    for mode in dict.fromkeys(r["mode"] for r in rows):
        mine = [r for r in rows if r["mode"] == mode]
        n = Counter(r["outcome"] for r in mine)
        proven = sum(r["outcome"] == "right" and r["status"] == "optimal" for r in mine)
        lies = [r for r in mine if r["outcome"] == "wrong" and r.get("status") == "optimal"]
        cells = [mode, n["right"], proven, n["wrong"], n["no point"], n["refused"], n["error"], len(lies)]
        out.append("| " + " | ".join(map(str, cells)) + " |")
    by_problem: dict[str, list[dict[str, Any]]] = {}
    for r in rows:
        by_problem.setdefault(r["problem"], []).append(r)
    taken = {n: rs for n, rs in by_problem.items() if any(r["outcome"] != "refused" for r in rs)}
    missed = [n for n, rs in taken.items() if not any(r["outcome"] == "right" for r in rs)]
    out += ["", f"problems {len(by_problem)}, taken by some mode {len(taken)}, right by some mode "]
    out[-1] += f"{len(taken) - len(missed)}"
    out += [f"missed by all modes: {', '.join(missed) or 'none'}"]
    lies = [f"{r['problem']} ({r['mode']})" for r in rows if r["outcome"] == "wrong" and r.get("status") == "optimal"]
    out += [f"called optimal though wrong: {', '.join(lies) or 'none'}"]
    return out


def peers(folder: Path | None, install: bool, limit: float, only: str) -> list[str]:
    """The peers' rows beside ours, on the statements that each accepts."""
    out = ["", "| package | accepted | right | wrong | of these called optimal | failed | time / ours, median |"]
    out.append("|---|---|---|---|---|---|---|")
    run("", get_registry().problems["classic/bard-511"], "sos1", limit)  # imports
    names = [n for n in library(only) if n.startswith(("basblib/", "bolib/"))]
    for peer in algebraic_peers.PEERS:
        rows, reason = algebraic_peers.run_peer(peer, folder, install, names, limit)
        if reason:
            out.append(f"| {peer} | skipped: {reason} | | | | | |")
            continue
        counts, ratios = Counter[str](), list[float]()
        for row in rows:
            known = get_registry().problems[row["problem"]].known
            assert known is not None
            if "refused" in row:
                counts["refused"] += 1
                continue
            if "failed" in row or known.upper_objective is None:
                counts["failed"] += "failed" in row
                print(
                    f"| {row['problem']} | {peer} | failed: {row.get('failed', 'no optimum to compare')[:90]} |",
                    flush=True,
                )
                continue
            good = right(row["found"], known.upper_objective, 1e-4 * max(1.0, abs(known.upper_objective)))
            counts["right" if good else "wrong"] += 1
            counts["lies"] += not good and row["optimal"]
            ours = run(row["problem"], get_registry().problems[row["problem"]], "sos1", limit)
            if good and ours["outcome"] == "right":
                ratios.append(row["seconds"] / ours["seconds"])
            cells = (
                row["problem"],
                peer,
                number(row["found"]),
                number(known.upper_objective),
                "right" if good else "wrong",
            )
            print("| " + " | ".join(cells) + f" | {row['seconds']:.3f} | ours {ours['seconds']:.3f} |", flush=True)
        accepted = sum(counts[k] for k in ("right", "wrong", "failed"))
        ratio = f"{statistics.median(ratios):.2f}" if ratios else "-"
        cells = [peer, accepted, *(counts[k] for k in ("right", "wrong", "lies", "failed")), ratio]
        out.append("| " + " | ".join(map(str, cells)) + " |")
    return out


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for each solve")
    parser.add_argument("--only", default="", help="part of the problems' names, or a pattern")
    parser.add_argument("--modes", default=",".join((*MODES, *LOCAL_MODES)), help="comma-separated")
    parser.add_argument("--json", type=Path, help="keep the rows here, and go on from them")
    parser.add_argument("--peers", type=Path, help="folder with the peers' environments, as they are")
    parser.add_argument("--install-peers", type=Path, help="the same, installed first where missing")
    parser.add_argument("--peers-only", action="store_true", help="leave our own table out")
    given = parser.parse_args()
    if not given.peers_only:
        kept = (
            [json.loads(text) for text in given.json.read_text().splitlines()]
            if given.json and given.json.exists()
            else []
        )
        rows = {(r["problem"], r["mode"]): r for r in kept}
        print("| problem | solver | mode | F found | best known | | status | check | s |")
        print("|---|---|---|---|---|---|---|---|---|")
        for name, spec in library(given.only).items():
            for mode in given.modes.split(","):
                if (name, mode) not in rows:
                    rows[name, mode] = run(name, spec, mode, given.limit)
                    if given.json:
                        with given.json.open("a") as file:
                            print(json.dumps(rows[name, mode]), file=file)
                print(line(rows[name, mode]), flush=True)
        print("\n".join(summary([r for (n, m), r in rows.items() if n in library(given.only)])))
    folder = given.install_peers or given.peers
    if folder or given.peers_only:
        print("\n".join(peers(folder, given.install_peers is not None, given.limit, given.only)))


if __name__ == "__main__":
    main()
