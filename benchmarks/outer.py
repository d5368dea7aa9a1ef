"""A race of whole bilevel solves, ours and other packages': see README.md.

python benchmarks/outer.py [--race digits cleaning] [--seconds S] [--only PART ...]
                           [--peers DIR | --install-peers [DIR]]
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from digits import RACES, OverError, Race, Record, run
from hypergradient import install, last_line, python_of

import bilevel_core as bl

HERE = Path(__file__).parent
PEERS = ("torchopt", "betty", "higher", "hypertorch", "boat")
GAPS = (1e-2, 1e-3, 1e-4)
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "hypergradient, lbfgs": ("hypergradient", {}),
    "hypergradient, adam": ("hypergradient", {"outer": "adam"}),
    "auxiliary, 2": ("auxiliary", {"norm": "2"}),
    "auxiliary, inf": ("auxiliary", {"norm": "inf"}),
    "auxiliary, quasi-newton": ("auxiliary", {"norm": "quasi-newton"}),
    "trust-region": ("trust-region", {}),
    "penalty, value-function": ("penalty", {}),
}


@dataclass
class Row:
    """One method's race.

    Attributes:
        trace: (seconds, true F) along its path.
        solves: lower-level solves, or upper steps of a method whose lower level takes T steps each.
        products: Hessian products; None where the method has none or they are not counted.
        failed: why there is no trace.
    """

    package: str
    method: str
    trace: list[tuple[float, float]]
    solves: int | None = None
    products: int | None = None
    failed: str = ""

    @property
    def best(self) -> float:
        """The smallest true F."""
        return min((value for _, value in self.trace if math.isfinite(value)), default=math.inf)

    def text(self, best: float) -> str:
        """A line of the table, with times to within the gaps of the best F of all methods."""
        if self.failed or not self.trace:
            return f"| {self.package} | {self.method} | {self.failed or 'no point in time'} | | | | | |"
        times = (next((t for t, value in self.trace if value <= best + gap), None) for gap in GAPS)
        cells = ["-" if t is None else f"{t:.2f}" for t in times]
        cells += [f"{self.best:.5f}", *("-" if n is None else str(n) for n in (self.solves, self.products))]
        return f"| {self.package} | {self.method} | {' | '.join(cells)} |"


def ours(race: Race, name: str, seconds: float) -> list[Row]:
    """One of our solvers. It is recorded where it says it stands, at each of its iterations."""
    solver, options = OURS[name]
    counts: dict[str, int] = {}
    record = run(race, partial(_solve, race, solver, options, counts), seconds)
    trace = record.judged(race)
    return [Row("bilevel", name, trace, counts.get("lower_solves", 0), counts.get("hessian_products", 0))]


def _solve(race: Race, solver: str, options: dict[str, Any], counts: dict[str, int], record: Record) -> None:
    # Events carry the objective, not x: the x belongs to that value of the leader's function.
    seen: dict[float, Any] = {}

    def upper(x: Any, y: Any) -> Any:
        value = race.upper(x, y)
        seen[float(value.detach())] = x.detach()
        return value

    def note(event: Any) -> bool:
        if event.kind != "iteration" or event.data.get("objective") is None:
            return record.spent > record.seconds
        x = seen.get(event.data["objective"])
        if x is None:
            raise LookupError("the solver reports an objective that it never evaluated")
        seen.clear()
        seen[event.data["objective"]] = x
        try:
            record(x)
        except OverError:
            return True
        return False

    problem = bl.TorchProblem(upper, race.lower, race.x, race.zero, x_bounds=race.bounds)
    # The limit is in seconds of the clock and only there for a solver that never comes to an event.
    result = bl.solve(problem, solver, options=options, callbacks=[note], verify=False, time_limit=5.0 * record.seconds)
    counts.update(result.counts)


def peers(folder: Path, name: str, race: str, seconds: float, only: list[str]) -> list[Row]:
    """A peer's rows, run in its own environment."""
    python = python_of(folder / name)
    if not python.exists():
        return skipped(name, f"no environment {name} in the folder of peers")
    done = subprocess.run(
        [python, str(HERE / "outer_peer.py"), name, race, str(seconds), *only],
        capture_output=True,
        text=True,
        timeout=3600,
    )
    rows = [json.loads(part[4:]) for part in done.stdout.splitlines() if part.startswith("ROW ")]
    found = [
        Row(name, r["method"], r.get("trace", []), r.get("solves"), r.get("products"), last_line(r["failed"]))
        if "failed" in r
        else Row(name, r["method"], [(t, value) for t, value in r["trace"]], r["solves"], r["products"])
        for r in rows
    ]
    if done.returncode != 0:
        found.append(Row(name, "ended early", [], failed=last_line(done.stderr)))
    return found


def skipped(name: str, reason: str) -> list[Row]:
    """The row of a peer that did not take part."""
    return [Row(name, "skipped", [], failed=reason)]


def wanted(label: str, only: list[str]) -> bool:
    """Whether a method was asked for: no names, or one that is part of its label."""
    return not only or any(part in label for part in only)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--race", nargs="+", choices=RACES, default=list(RACES))
    parser.add_argument("--seconds", type=float, default=12.0, help="CPU seconds of each method")
    parser.add_argument("--only", nargs="+", default=[], help="methods whose package or name contains one of these")
    parser.add_argument("--peers", type=Path, help="folder with one virtual environment a peer, named like it")
    parser.add_argument(
        "--install-peers",
        nargs="?",
        type=Path,
        const=Path(),
        help="make them first, in this folder or a temporary one",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder: Path | None = options.peers
    reasons: dict[str, str] = {}
    if options.install_peers is not None:
        folder = Path(tempfile.mkdtemp(prefix="peers-")) if options.install_peers == Path() else options.install_peers
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        reasons = {name: install(folder, name) for name in PEERS}
    for name in options.race:
        race = Race(name)
        ours(race, "hypergradient, lbfgs", 0.2)  # what is loaded or compiled at first use is nobody's time
        calls: list[Callable[[], list[Row]]] = [
            partial(ours, race, method, options.seconds) for method in OURS if wanted(f"bilevel {method}", options.only)
        ]
        for peer in PEERS if folder is not None else ():
            if reasons.get(peer):
                calls.append(partial(skipped, peer, reasons[peer]))
            elif folder is not None:
                calls.append(partial(peers, folder, peer, name, options.seconds, options.only))
        rows = [row for call in calls for row in call()]
        best = min((row.best for row in rows), default=math.inf)
        print(f"\n{name}: best F {best:.6f}, {options.seconds:g} s each, torch {torch.__version__}, one thread\n")
        print("| package | method | " + " | ".join(f"s to {gap:g}" for gap in GAPS) + " | best F | solves | products |")
        print("|---|---|---|---|---|---|---|---|")
        for row in rows:
            print(row.text(best), flush=True)


if __name__ == "__main__":
    main()
