"""Listings, `doctor`, help and version; broken plugins are named and cost only themselves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bilevel_core

from .conftest import HEEDING, MODEL, Call, run

HEAVY = ("torch", "cvxpy", "pyomo", "scipy", "numpy", "highspy", "pyscipopt", "casadi")

GOOD = """
from bilevel_core import KnownOptimum, ProblemSpec, hookimpl
from bilevel_core.plugins.specs import BackendSpec, CommandSpec, DoctorSpec
import typer

@hookimpl
def bilevel_problems():
    known = KnownOptimum(-12.0, "a book of 1998")
    return [
        ProblemSpec("good/one", "good_plugin:one", "the first", known=known, tags=frozenset({"LP-LP"})),
        ProblemSpec("good/two", "good_plugin:one", "the second", known=KnownOptimum(None, "a proof", "infeasible"),
                    needs="branch-and-cut"),
    ]

def one(*, size: int = 3, rate: float):
    '''A problem of this size.

    Args:
        size: how many things there are.
        rate: how fast they come.
    '''

@hookimpl
def bilevel_commands():
    return [CommandSpec("good", "good_more:app", "tools of the good plugin"),
            CommandSpec("absent", "no_such_module_of_good:app", "cannot be imported", install="pip install absent")]

@hookimpl
def bilevel_backends():
    return [BackendSpec("crash", "good_plugin:Crash", "breaks in its own way"),
            BackendSpec("gone", "no_such_module_of_good:Gone", "is not there", install="pip install gone")]

class Crash:
    def available(self):
        raise ZeroDivisionError("by itself")

@hookimpl
def bilevel_doctor():
    return [DoctorSpec("licence", "good_plugin:licence", "the licence")]

def licence():
    return True, "valid until forever"
"""

MORE = """
import typer
app = typer.Typer()

@app.command()
def greet(name: str):
    print(f"hello {name}")

@app.command()
def other():
    pass
"""


@pytest.fixture
def good(plugin: Any, tmp_path: Path) -> None:
    plugin("good", GOOD)
    (tmp_path / "site-good" / "good_more.py").write_text(MORE)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from bilevel_cli.__main__ import main\n"
        "sys.argv = ['bilevel', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n"
        f"    loaded = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "    print(loaded, end.code or 0, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.splitlines()[-1] == "[] 0"
    for command in (
        "solve",
        "resume",
        "compare",
        "bench",
        "verify",
        "show",
        "problems",
        "solvers",
        "backends",
        "plugins",
        "doctor",
    ):
        assert command in done.stdout


def test_version(cli: Call) -> None:
    assert cli("--version").out == f"bilevel {bilevel_core.__version__}\n"


def test_completion_can_be_installed(cli: Call) -> None:
    assert "--install-completion" in cli("--help").out


@pytest.mark.parametrize("arguments", [["slove"], ["solve"], ["--wrong"], ["solve", "x", "--wrong"], ["show"]])
def test_wrong_calls_exit_2(cli: Call, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err


def test_a_mistyped_command_is_corrected(cli: Call) -> None:
    assert "solve" in cli("slove").err


def test_problems(cli: Call, good: None) -> None:
    text = cli("problems")
    assert text.code == 0
    one, two = (next(line for line in text.out.splitlines() if name in line) for name in ("good/one", "good/two"))
    assert "LP-LP" in one
    assert "-12" in one
    assert "branch-and-cut" in two
    assert "infeasible" in two
    entries = {e["name"]: e for e in json.loads(cli("problems", "-f", "json").out)}
    assert entries["good/two"]["needs"] == "branch-and-cut"


def test_one_problem(cli: Call, good: None) -> None:
    text = cli("problems", "good/one").out
    for word in ("size", "int", "3", "how many things", "rate", "float", "required", "a book of 1998", "-12"):
        assert word in text
    data = json.loads(cli("problems", "good/one", "-f", "json").out)
    assert [p["name"] for p in data["parameters"]] == ["size", "rate"]
    wrong = cli("problems", "good/won")
    assert wrong.code == 2
    assert "good/one" in wrong.err


def test_solvers(cli: Call) -> None:
    assert "kkt" in cli("solvers").out
    text = cli("solvers", "kkt").out
    for word in (
        "complementarity",
        "sos1|indicator|bigm|strong-duality|relaxed|penalised",
        "gap",
        "1e-06",
        "multiplier_bound",
    ):
        assert word in text
    data = json.loads(cli("solvers", "kkt", "-f", "json").out)
    assert {"complementarity", "backend", "gap"} <= {o["name"] for o in data["options"]}
    assert all(o["help"] for o in data["options"])
    assert cli("solvers", "kk").code == 2


def test_backends_are_tried_and_a_broken_one_costs_only_itself(cli: Call, good: None) -> None:
    done = cli("backends", "-f", "json")
    assert done.code == 0
    text = json.dumps(json.loads(done.out))
    for name in ("highs", "scip", "ipopt", "crash", "gone"):
        assert name in text
    assert "by itself" in text
    assert "pip install gone" in text


def test_doctor(cli: Call, good: None) -> None:
    done = cli("doctor")
    for word in ("python", "highspy", "scip", "ipopt", "valid until forever", "good", "by itself"):
        assert word in done.out
    data = json.loads(cli("doctor", "-f", "json").out)
    assert isinstance(data, dict)


def test_commands_of_plugins(cli: Call, good: None) -> None:
    sys.modules.pop("good_more", None)
    helped = cli("--help")
    assert "tools of the good plugin" in helped.out
    assert "good_more" not in sys.modules, "listing a command must not import it"
    assert cli("good", "greet", "world").out == "hello world\n"
    absent = cli("absent", "x")
    assert absent.code == 6
    assert "pip install absent" in absent.err


def test_hooks(cli: Call) -> None:
    text = cli("plugins", "hooks").out
    assert "bilevel_solve_end(run, result)" in text
    assert "bilevel_problems()" in text
    assert len(json.loads(cli("plugins", "hooks", "-f", "json").out)) == 16


BROKEN = {
    "unloadable": ("raise ImportError('no such luck')", "no such luck"),
    "wronghook": (
        "from bilevel_core import hookimpl\n@hookimpl\ndef bilevel_iteration(event, extra):\n    pass\n",
        "extra",
    ),
    "raising": (
        "from bilevel_core import hookimpl\n@hookimpl\ndef bilevel_problems():\n    raise ValueError('bad day')\n",
        "bad day",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_named_and_all_else_works(cli: Call, plugin: Any, model: str, name: str) -> None:
    code, word = BROKEN[name]
    plugin(name, code)
    listed = run("plugins", "list")
    assert listed.returncode == 0
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith(name)]
    assert "broken" in line
    assert word in line
    for arguments in (["plugins", "list"], ["problems"], ["solve", model, "-f", "json"]):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(repr(name)) == 1, "named once on stderr"
    assert json.loads(done.stdout)["status"] == "optimal"
    entries = {e["name"]: e for e in json.loads(cli("plugins", "list", "-f", "json").out)}
    assert entries[name]["status"] == "broken"
    assert entries["builtin"]["status"] == "active"


def test_an_observer_that_raises_is_named_after_the_solve(plugin: Any, model: str) -> None:
    plugin(
        "observer",
        "from bilevel_core import hookimpl\n@hookimpl\n"
        "def bilevel_solve_start(run):\n    raise ValueError('not today')\n",
    )
    done = run("solve", model, "-f", "json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["status"] == "optimal"
    assert done.stderr.count("not today") == 1


def test_piped_text_has_no_boxes_colours_or_cut_lines(model: str) -> None:
    environment = {**os.environ, "COLUMNS": "20"}
    for arguments in (["problems"], ["solve", model], ["plugins", "hooks"]):
        text = run(*arguments, env=environment).stdout
        assert "\x1b" not in text
        assert not any(c in text for c in "│─┌╭…")
    assert "bilevel_solve_end(run, result)" in text


def test_a_reader_that_leaves_is_no_fault() -> None:
    command = [sys.executable, "-m", "bilevel_cli", "plugins", "hooks"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        process.wait(timeout=60)
    assert errors == ""


def test_an_interrupt_while_a_file_runs(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import sys, time\nprint('ready', file=sys.stderr, flush=True)\ntime.sleep(60)\n" + MODEL
    )
    command = [sys.executable, "-c", HEEDING, "solve", "slow.py"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "ready" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
