"""`bilevel resume`: runs that were cut short, interrupted or killed go on, and end as if they never had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry

from .conftest import HEEDING, Call, Outcome, run

PLUGIN = """
    import os
    import time
    from dataclasses import dataclass
    from typing import Any, ClassVar

    import numpy as np

    from bilevel_core import hookimpl
    from bilevel_core.plugins.specs import ProblemSpec, SolverSpec
    from bilevel_core.problems.base import Problem
    from bilevel_core.result import Claim, Termination, Values
    from bilevel_core.solvers import Accepted, Refused
    from bilevel_core.solvers.iterative import Candidate, IterativeSolver, State, Stop


    class Bowl(Problem):
        form = "bowl"

        def __init__(self, size):
            self.size = size
            self.name = "bowl"


    def build(*, size: int = 3) -> Bowl:
        return Bowl(size)


    class BowlOracle:
        has_upper_rows = False
        is_random = False

        def __init__(self, problem):
            self.counts, self.notes = {}, []
            self.nx = self.ny = problem.size
            self.x_start = np.linspace(1.0, 2.0, self.nx)
            self.x_lower, self.x_upper = np.full(self.nx, -5.0), np.full(self.nx, 5.0)

        def zeros(self):
            return np.zeros(self.ny)

        def memory(self):
            return None

        def restore(self, memory):
            assert memory is None

        def random_start(self, rng):
            return rng.uniform(-5.0, 5.0, self.nx)

        def upper(self, x, y=None):
            return float(np.sum(np.exp(np.sin(x)) + 0.1 * x**2))

        def point(self, x, y):
            return Values({"x": x}), Values({"y": y})

        def objectives(self, x, y):
            return self.upper(x), 0.0


    @dataclass
    class BowlState(State):
        momentum: Any = None
        move: float = 1.0


    @dataclass(frozen=True)
    class Descent(IterativeSolver):
        pause: float = 0.0
        state_types: ClassVar[tuple[type, ...]] = (BowlState,)

        def accepts(self, traits):
            return Accepted("descends", claim="local") if traits.form == "bowl" else Refused("it takes bowls only")

        def make_oracle(self, problem, context):
            return BowlOracle(problem)

        def init(self, oracle, x0, context):
            return BowlState(candidate=Candidate(x0, x0.copy(), oracle.upper(x0)), momentum=np.zeros(oracle.nx))

        def step(self, oracle, state, context):
            time.sleep(self.pause)
            oracle.counts["lower_solves"] = oracle.counts.get("lower_solves", 0) + 1
            x = state.candidate.x
            momentum = 0.7 * state.momentum + np.cos(x) * np.exp(np.sin(x)) + 0.2 * x
            new = x - 0.05 * momentum
            found = Candidate(new, new.copy(), oracle.upper(new), claim=Claim.LOCAL)
            move = float(np.abs(new - x).max())
            return BowlState(candidate=found, momentum=momentum, move=move, figures={"step": move})

        def done(self, state):
            return Stop(Termination.CONVERGED) if state.move < 1e-6 else None


    @hookimpl
    def bilevel_problems():
        return [ProblemSpec("bowl", "bowls_plugin:build")]


    @hookimpl
    def bilevel_solvers():
        return [SolverSpec("descent", "bowls_plugin:Descent")]
"""
SOLVE = ("solve", "bowl", "-s", "descent", "--no-verify", "-o", "starts=2", "--seed", "5")
OFTEN = ("-o", "checkpoint_every=0", "-o", "pause=0.01")


@pytest.fixture
def bowls(plugin: Any) -> None:
    plugin("bowls", PLUGIN)


def timeless(folder: str | Path) -> dict[str, Any]:
    """What a run ended with, but times and the options that say how it was cut short."""
    data = json.loads((Path(folder) / "result.json").read_text())
    data["trace"] = [entry["objective"] for entry in data["trace"]]
    for key in ("wall_time", "options"):
        del data[key]
    return data


@pytest.fixture
def whole(bowls: None, cli: Call) -> dict[str, Any]:
    """What a run that nobody interrupted gives."""
    done = cli(*SOLVE, "--out", "whole", "-f", "json")
    assert done.code == 0, done.err
    return timeless("whole")


def test_what_a_recorded_run_holds(whole: dict[str, Any]) -> None:
    assert whole["termination"] == "converged"
    assert whole["counts"]["iterations"] == whole["counts"]["lower_solves"] > 100
    names = {"run.json", "events.jsonl", "checkpoint", "result.json"}
    assert {p.name for p in Path("whole").iterdir()} == names


def test_killed_and_resumed(whole: dict[str, Any], cli: Call) -> None:
    command = [sys.executable, "-m", "bilevel_cli", *SOLVE, *OFTEN, "--out", "killed"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    events = Path("killed/events.jsonl")
    limit = time.monotonic() + 60.0
    while time.monotonic() < limit and process.poll() is None:
        if events.exists() and events.read_text().count('"iteration"') > 60:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not Path("killed/result.json").exists()
    before = len(events.read_text().splitlines())
    done = run("resume", "killed", "-f", "json")
    assert done.returncode == 0, done.stderr
    assert timeless("killed") == whole
    assert json.loads(done.stdout) == json.loads(Path("killed/result.json").read_text())
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert len(lines) > before
    assert [e["event"] for e in lines].count("start") == 2
    assert "killed" in done.stderr


@pytest.mark.parametrize("out", [True, False])
def test_interrupted_and_resumed(whole: dict[str, Any], cli: Call, out: bool) -> None:
    command = [sys.executable, "-c", HEEDING, *SOLVE, *OFTEN, "-f", "jsonl"]
    command += ["--out", "kept"] if out else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("iteration") == 40:
            break
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert json.loads(printed.splitlines()[-1])["termination"] == "stopped-by-user"
    (folder,) = [Path("kept")] if out else list(Path("runs").iterdir())
    assert str(folder) in said
    stopped = json.loads((folder / "result.json").read_text())
    assert (stopped["claim"], stopped["status"]) == ("feasible", "feasible")
    done = cli("resume", str(folder))
    assert done.code == 0, done.err
    assert timeless(folder) == whole


def test_limits_are_gone_beyond(whole: dict[str, Any], cli: Call) -> None:
    assert cli(*SOLVE, "-o", "max_iterations=30", "--out", "short").code == 4
    again = cli("resume", "short", "--max-iterations", "40", "-f", "json")
    assert again.code == 4
    assert json.loads(again.out)["counts"]["iterations"] == 80
    assert cli("resume", "short", "--time-limit", "0", "--max-iterations", "1000").code == 4
    assert timeless("short")["termination"] == "time-limit"
    assert cli("resume", "short", "--max-iterations", "1000").code == 0
    ended = timeless("short")
    # The second start began before the first one ended, so only the order of incumbents may differ.
    assert ended.pop("trace")[-1] == whole["trace"][-1]
    assert ended == {k: v for k, v in whole.items() if k != "trace"}


def test_nothing_to_resume(whole: dict[str, Any], cli: Call) -> None:
    before = Path("whole/result.json").read_text()
    done = cli("resume", "whole", "-f", "json")
    assert done.code == 0
    assert "nothing to resume" in done.err
    assert json.loads(done.out) == json.loads(before)
    assert Path("whole/result.json").read_text() == before


def test_from_another_folder_and_in_python(whole: dict[str, Any], cli: Call, tmp_path: Path) -> None:
    assert cli(*SOLVE, "-o", "max_iterations=20", "--out", "short").code == 4
    os.mkdir("elsewhere")
    os.chdir("elsewhere")
    done = cli("resume", "../short", "--max-iterations", "21", "--executor", "serial")
    os.chdir("..")
    assert done.code == 4, done.err
    problem = get_registry().problems["bowl"].load()()
    seen: list[bl.Event] = []
    result = bl.resume(problem, "short", max_iterations=1000, callbacks=[seen.append])
    assert result.to_dict()["x"] == whole["x"]
    assert {e.kind for e in seen} >= {"start", "iteration", "end"}
    assert json.loads(Path("short/result.json").read_text()) == result.to_dict()
    first = bl.solve(problem, "descent", {"max_iterations": 5}, out="mine", verify=False)
    assert {p.name for p in Path("mine").iterdir()} == {"run.json", "events.jsonl", "checkpoint", "result.json"}
    more = bl.resume(problem, "mine", max_iterations=9)
    assert (more.counts["iterations"], more.certificate) == (9, None)
    assert more.wall_time > first.wall_time
    times = [json.loads(line)["time"] for line in Path("mine/events.jsonl").read_text().splitlines()]
    assert times == sorted(times)


def said(done: Outcome, *words: str) -> None:
    assert done.code == 2
    assert done.out == ""
    for word in words:
        assert word in done.err


def test_what_cannot_be_resumed(whole: dict[str, Any], cli: Call, model: str) -> None:
    said(cli("resume", "nowhere"), "nowhere")
    assert cli("solve", model, "--out", "exact").code == 0
    Path("exact/result.json").unlink()
    said(cli("resume", "exact"), "'kkt' keeps no checkpoints")
    Path("whole/result.json").unlink()
    said(cli("resume", "whole", "--executor", "proceses:2"), "'processes'")
    good = Path("whole/checkpoint").read_bytes()
    Path("whole/checkpoint").write_bytes(good[:100])
    said(cli("resume", "whole"), "whole/checkpoint", "damaged")
    Path("whole/checkpoint").unlink()
    said(cli("resume", "whole"), "holds no checkpoint")
    Path("whole/checkpoint").write_bytes(good)
    asked = json.loads(Path("whole/run.json").read_text())
    Path("whole/run.json").write_text(json.dumps({**asked, "parameters": {"size": "4"}}))
    said(cli("resume", "whole"), "another problem", "3 upper")
    Path("whole/run.json").write_text(json.dumps({**asked, "name": "other"}))
    said(cli("resume", "whole"), "'other'", "'bowl'")
    Path("whole/run.json").write_text(json.dumps({k: v for k, v in asked.items() if k != "solver"}))
    said(cli("resume", "whole"), "solver", "run.json")


def test_progress_shows_the_figures(bowls: None, cli: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bilevel_cli.progress.EVERY", 0.0)
    lines = cli(*SOLVE, "--progress", "log").err.splitlines()
    line = next(text for text in lines if "start 1" in text and "iteration 3 " in text)
    for word in ("best ", "now ", "step "):
        assert word in line
