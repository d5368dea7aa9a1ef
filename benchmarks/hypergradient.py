"""Error and time of one hypergradient, ours in every mode and other packages': see README.md.

python benchmarks/hypergradient.py [--peers DIR | --install-peers [DIR]] [--steps K ...] [--condition mild ill]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ridge import CONDITIONS, Ridge, measure

import bilevel_core as bl

HERE = Path(__file__).parent
# How each peer is installed. All without its dependencies, which would replace torch or clash with its version.
PEERS: dict[str, list[str]] = {
    "torchopt": ["torchopt", "optree", "graphviz", "typing-extensions"],
    "betty": ["betty-ml"],
    "higher": ["higher"],
    "hypergrad": ["hypergrad"],
    "boat": ["boat-torch", "higher"],
    # The hypertorch of the package index is another package.
    "hypertorch": ["hypergrad @ git+https://github.com/prolearner/hypertorch"],
}


def our_rows(p: Ridge, steps: list[int]) -> Iterator[tuple[str, int | None, Callable[[], Any]]]:
    """Every mode, through the public function; y is the exact answer unless said."""
    problem = bl.TorchProblem(p.upper, p.lower, p.x, p.zero)

    def value(y: Any, mode: str, **options: Any) -> Any:
        return torch.as_tensor(bl.hypergradient(problem, p.x, y, mode=mode, **options).value)

    for k in steps:
        for mode in ("cg", "minres", "fixed-point"):
            yield mode, k, partial(value, p.y, mode, max_iterations=k, tolerance=0.0)
        rank = min(k, len(p.y)) // 2
        nystrom = partial(value, p.y, "nystrom", rank=rank, max_iterations=k - rank, tolerance=0.0)
        yield f"nystrom, rank {rank} + {k - rank} of cg", k, nystrom
        yield "neumann", k, partial(value, p.y, "neumann", steps=k, tolerance=0.0)
        yield "unroll, from the answer", k, partial(value, p.y, "unroll", steps=k)
        yield "unroll, from zero", k, partial(value, p.zero, "unroll", steps=k)
    yield "dense", None, partial(value, p.y, "dense")
    yield "finite-difference", None, partial(value, p.y, "finite-difference")
    yield "first-order", None, partial(value, p.y, "first-order")


def line(package: str, method: str, k: int | None, rest: str) -> str:
    return f"| {package} | {method} | {'-' if k is None else k} | {rest} |"


def figures(error: float, ms: float) -> str:
    return f"{error:.1e} | {ms:.1f}"


def install(folder: Path, name: str) -> str:
    """Make the peer's environment; the reason why not, if it can't be had.

    It sees this environment's torch and NumPy through a .pth file, so that all rows come from one build of torch.
    """
    target = folder / name
    if python_of(target).exists():
        return ""
    venv.create(target, with_pip=True)
    python = python_of(target)
    asked = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    )
    shared = {str(Path(module.__file__ or "").parent.parent) for module in (torch, np)}
    (Path(asked.stdout.strip()) / "shared.pth").write_text("\n".join(sorted(shared)) + "\n")
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-deps", "--ignore-requires-python", *PEERS[name]],
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        return ""
    shutil.rmtree(target)
    return f"not installable: {last_line(done.stderr)}"


def python_of(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def last_line(text: str) -> str:
    lines = [part for part in text.strip().splitlines() if part.strip() and not part.startswith("[notice]")]
    for start in ("fatal", "×", "error"):
        if found := [part for part in lines if part.strip().lower().startswith(start)]:
            lines = found[:1]
            break
    return (lines or ["no output"])[-1].strip().replace("|", "/")[:160]


def peer_rows(folder: Path, name: str, condition: str, steps: list[int]) -> Iterator[str]:
    python = python_of(folder / name)
    if not python.exists():
        yield line(name, "skipped", None, f"no environment {name} in the folder of peers |")
        return
    done = subprocess.run(
        [python, str(HERE / "hypergradient_peer.py"), name, condition, *map(str, steps)],
        capture_output=True,
        text=True,
        timeout=900,
    )
    rows = [json.loads(part[4:]) for part in done.stdout.splitlines() if part.startswith("ROW ")]
    for row in rows:
        failed = row.get("failed", "")
        rest = f"{last_line(failed)} |" if failed else figures(row["error"], row["ms"])
        yield line(name, row["method"], row["K"], rest)
    if done.returncode != 0 or not rows:
        yield line(name, "skipped", None, f"{last_line(done.stderr)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--condition", nargs="+", choices=sorted(CONDITIONS), default=list(CONDITIONS))
    parser.add_argument("--steps", nargs="+", type=int, default=[10, 50, 100], metavar="K")
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
        for name in PEERS:
            reasons[name] = install(folder, name)
    for condition in options.condition:
        problem = Ridge(condition)
        print(f"\nCondition {condition}: {problem.condition:.3g}, torch {torch.__version__}, one thread\n")
        print("| package | method | K | relative error | ms |\n|---|---|---|---|---|")
        for method, k, call in our_rows(problem, options.steps):
            print(line("bilevel", method, k, figures(*measure(problem, call))), flush=True)
        for name in PEERS if folder is not None else ():
            if reasons.get(name):
                print(line(name, "skipped", None, f"{reasons[name]} |"))
                continue
            for text in peer_rows(folder, name, condition, options.steps) if folder is not None else ():
                print(text, flush=True)


if __name__ == "__main__":
    main()
