"""Records of runs on disk, `bilevel verify` and `bilevel show`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bilevel_core.result import Result

from .conftest import Call


@pytest.fixture
def recorded(cli: Call, model: str) -> str:
    assert cli("solve", model, "--out", "run", "-p", "cap=12", "-o", "gap=1e-5", "--seed", "3", "-f", "json").code == 0
    return "run"


def test_what_a_record_holds(cli: Call, model: str) -> None:
    done = cli("solve", model, "--out", "run", "-p", "cap=12", "-o", "gap=1e-5", "--seed", "3", "-f", "json")
    folder = Path("run")
    assert {p.name for p in folder.iterdir()} == {"run.json", "events.jsonl", "result.json"}
    asked = json.loads((folder / "run.json").read_text())
    assert asked["schema"] == "bilevel.run/1"
    text = json.dumps(asked)
    for word in ("small.py", '"cap": "12"', '"gap": "1e-5"', '"seed": 3'):
        assert word in text
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["start", "end"]
    assert json.loads((folder / "result.json").read_text()) == json.loads(done.out)
    assert "run" in done.err


def test_files_are_as_readable_as_others(recorded: str) -> None:
    Path("plain").write_text("")
    modes = {(Path(recorded) / n).stat().st_mode for n in ("run.json", "events.jsonl", "result.json")}
    assert modes == {Path("plain").stat().st_mode}


def test_a_run_may_be_repeated_in_its_folder(cli: Call, model: str, recorded: str) -> None:
    assert cli("solve", model, "--out", recorded, "-p", "cap=9").code == 0
    stored = Result.from_json((Path(recorded) / "result.json").read_text())
    assert stored.upper_objective != pytest.approx(-12.0)
    starts = (Path(recorded) / "events.jsonl").read_text().count('"event": "start"')
    assert starts == 1


def test_other_peoples_folders_are_left_alone(cli: Call, model: str) -> None:
    Path("work").mkdir()
    Path("work/thesis.tex").write_text("precious")
    done = cli("solve", model, "--out", "work")
    assert done.code == 2
    assert "work" in done.err
    assert [p.name for p in Path("work").iterdir()] == ["thesis.tex"]
    assert cli("solve", model, "--out", model).code == 2
    assert cli("solve", model, "--out", f"{model}/below").code == 2


def test_show_prints_the_stored_result(cli: Call, recorded: str) -> None:
    assert cli("show", recorded).out.startswith("optimal: ")
    data = json.loads(cli("show", recorded, "-f", "json").out)
    assert data == json.loads((Path(recorded) / "result.json").read_text())


def test_verify_checks_it_again(cli: Call, recorded: str) -> None:
    done = cli("verify", recorded)
    assert done.code == 0
    assert "verified" in done.out
    assert json.loads(cli("verify", recorded, "-f", "json").out)["verdict"] == "verified"


def test_verify_from_another_folder(cli: Call, recorded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = cli("verify", f"../{recorded}")
    assert done.code == 0, done.err
    assert Path.cwd() == tmp_path / "elsewhere"


def test_verify_refutes_a_point_that_was_tampered_with(cli: Call, recorded: str) -> None:
    path = Path(recorded) / "result.json"
    data = json.loads(path.read_text())
    (name,) = data["x"]
    data["x"][name] = 3.0
    path.write_text(json.dumps(data))
    done = cli("verify", recorded)
    assert done.code == 5
    assert "refuted" in done.out


@pytest.mark.parametrize(("y", "code"), [(4.0, 0), (5.0, 5)])
def test_verify_a_point_of_a_file(cli: Call, model: str, y: float, code: int) -> None:
    Path("point.json").write_text(json.dumps({"x": {"x": 4.0}, "y": {"follower.y": y}}))
    assert cli("verify", model, "--point", "point.json", "-p", "cap=12").code == code


def test_verify_a_result_of_a_file(cli: Call, model: str, recorded: str) -> None:
    assert cli("verify", model, "--point", f"{recorded}/result.json").code == 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["verify", "nowhere"], "nowhere"),
        (["show", "nowhere"], "nowhere"),
        (["verify", "run", "-p", "cap=1"], "-p"),
        (["verify", "small.py"], "--point"),
        (["verify", "small.py", "--point", "absent.json"], "absent.json"),
        (["verify", "small.py", "--point", "list.json"], "list.json"),
        (["verify", "small.py", "--point", "text.json"], "text.json"),
        (["verify", "small.py", "--point", "wrong.json"], "z"),
        (["show", "damaged"], "result.json"),
        (["show", "unfinished"], "result"),
    ],
)
def test_wrong_input(cli: Call, recorded: str, arguments: list[str], word: str) -> None:
    Path("list.json").write_text("[1, 2]")
    Path("text.json").write_text("{'x': 1}")
    Path("wrong.json").write_text('{"x": {"z": 1}, "y": {"follower.y": 4}}')
    for name in ("damaged", "unfinished"):
        Path(name).mkdir()
        (Path(name) / "run.json").write_text((Path(recorded) / "run.json").read_text())
    Path("damaged/result.json").write_text('{"schema": "bilevel.result/1"')
    done = cli(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert word in done.err
