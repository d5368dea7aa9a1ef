"""`bilevel solve`: streams, formats, problems by file, exit codes, and the record of the run."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bilevel_core.result import Result

from .conftest import MODEL, Call, run

SCHEMA = json.loads(files("bilevel_core").joinpath("result.schema.json").read_text())

STUB = """
import dataclasses
import numpy as np
from bilevel_core import hookimpl, Accepted, Claim, Result, Solver, Termination
from bilevel_core.plugins.specs import ReporterSpec, SolverSpec
from bilevel_core.result import Values

@hookimpl
def bilevel_solvers():
    return [SolverSpec("stub", "stub_plugin:Stub", "ends as it is told")]

@hookimpl
def bilevel_reporters():
    return [ReporterSpec("shout", "stub_plugin:shout", "the status, loudly")]

def shout(result):
    return result.status.value.upper() + "!"

@dataclasses.dataclass(frozen=True)
class Stub(Solver):
    end: str = "converged"
    x: float | None = 4.0
    y: float = 4.0
    iterations: int = 0

    def accepts(self, traits):
        return Accepted("a point as given", "feasible")

    def run(self, problem, context):
        print("chatter")
        if self.end == "raise":
            raise RuntimeError("the stub broke")
        if self.end == "interrupt":
            raise KeyboardInterrupt
        end = Termination(self.end)
        if self.x is None:
            return Result(end)
        context.report("incumbent", objective=self.x - 4 * self.y, bound=None)
        for k in range(self.iterations):
            context.report("iteration", objective=None, bound=-20.0, nodes=k)
        x, y = Values(x=np.array(self.x)), Values({"follower.y": np.array(self.y)})
        return Result(end, Claim.GLOBAL, x=x, y=y, upper_objective=self.x - 4 * self.y, lower_objective=self.y)
"""


def test_text(cli: Call, model: str) -> None:
    done = cli("solve", model)
    assert done.code == 0
    assert done.out.startswith("optimal: ")
    assert "-12" in done.out
    assert "verified" in done.out


def test_json_is_one_object_of_the_schema(cli: Call, model: str) -> None:
    done = cli("solve", model, "-f", "json")
    assert done.code == 0
    data = json.loads(done.out)
    jsonschema.validate(data, SCHEMA)
    assert data["status"] == "optimal"
    assert data["upper_objective"] == pytest.approx(-12.0)
    assert data["problem"] == "small"
    assert Result.from_json(done.out).certificate is not None


def test_jsonl_is_events_then_the_result(cli: Call, model: str) -> None:
    lines = [json.loads(line) for line in cli("solve", model, "-f", "jsonl").out.splitlines()]
    *events, result = lines
    assert [events[0]["event"], events[-1]["event"]] == ["start", "end"]
    assert all(isinstance(e["time"], float) for e in events)
    jsonschema.validate(result, SCHEMA)


def test_a_library_problem_in_a_process_of_its_own() -> None:
    done = run("solve", "classic/bard-511", "-f", "json")
    assert done.returncode == 0, done.stderr
    jsonschema.validate(json.loads(done.stdout), SCHEMA)
    assert json.loads(done.stdout)["status"] == "optimal"


def test_parameters_options_and_seed_arrive(cli: Call, model: str) -> None:
    data = json.loads(
        cli(
            "solve", model, "-p", "cap=9", "-p", "name=tight", "-o", "complementarity=bigm", "--seed", "7", "-f", "json"
        ).out
    )
    assert data["problem"] == "tight"
    assert data["options"]["complementarity"] == "bigm"
    assert data["seed"] == 7
    assert data["upper_objective"] > -12.0


def test_no_verify_leaves_the_check_out(cli: Call, model: str) -> None:
    done = cli("solve", model, "--no-verify", "-f", "json")
    assert done.code == 0
    assert json.loads(done.out)["certificate"] is None
    assert json.loads(done.out)["status"] == "feasible"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], ["nonsense", "Did you mean"]),
        (["classic/bard-51"], ["classic/bard-511"]),
        (["smal.py"], ["smal.py", "small.py"]),
        (["no_such_module_here:thing"], ["no_such_module_here"]),
        (["small.py:biuld"], ["biuld"]),
        (["small.py", "-p", "cap"], ["-p", "KEY=VALUE", "cap"]),
        (["small.py", "-p", "=3"], ["-p", "KEY=VALUE"]),
        (["small.py", "-p", "cap=1", "-p", "cap=2"], ["cap", "twice"]),
        (["small.py", "-p", "cup=1"], ["cup", "cap"]),
        (["small.py", "-p", "cap=high"], ["cap", "high"]),
        (["small.py", "-o", "gpa=1"], ["gpa", "gap"]),
        (["small.py", "-s", "kkkt"], ["kkkt", "kkt"]),
        (["small.py", "--time-limit", "-1"], ["time limit", "-1"]),
        (["small.py", "--seed", "x"], ["--seed", "integer"]),
        (["small.py", "-f", "jsn"], ["jsn", "json"]),
        (["small.py", "--progress", "loud"], ["loud"]),
        (["small.py", "--device", "cuda:0"], ["cuda:0", "CPU"]),
        (["small.py", "--executor", "procceses"], ["procceses", "processes"]),
        (["data.xyz"], ["data.xyz", ".py"]),
    ],
)
def test_wrong_input_exits_2_and_says_what(cli: Call, model: str, arguments: list[str], words: list[str]) -> None:
    Path("data.xyz").write_text("")
    done = cli("solve", *arguments)
    assert done.code == 2
    assert done.out == ""
    for word in words:
        assert word in done.err


FILES = [
    (MODEL.replace("def build", "def model"), "small"),
    (MODEL + "\nproblem = build(name='chosen')\n", "chosen"),
    (MODEL + "\nmodel = build(name='inner').model\n", "inner"),
    (MODEL.replace("def build", "def _make") + "\nanything = _make(name='only')\n", "only"),
    (MODEL.replace("def build", "def _make") + "\nmodel = 'a word'\nanything = _make(name='only')\n", "only"),
]


@pytest.mark.parametrize(("code", "name"), FILES)
def test_what_is_found_in_a_file(cli: Call, tmp_path: Path, code: str, name: str) -> None:
    (tmp_path / "mine.py").write_text(code)
    done = cli("solve", "mine.py", "-f", "json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["problem"] == name


def test_an_attribute_of_a_file_and_of_a_module(cli: Call, model: str) -> None:
    Path("my_module.py").write_text(MODEL.replace("def build", "def other"))
    for reference in ("my_module.py:other", "my_module:other"):
        done = cli("solve", reference, "-p", "name=asked", "-f", "json")
        assert done.code == 0, done.err
        assert json.loads(done.out)["problem"] == "asked"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x = 1\n", ["problem", "model", "build"]),
        ("a = 1\nb = 1 / 0\n", ["bad.py:2", "ZeroDivisionError"]),
        ("a = 1\nimport no_such_package_at_all\n", ["bad.py:2", "no_such_package_at_all"]),
        ("a = (\n", ["bad.py:1", "SyntaxError"]),
        ("a = 1\nraise SystemExit(0)\n", ["bad.py:2", "SystemExit"]),
        ("def build():\n    return {}['key']\n", ["bad.py:2", "KeyError"]),
        (MODEL.replace("def build", "def _make") + "\na = _make()\nb = _make()\n", ["several", "a", "b"]),
        ("def build():\n    return 3\n", ["int"]),
    ],
)
def test_a_file_without_a_problem_or_with_a_fault(cli: Call, code: str, words: list[str]) -> None:
    Path("bad.py").write_text(code)
    done = cli("solve", "bad.py")
    assert done.code == 2
    assert done.out == ""
    for word in words:
        assert word in done.err


def test_what_a_users_file_prints_is_no_result(cli: Call) -> None:
    Path("noisy.py").write_text("print('hello')\n" + MODEL)
    done = cli("solve", "noisy.py", "-f", "json")
    assert json.loads(done.out)["status"] == "optimal"
    assert "hello" in done.err


@pytest.mark.parametrize(
    ("options", "code", "status"),
    [
        ([], 0, "optimal"),
        (["end=time-limit"], 4, "optimal"),
        (["end=iteration-limit"], 4, "optimal"),
        (["end=time-limit", "x=none"], 3, "no-solution"),
        (["end=infeasible", "x=none"], 3, "infeasible"),
        (["end=unbounded", "x=none"], 3, "unbounded"),
        (["end=lower-unbounded", "x=none"], 3, "no-solution"),
        (["x=5"], 5, "refuted"),
        (["x=5", "end=time-limit"], 5, "refuted"),
        (["end=stopped-by-user"], 130, "optimal"),
        (["end=stopped-by-user", "x=none"], 130, "no-solution"),
        (["end=interrupt"], 130, "no-solution"),
        (["end=error", "x=none"], 1, "error"),
    ],
)
def test_exit_codes(cli: Call, model: str, plugin: Any, options: list[str], code: int, status: str) -> None:
    plugin("stub", STUB)
    done = cli("solve", model, "-s", "stub", *[part for o in options for part in ("-o", o)], "-f", "json")
    assert (done.code, json.loads(done.out)["status"]) == (code, status), done.err


def test_a_refuted_point_passes_without_the_check(cli: Call, model: str, plugin: Any) -> None:
    plugin("stub", STUB)
    assert cli("solve", model, "-s", "stub", "-o", "x=5", "--no-verify").code == 0


def test_unexpected_errors(cli: Call, model: str, plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin("stub", STUB)
    arguments = ("solve", model, "-s", "stub", "-o", "end=raise")
    done = cli(*arguments)
    assert done.code == 1
    assert done.out == ""
    assert "RuntimeError" in done.err
    assert "the stub broke" in done.err
    assert "Traceback" not in done.err
    assert "Traceback" in cli("--debug", *arguments).err
    monkeypatch.setenv("BILEVEL_DEBUG", "1")
    loud = cli(*arguments)
    assert "Traceback" in loud.err
    assert loud.code == 1


def test_debugging_keeps_the_exit_code(cli: Call) -> None:
    done = cli("--debug", "solve", "nonsense")
    assert done.code == 2
    assert "Traceback" in done.err


@pytest.mark.parametrize("end", ["stopped-by-user", "time-limit"])
def test_a_run_that_was_cut_short_is_saved(cli: Call, model: str, plugin: Any, end: str) -> None:
    plugin("stub", STUB)
    done = cli("solve", model, "-s", "stub", "-o", f"end={end}", "-o", "iterations=5")
    (folder,) = Path("runs").iterdir()
    assert str(folder) in done.err
    assert Result.from_json((folder / "result.json").read_text()).upper_objective == -12.0
    assert "incumbent" in (folder / "events.jsonl").read_text()


def test_a_finished_run_writes_nothing_unasked(cli: Call, model: str) -> None:
    cli("solve", model)
    assert {p.name for p in Path().iterdir()} <= {model, "__pycache__"}


def test_a_format_of_a_plugin(cli: Call, model: str, plugin: Any) -> None:
    plugin("stub", STUB)
    assert cli("solve", model, "-f", "shout").out == "OPTIMAL!\n"


def test_progress_goes_to_stderr(cli: Call, model: str) -> None:
    silent = cli("solve", model, "--progress", "none")
    assert "checking the point" not in silent.out + silent.err
    log = cli("solve", model, "--progress", "log")
    assert "checking the point" in log.err
    assert "checking the point" not in log.out
    assert "\r" in cli("solve", model, "--progress", "bar").err


def test_progress_of_a_global_search(cli: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bilevel_cli.progress.EVERY", 0.0)
    lines = cli("solve", "basblib/mb_2007_14", "-s", "global", "--progress", "log", "--no-verify").err.splitlines()
    found = next(text for text in lines if text.endswith("*"))
    assert found.count("best ") == 1
    for line in (found, next(text for text in lines if "iteration " in text and "best " in text)):
        for word in ("bound ", "gap ", "cuts ", "solves "):
            assert word in line


def test_explain_solves_nothing(cli: Call, model: str) -> None:
    done = cli("solve", model, "--explain", "-o", "complementarity=bigm")
    assert done.code == 0
    for word in ("linear leader over LP", "kkt", "bigm", "HiGHS"):
        assert word in done.out
    assert "-12" not in done.out
    data = json.loads(cli("solve", model, "--explain", "-f", "json").out)
    assert data["chosen"] == "kkt"


def test_explain_says_why_no_solver_takes_it(cli: Call) -> None:
    # An integer follower, and a function that no global backend knows.
    text = MODEL.replace(
        "m.follower.y = pyo.Var(domain=pyo.NonNegativeReals)", "m.follower.y = pyo.Var(domain=pyo.Integers)"
    )
    Path("integer.py").write_text(text.replace("pyo.Objective(expr=y)", "pyo.Objective(expr=pyo.sinh(y))"))
    done = cli("solve", "integer.py", "--explain")
    assert done.code == 2
    assert "integer" in done.out
    solved = cli("solve", "integer.py")
    assert solved.code == 2
    assert "integer" in solved.err
