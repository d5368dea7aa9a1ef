"""Every `bilevel ...` line of the documentation is one that the command line takes: commands, flags, names, values.

Nothing is solved here. The pages' Python blocks run in test_docs.py, and what commands do is tested beside them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

from bilevel_cli.app import app
from bilevel_cli.compare import entries_of
from bilevel_cli.ordered import ORDER
from bilevel_core.errors import MissingError, UsageError
from bilevel_core.plugins.registry import get_registry
from bilevel_core.run.options import read

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "plugins" / "example" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = ("mine/", "my_solver:", "example/", "example.")
"""Names that a reader makes up, or that a plugin brings which is not installed here."""
GROUPS_OF_OTHERS = ("example",)


def lines_of(text: str) -> Iterator[str]:
    """Lines of shell: indented, or in a fence that is not Python or data."""
    fenced = [line for kind, block in FENCE.findall(text) if kind in ("", "bash", "sh") for line in block.splitlines()]
    indented = [line[4:] for line in FENCE.sub("", text).splitlines() if line.startswith("    ")]
    for line in (*fenced, *indented):
        for part in re.split(r"&&|\|", line):
            if re.match(r"\s*bilevel [a-z-]", part):
                yield part.strip()


LINES = [pytest.param(line, id=f"{page.stem}: {line[:70]}") for page in PAGES for line in lines_of(page.read_text())]


def parsed(words: list[str]) -> tuple[str, Any]:
    """The command's path and its context, as if it were called."""
    command: Any = typer.main.get_command(app)
    context: Any = typer.Context(command, info_name="bilevel")
    path: list[str] = []
    while hasattr(command, "list_commands"):
        name, command, words = command.resolve_command(context, words)
        path.append(name)
        if not hasattr(command, "list_commands"):
            break
        context = typer.Context(command, info_name=name, parent=context)
    return " ".join(path), command.make_context(path[-1], words, parent=context)


def pairs(texts: Any) -> dict[str, str]:
    return dict(text.split("=", 1) for text in texts or ())


def read_by_some_solver(options: Mapping[str, str]) -> bool:
    """Whether a registered solver takes these options with these values."""
    for spec in get_registry().solvers.values():
        try:
            factory = spec.load()
            factory(**read(factory, options))
        except (UsageError, MissingError):
            continue
        return True
    return False


def check_problem(name: str, parameters: Mapping[str, str]) -> None:
    registry = get_registry()
    if name.startswith(ELSEWHERE) or name.endswith(".py"):
        return
    if name in registry.problems:
        read(registry.problems[name].load(), parameters, kind="parameter", owner=name)
        return
    loader = next(spec for spec in registry.loaders.values() if name.endswith(spec.suffixes))
    read(loader.load(), parameters, kind="parameter", owner=name, skip=("path",))


def check_solver(name: str, options: Mapping[str, str]) -> None:
    if name == "auto":
        assert not options or read_by_some_solver(options), f"no solver takes {options}"
    elif not name.startswith(ELSEWHERE):
        factory = get_registry().find("solvers", name).load()
        factory(**read(factory, options, owner=name))


def test_there_are_lines() -> None:
    assert len(LINES) > 50


@pytest.mark.parametrize("line", LINES)
def test_the_line_is_taken(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    if words[0] in GROUPS_OF_OTHERS:
        pytest.skip("a command of the example plugin")
    try:
        path, context = parsed(words)
        given = context.params
        if path in ("solve", "compare"):
            check_problem(given["problem"], pairs(given["parameter"]))
        if path == "compare":
            for entry in entries_of(context.meta[ORDER]):
                check_solver(entry.solver, entry.options)
        elif "option" in given and path != "export":
            check_solver(given.get("solver") or "auto", pairs(given["option"]))
    except MissingError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("bilevel solve classic/bard-511 --tim 3", "No such option"),
        ("bilevel solve hpo/ridge -p scop=class", "no parameter named 'scop'"),
        ("bilevel solve toll/sioux-falls -s toll-pricing -o formulatio=vf", "no option named"),
        ("bilevel nas preset", "No such command"),
    ],
)
def test_a_line_that_is_wrong_is_found(line: str, words: str) -> None:
    if "hpo" in line:
        pytest.importorskip("torch")
        pytest.importorskip("sklearn")
    with pytest.raises(Exception, match=words):
        test_the_line_is_taken(line)
