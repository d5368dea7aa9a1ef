"""Help texts: each option one line, with its unit and its default, in words that are not Python's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from bilevel_cli.app import WIDTH, app

from .conftest import Call


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with what it is called, those of plugins among them."""

    def under(group: Any, path: str) -> Iterator[tuple[str, Any]]:
        context = typer.Context(group, info_name=path)
        for name in group.list_commands(context):
            _, found, _ = group.resolve_command(context, [name])
            if hasattr(found, "list_commands"):
                yield from under(found, f"{path} {name}")
            else:
                yield f"{path} {name}", found

    return under(typer.main.get_command(app), "bilevel")


COMMANDS = dict(commands())


def test_all_commands_are_looked_at() -> None:
    assert {"bilevel solve", "bilevel plugins check", "bilevel toll price", "bilevel nas table"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_is_one_line_with_its_default(name: str) -> None:
    command = COMMANDS[name]
    context = typer.Context(command, info_name=name)
    records = [(p, p.get_help_record(context)) for p in command.params]
    rows = [(p, *record) for p, record in records if record]
    left = 4 + max(len(label) for p, label, _ in rows)
    for p, label, text in rows:
        assert left + len(text) <= WIDTH, f"{label}: {text}"
        assert text[:1] == text[:1].upper() or text.startswith(("auto, ", "text, ", "png ", "sample.")), text
        if p.param_type_name == "option" and not getattr(p, "is_flag", False):
            assert re.search(r"\[default: |\[required\]|repeatable", text), f"{name} {label} says no default"
            assert not re.search(r"<(str|path|int|float|list)", label), f"{name} {label}: give it a metavar"


def test_a_terminal_that_is_wide_enough_shows_it_so(cli: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH + 10))
    for arguments in (["solve"], ["toll", "equilibrium"], ["new", "plugin"]):
        lines = cli(*arguments, "--help").out.splitlines()
        options = lines[lines.index("Options:") + 1 :]
        assert options
        assert all(re.match(r"  -", line) for line in options if line.strip()), options


@pytest.mark.parametrize(("wrong", "right"), [("slove", "'solve'"), ("tol", "'toll'"), ("plugin", "'plugins'")])
def test_a_command_that_is_misspelt(wrong: str, right: str, cli: Call) -> None:
    done = cli(wrong, "x")
    assert done.code == 2
    assert f"There is no command '{wrong}'. Did you mean {right}" in done.err


def test_an_option_that_is_misspelt_says_whose(cli: Call, model: str) -> None:
    done = cli("solve", model, "-o", "foo=1")
    assert done.code == 2
    assert "no option named 'foo'. Solver 'kkt' takes: complementarity, " in done.err
