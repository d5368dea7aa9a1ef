"""`bilevel new`, `bilevel plugins check`, and the example distribution: built, installed from its wheel, and used."""

from __future__ import annotations

import json
import os
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bilevel_cli.new import plugin_files

from .conftest import Call
from .distribution import ROOT, build, install, run_pytest

EXAMPLE = Path(__file__).parents[2] / "plugins" / "example"


def written(folder: Path) -> dict[str, str]:
    """The files of a folder by their path in it, without what running them left."""
    found = [p for p in sorted(folder.rglob("*")) if p.is_file() and "__pycache__" not in p.parts]
    return {str(p.relative_to(folder)): p.read_text() for p in found if ".pytest_cache" not in p.parts}


def test_the_example_is_what_new_writes() -> None:
    assert written(EXAMPLE) == plugin_files("example")


@pytest.mark.parametrize("name", ["example", "river-toll"])
def test_a_new_plugin_installs_and_passes_its_own_tests(name: str, cli: Call, tmp_path: Path) -> None:
    if name == "example":
        source = EXAMPLE
    else:
        done = cli("new", "plugin", name)
        assert done.code == 0, done.err
        assert f"bilevel plugins check {name}" in done.out
        source = tmp_path / f"bilevel-{name}"
    place = tmp_path / "place"
    place.mkdir()
    environment = install(source, place)

    (plugin,) = [p for p in environment.json("plugins", "list", cwd=place) if p["name"] == name]
    assert plugin["status"] == "active", plugin
    assert (plugin["distribution"], plugin["version"]) == (f"bilevel-{name}", "0.1.0")
    found = environment.run("-c", "import bilevel_core; print(bilevel_core.__file__)", cwd=place).stdout.strip()
    assert Path(found).is_relative_to(place / "venv")
    checks = environment.json("plugins", "check", name, cwd=place)
    assert {c["outcome"] for c in checks} == {"passed"}
    assert len(checks) == 6
    if name == "example":  # the other is the same by another name, so that the rest would be the same again
        return
    exact = environment.json("solve", f"{name}/levy", cwd=place)
    assert exact["status"] == "optimal"
    assert exact["upper_objective"] == pytest.approx(16.0)
    solve = ("solve", f"{name}/levy", "-s", f"{name}.grid", "-o", "points=11", "-p", "size=10")
    looked = environment.json(*solve, cwd=place)
    assert (looked["status"], looked["certificate"]["verdict"]) == ("feasible", "verified")
    assert looked["upper_objective"] == pytest.approx(25.0)
    said = environment.bilevel(name, "income", "--levy", "3", cwd=place)
    assert said.stdout == "demand 5, income 15\n"
    tests = run_pytest(environment, place / "source" / "tests", cwd=place)
    assert tests.returncode == 0, tests.stdout
    assert " passed" in tests.stdout


def test_the_wheel_holds_all_that_the_packages_need(tmp_path: Path) -> None:
    """Data, templates and the schema among it: what is missing there shows in no editable install."""
    with zipfile.ZipFile(build(ROOT, tmp_path)) as wheel:
        inside = set(wheel.namelist())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = [ROOT / p for p in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
    files = [f for p in packages for f in p.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    names = {str(f.relative_to(p.parent)) for p in packages for f in files if f.is_relative_to(p)}
    assert any(n.endswith(".txt") for n in names)
    assert names <= inside


@pytest.mark.parametrize("kind", ["problem", "solver"])
def test_a_new_file_passes_its_own_tests(kind: str, cli: Call, tmp_path: Path) -> None:
    done = cli("new", kind, "my-first")
    assert done.code == 0, done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my_first.py", "test_my_first.py"]
    from .distribution import Environment

    tests = run_pytest(Environment(Path(sys.executable)), tmp_path / "test_my_first.py", cwd=tmp_path)
    assert tests.returncode == 0, tests.stdout
    if kind == "problem":
        solved = cli("solve", "my_first.py", "-f", "text")
        assert solved.code == 0
        assert "optimal" in solved.out
        assert "16" in solved.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plugin", "Mine"], ["small letters", "'Mine'"]),
        (["plugin", "a--b"], ["small letters"]),
        (["plugin", "bilevel-x"], ["leave the prefix out"]),
        (["plugin", "toll"], ["'toll' is installed already"]),
        (["problem", "class"], ["small letters", "'class'"]),
        (["problem", "2nd"], ["begins with a letter"]),
        (["solver", "statistics"], ["already", "'statistics'"]),
    ],
)
def test_names_that_would_not_do(arguments: list[str], words: list[str], cli: Call, tmp_path: Path) -> None:
    done = cli("new", *arguments)
    assert done.code == 2
    assert all(w in done.err for w in words), done.err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(cli: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("precious")
    (tmp_path / "bilevel-mine").mkdir()
    for kind in ("problem", "solver", "plugin"):
        done = cli("new", kind, "mine")
        assert done.code == 2
        assert "exists" in done.err
    assert (tmp_path / "mine.py").read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["bilevel-mine", "mine.py"]


def test_check_finds_what_is_wrong(cli: Call, plugin: Any) -> None:
    plugin(
        "sloppy",
        """
        import scipy
        from bilevel_core import ProblemSpec, SolverSpec, hookimpl

        @hookimpl
        def bilevel_problems():
            yield ProblemSpec("sloppy/one", "nowhere:at_all")

        @hookimpl
        def bilevel_solvers():
            yield SolverSpec("kkt", "sloppy_plugin:scipy", "not a solver")
        """,
    )
    done = cli("plugins", "check", "sloppy")
    assert done.code == 6
    for words in (
        "Expected BILEVEL_HOOK_API = 1",
        "sloppy_plugin imports scipy",
        "The solver name 'kkt' is offered by",
        "'sloppy/one' in problems has no summary",
        "nowhere:at_all cannot be loaded",
        "5 of 6 checks FAILED",
    ):
        assert words in done.out, done.out
    assert cli("plugins", "check", "nobody").code == 2
    passed = cli("plugins", "check", "builtin", "problems", "-f", "json")
    assert passed.code == 0, passed.out


def test_a_new_solver_is_used_from_its_file(cli: Call, tmp_path: Path) -> None:
    made = cli("new", "solver", "my-first")
    told = next(line.split()[1:] for line in made.out.splitlines() if line.startswith("  bilevel solve"))
    solved = cli(*told, "-f", "json")
    assert solved.code == 0, solved.err
    assert json.loads(solved.out)["solver"] == "my_first:MyFirst"
    shown = cli("solvers", told[-1])
    assert (shown.code, "points" in shown.out, "how many values to try" in shown.out) == (0, True, True), shown.err
    assert cli(*told, "-o", "points=1").code == 2
    assert cli("solve", "trap/small-bound", "-s", "my_first:Other").code == 2
    assert "has no attribute 'Other'" in cli("solve", "trap/small-bound", "-s", "my_first:Other").err
    assert cli("compare", "trap/small-bound", "-s", "kkt", "-s", told[-1]).code == 0
