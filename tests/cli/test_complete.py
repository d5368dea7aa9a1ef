"""The tab key: names from the registry, files that hold problems, folders that hold runs; nothing heavy is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bilevel_cli import complete


def offered(*words: str) -> list[str]:
    """What a shell is told for the last word of a line."""
    shell = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1), "_BILEVEL_COMPLETE": "complete_bash"}
    code = (
        "import sys; from bilevel_cli.__main__ import main\n"
        "try: main()\n"
        "finally: print(*{'torch', 'pyomo', 'cvxpy', 'scipy'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **shell}
    )
    assert not done.stderr.strip(), done.stderr
    return done.stdout.split()


def test_a_shell_completes_commands_and_names(tmp_path: Path) -> None:
    assert "solve" in offered("bilevel", "so")
    assert "classic/bard-511" in offered("bilevel", "solve", "classic/bard-5")
    assert "kkt" in offered("bilevel", "solve", "x", "-s", "k")


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "run.json").write_text("{}")
    (tmp_path / "model.py").touch()
    (tmp_path / "notes.txt").touch()
    assert complete.problem("mod") == ["model.py"]
    assert complete.problem("not") == []
    assert complete.problem("ru") == ["runs/"]
    assert complete.problem("nowhere/x") == []
    assert complete.run("") == ["runs/one"]
    assert complete.run("runs/o") == ["runs/one"]
    assert complete.solver("au") == ["auto", "auxiliary"]
    assert "auto" not in complete.registered_solver("")
    assert complete.registered_problem("trap/small") == ["trap/small-bound"]
    assert complete.figure("va") == ["value"]
    assert complete.form("json") == ["json", "jsonl"]
    assert "processes" in complete.executor("")
    assert complete.plugin("tol") == ["toll"]
