"""Writes the pages of the reference that follow from the code: python docs/generate.py

A test compares them with what this would write.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py; change the docstrings instead. -->\n"


def options() -> str:
    """The options of the core's solvers; plugins describe their own."""
    from bilevel_core.plugins.registry import get_registry
    from bilevel_core.plugins.specs import SolverSpec
    from bilevel_core.run.options import describe

    registry = get_registry()
    lines = [
        NOTE,
        "# Options of solvers\n",
        "Set by `-o NAME=VALUE` or `options={...}`. `bilevel solvers NAME` prints the same, also for solvers of "
        "plugins. An unknown option is an error that suggests the nearest; one without effect is an error too.\n",
    ]
    specs: list[SolverSpec] = [
        s for n, s in registry.solvers.items() if registry.owners["solvers", n].name == "builtin"
    ]
    for spec in sorted(specs, key=lambda s: (-s.priority, s.name)):
        lines += [f"## {spec.name}\n", f"{spec.summary[:1].upper()}{spec.summary[1:]}.\n"]
        lines += ["| option | type | default | |", "|---|---|---|---|"]
        for o in describe(spec.load()):
            kind = o.type_text.replace("|", "\\|")
            text = o.help.replace("|", "\\|").replace("<", "&lt;")
            lines.append(f"| `{o.name}` | `{kind}` | `{_default(o.default)}` | {text} |")
        lines.append("")
    return "\n".join(lines)


def python() -> str:
    """Every public name of `bilevel_core` with its docstring."""
    import bilevel_core as bl

    lines = [
        NOTE,
        "# Python\n",
        "`import bilevel_core as bl` is light: what needs Pyomo, CVXPY or torch is imported on first use.\n",
    ]
    functions, classes, errors = [], [], []
    for name in sorted(bl.__all__):
        thing: Any = getattr(bl, name)
        if isinstance(thing, type) and issubclass(thing, BaseException):
            errors.append((name, thing))
        elif isinstance(thing, type):
            classes.append((name, thing))
        elif callable(thing) and inspect.getdoc(thing) and name != "hookimpl":
            functions.append((name, thing))
    for title, group in (("Functions", functions), ("Classes", classes), ("Errors", errors)):
        lines.append(f"## {title}\n")
        for name, thing in group:
            signature = "" if title == "Errors" else _signature(thing)
            lines += [f"### `bl.{name}`\n", f"```text\nbl.{name}{signature}\n\n{inspect.getdoc(thing) or ''}\n```\n"]
    return "\n".join(lines)


def result() -> str:
    """The fields of a result and of its certificate, with their types in JSON."""
    from bilevel_core.result import SCHEMA, Certificate, Result, Termination
    from bilevel_core.run.options import documented

    schema: Any = json.loads((DOCS.parent / "bilevel_core" / "result.schema.json").read_text())
    text = documented(Result)
    lines = [
        NOTE,
        "# Result and its JSON\n",
        f'`bilevel solve -f json` prints one object with `"schema": "{SCHEMA}"`; `result.json` of a recorded run '
        "holds the same, and so does `result.to_json()`, which `bl.Result.from_json` reads. The JSON Schema is in the "
        "package, `bilevel_core/result.schema.json`; tests hold results to it. NaN and infinity are `null`, arrays "
        "nested lists, dashes in keys underscores.\n",
        "| field | JSON | |",
        "|---|---|---|",
    ]
    own = {"schema": f"`{SCHEMA}`", "status": "the one word made of termination, claim and verdict"}
    for name, kind in schema["properties"].items():
        lines.append(f"| `{name}` | {_json_type(kind)} | {own.get(name) or text.get(name, '')} |")
    lines += ["", "## The certificate\n", "| field | JSON | |", "|---|---|---|"]
    about = documented(Certificate)
    for name, kind in schema["properties"]["certificate"]["oneOf"][1]["properties"].items():
        lines.append(f"| `{name}` | {_json_type(kind)} | {about.get(name, '')} |")
    lines += ["", "## Why a run stopped\n", "| termination | what to do |", "|---|---|"]
    lines += [f"| `{t.value}` | {t.advice or 'nothing: it came to its own end.'} |" for t in Termination]
    lines += ["", "Statuses and exit codes are in [the command line](cli.md).", ""]
    return "\n".join(lines)


def commands() -> str:
    """Every command of our own with its arguments and options."""
    import typer

    from bilevel_cli.app import app

    root: Any = typer.main.get_command(app)
    lines = [
        NOTE,
        "# Commands\n",
        "What `bilevel COMMAND --help` says. Plugins add commands of their own, such as `bilevel toll`. "
        "[The command line](cli.md) has output, exit codes and settings.\n",
    ]

    def show(command: Any, path: str) -> None:
        if hasattr(command, "commands"):
            for name, sub in command.commands.items():
                show(sub, f"{path} {name}")
            return
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        usage = " ".join([path, *(a.metavar or a.name.upper() for a in arguments)])
        lines.extend([f"## `{usage}`\n", f"{inspect.cleandoc(command.help or '')}\n"])
        rows: list[str] = []
        for p in command.params:
            text = re.sub(r"  +", " ", getattr(p, "help", None) or "").replace("|", "\\|")
            names = p.metavar or p.name.upper() if p in arguments else ", ".join([*p.opts, *p.secondary_opts])
            rows.append(f"| `{names}` | {text}{_default_note(p, text)} |".replace("`RUN|PROBLEM`", "`RUN\\|PROBLEM`"))
        if rows:
            lines.extend(["| | |", "|---|---|", *rows, ""])

    show(root, "bilevel")
    return "\n".join(lines)


def _default_note(p: Any, text: str) -> str:
    shown = p.default if not callable(p.default) else None
    if "[default" in text or shown in (None, False, (), "") or p.param_type_name == "argument":
        return ""
    value = getattr(shown, "value", shown)
    return "" if "Sentinel" in repr(value) or str(value) == "Sentinel.UNSET" else f" [default: {value}]"


def _default(value: Any) -> str:
    if isinstance(value, dict) and not value:
        return "none"
    return "none" if value is None else '""' if value == "" else str(value)


def _signature(thing: Any) -> str:
    try:
        text = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return ""
    return re.sub(r"<factory>", "...", re.sub(r" at 0x[0-9a-f]+", "", text))


def _json_type(kind: Any) -> str:
    if "enum" in kind:
        return ", ".join(f"`{v}`" for v in kind["enum"])
    if "const" in kind:
        return f"`{kind['const']}`"
    if "$ref" in kind:
        return {"values": "object of arrays", "numbers": "number or list"}[kind["$ref"].rsplit("/", 1)[-1]]
    if "oneOf" in kind:
        return "object or null"
    found = kind["type"]
    return " or ".join(found) if isinstance(found, list) else str(found)


PAGES = {"options.md": options, "python.md": python, "result.md": result, "commands.md": commands}


if __name__ == "__main__":
    for page, write in PAGES.items():
        (DOCS / page).write_text(write(), encoding="utf-8")
        print(f"wrote docs/{page}")
