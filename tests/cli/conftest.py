"""What the tests of the command line share: a way to call it, a small model, and fake plugins."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bilevel_cli.__main__ import main
from bilevel_core.plugins.registry import get_registry

MODEL = """
import pyomo.environ as pyo
import bilevel_core as bl

def build(*, cap: float = 12.0, name: str = "small"):
    m = pyo.ConcreteModel(name=name)
    m.x = pyo.Var(domain=pyo.NonNegativeReals)
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(domain=pyo.NonNegativeReals)
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=x - 4 * y)
    m.follower.objective = pyo.Objective(expr=y)
    m.follower.rows = pyo.ConstraintList()
    for row in (x + y >= 3, y <= 2 * x, 2 * x + y <= cap, 3 * x - 2 * y <= 4):
        m.follower.rows.add(row)
    return bl.PyomoProblem(m)
"""
"""Bard, Practical Bilevel Optimization (1998), example 5.1.1: optimum -12 at (4, 4)."""


@dataclass(frozen=True)
class Outcome:
    """What a call printed and returned."""

    code: int
    out: str
    err: str


Call = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works in an empty folder, with no settings from outside."""
    for name in [n for n in os.environ if n.startswith("BILEVEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call the command in this process."""

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["bilevel", *arguments])
        try:
            main()
            code: Any = 0
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        return Outcome(0 if code is None else int(code), printed.out, printed.err)

    return call


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A Python file with a problem."""
    (tmp_path / "small.py").write_text(MODEL)
    return "small.py"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a fake distribution, for this process and for those started from it."""
    modules: list[str] = []

    def install(dist: str, code: str) -> None:
        site = tmp_path / f"site-{dist}"
        info = site / f"{dist}-1.0.dist-info"
        info.mkdir(parents=True)
        module = f"{dist}_plugin"
        (site / f"{module}.py").write_text(textwrap.dedent(code))
        (info / "entry_points.txt").write_text(f"[bilevel]\n{dist} = {module}\n")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0\n")
        monkeypatch.syspath_prepend(str(site))
        before = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *([before] if before else [])]))
        modules.append(module)
        get_registry(fresh=True)

    yield install
    monkeypatch.undo()
    for module in modules:
        sys.modules.pop(module, None)
    get_registry(fresh=True)


def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Call the command in a process of its own, with real streams."""
    command = [sys.executable, "-m", "bilevel_cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **more)


HEEDING = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('bilevel_cli', run_name='__main__', alter_sys=True)"
)
"""What `python -c` runs for a command that is to be interrupted: whoever starts the tests in the background has their
children ignore interrupts.
"""
