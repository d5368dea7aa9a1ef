"""Settings: flags before variables before files before defaults; faults name their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Call


def seed(cli: Call, *arguments: str) -> Any:
    return json.loads(cli("solve", "small.py", "-f", "json", *arguments).out)["seed"]


def test_the_order(cli: Call, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seed(cli) == 0
    Path("pyproject.toml").write_text("[tool.bilevel]\nseed = 1\n")
    assert seed(cli) == 1
    Path("bilevel.toml").write_text("seed = 2\n")
    assert seed(cli) == 2
    monkeypatch.setenv("BILEVEL_SEED", "3")
    assert seed(cli) == 3
    assert seed(cli, "--seed", "4") == 4
    monkeypatch.setenv("BILEVEL_SEED", "")
    assert seed(cli) == 2


def test_files_are_looked_for_upwards(cli: Call, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bilevel.toml").write_text("format = 'json'\nsolver = 'kkt'\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert json.loads(cli("solve", "../../small.py").out)["solver"] == "kkt"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("bilevel.toml", "sedd = 1\n", ["bilevel.toml", "sedd", "seed"]),
        ("bilevel.toml", "zzzz = 1\n", ["bilevel.toml", "zzzz"]),
        ("bilevel.toml", "seed = 'many'\n", ["bilevel.toml", "seed", "many"]),
        ("bilevel.toml", "progress = 'loud'\n", ["bilevel.toml", "progress", "loud"]),
        ("bilevel.toml", "format = 'jsn'\n", ["jsn", "json"]),
        ("bilevel.toml", "seed = \n", ["bilevel.toml"]),
        ("pyproject.toml", "[tool.bilevel]\nsolvr = 'kkt'\n", ["pyproject.toml", "solvr", "solver"]),
        ("pyproject.toml", "[tool]\nbilevel = 3\n", ["pyproject.toml"]),
    ],
)
def test_faults_of_a_file(cli: Call, model: str, name: str, text: str, words: list[str]) -> None:
    Path(name).write_text(text)
    done = cli("solve", model)
    assert done.code == 2
    for word in words:
        assert word in done.err


def test_faults_of_a_variable(cli: Call, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILEVEL_TIME_LIMIT", "soon")
    done = cli("solve", model)
    assert done.code == 2
    assert "BILEVEL_TIME_LIMIT" in done.err
    assert "soon" in done.err


def test_out_auto_records_under_runs(cli: Call, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILEVEL_OUT", "auto")
    for count in (1, 2):
        assert cli("solve", model).code == 0
        assert len(list(Path("runs").glob("*/result.json"))) == count
