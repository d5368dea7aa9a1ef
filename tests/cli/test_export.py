"""`bilevel export`, and PROBLEM as an MPS file: from a problem to files, and from files to an answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Call


def test_there_and_back(cli: Call, model: str, tmp_path: Path) -> None:
    written = cli("export", model, "bard.mps", "-p", "cap=13")
    assert (written.code, written.out.split()[:2]) == (0, ["bard.mps", "bard.aux"])
    solved = cli("solve", "bard.mps", "-f", "json", "--progress", "none", "--out", "run")
    result = json.loads(solved.out)
    assert solved.code == 0
    assert result["status"] == "optimal"
    assert result["problem"] == "small"
    assert set(result["x"]) == {"x"}
    assert set(result["y"]) == {"follower.y"}
    by_hand = cli("solve", model, "-p", "cap=13", "-f", "json", "--progress", "none")
    assert result["upper_objective"] == pytest.approx(json.loads(by_hand.out)["upper_objective"])
    for reference in ("bard.aux", "run"):
        arguments = [] if reference == "run" else ["--point", "run/result.json"]
        assert cli("verify", reference, *arguments).code == 0
    Path("bard.aux").rename("other.txt")
    assert cli("solve", "bard.mps", "-p", "aux=other.txt", "--explain").code == 0
    lonely = cli("solve", "bard.mps")
    assert lonely.code == 2
    assert "-p aux=FILE" in lonely.err


def test_options_of_the_format(cli: Call, model: str) -> None:
    assert cli("export", model, "bard.mps", "-o", "dialect=indices", "-o", "layout=fixed").code == 0
    assert Path("bard.aux").read_text().startswith("N 1\nM 4\n")
    assert cli("solve", "bard.mps", "--explain").code == 0
    wrong = cli("export", model, "bard.mps", "-o", "dialekt=indices")
    assert wrong.code == 2
    assert "Did you mean 'dialect'?" in wrong.err


def test_what_is_wrong_is_said(cli: Call, model: str) -> None:
    assert cli("export", model, "bard.xyz").err.strip().endswith("Files that can be written end with .mps, .mps.gz.")
    assert cli("export", model, "bard.xyz").code == 2
    assert cli("export", "classic/none-of-this-name", "bard.mps").code == 2
    assert cli("export", model, "bard.mps").code == 0
    Path("bard.mps").write_text(Path("bard.mps").read_text().replace("ENDATA", ""))
    broken = cli("solve", "bard.mps")
    assert broken.code == 2
    assert "bard.mps: the file ends without ENDATA" in broken.err
    Path("bard.aux").write_text(Path("bard.aux").read_text().replace("@VARSEND", "@VARSENT"))
    broken = cli("solve", "bard.aux")
    assert broken.code == 2
    assert "bard.aux:" in broken.err
    assert "Did you mean '@VARSEND'?" in broken.err or "@VARSEND is missing" in broken.err
    assert cli("solve", "nothing.mps").code == 2


def test_a_plugins_exporter(cli: Call, model: str, plugin: object) -> None:
    plugin(  # type: ignore[operator]
        "namer",
        """
        from pathlib import Path
        from bilevel_core import hookimpl
        from bilevel_core.plugins.specs import ExporterSpec

        def write(problem, path: Path, *, loud: bool = False):
            path.write_text(problem.name.upper() if loud else problem.name)

        @hookimpl
        def bilevel_exporters():
            yield ExporterSpec("name", "namer_plugin:write", "the name alone", suffixes=(".name",))
        """,
    )
    assert cli("export", model, "a.name", "-o", "loud=true").code == 0
    assert Path("a.name").read_text() == "SMALL"
