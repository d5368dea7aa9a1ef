"""The peers of algebraic.py: their environments, and one process for each."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bilevel_problems.tables import basblib, bolib

HERE = Path(__file__).resolve().parent
PEERS = {
    "pao": ["pao==1.0.2", "numpy<2", "pyomo<6.8", "highspy", "pyutilib"],
    "discopt": ["discopt"],
    "discopt-kkt": ["discopt"],
}
"""What is installed for each; an environment is called by its peer's name up to the first dash.

pao is of 2021: it needs an older NumPy and Pyomo, and pyutilib, which it does not declare. blvpy 0.5 is missing: it
needs Python 3.12 and, through cyipopt, Ipopt's headers on the system, so that it is not to be had by pip alone.
"""


def python_of(folder: Path, peer: str) -> Path:
    return folder / peer.partition("-")[0] / ("Scripts" if os.name == "nt" else "bin") / "python"


def install(folder: Path, peer: str) -> str:
    """Make the peer's environment; "" or the reason why that failed."""
    commands = [
        [sys.executable, "-m", "venv", str(python_of(folder, peer).parents[1])],
        [str(python_of(folder, peer)), "-m", "pip", "install", "-q", *PEERS[peer]],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"not installed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}"
    return ""


def run_peer(
    peer: str, folder: Path | None, wanted: bool, names: list[str], limit: float
) -> tuple[list[dict[str, Any]], str]:
    """The peer's rows, and "" or the reason why there are none."""
    if folder is None:
        return [], "no environment (--install-peers FOLDER)"
    if not python_of(folder, peer).exists():
        reason = install(folder, peer) if wanted else f"no environment in {folder.name}"
        if reason:
            return [], reason
    check = [str(python_of(folder, peer)), "-c", f"import {peer.partition('-')[0]}"]
    if subprocess.run(check, capture_output=True, check=False).returncode:
        return [], "installed, but it cannot be imported"
    rows: list[dict[str, Any]] = []
    left = list(names)
    while left:
        # A solver that hangs or crashes takes its process along: the rest goes on in a new one.
        more, why = _some_rows(peer, folder, left, limit)
        rows += more
        done = {row["problem"] for row in more}
        left = [n for n in left if n not in done]
        if why:
            rows.append({"problem": left.pop(0), "failed": why})
    return rows, ""


def _some_rows(peer: str, folder: Path, names: list[str], limit: float) -> tuple[list[dict[str, Any]], str]:
    command = [str(python_of(folder, peer)), str(HERE / "algebraic_peer.py"), peer, str(limit)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "problems")}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    assert process.stdin is not None
    assert process.stdout is not None
    tables = {c.name: c.statements for c in (basblib, bolib)}
    for name in names:
        collection, _, entry = name.partition("/")
        fields = dataclasses.asdict(tables[collection][entry]) | {"name": name}
        process.stdin.write(json.dumps(fields) + "\n")
    process.stdin.close()
    rows = [json.loads(text[4:]) for text in process.stdout if text.startswith("ROW ")]
    code = process.wait()
    return rows, "" if len(rows) == len(names) else f"its process ended with code {code}"
