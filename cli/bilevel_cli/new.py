"""`bilevel new`: a plugin, a problem or a solver to start from, written from templates that pass their own tests."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from bilevel_cli.output import echo
from bilevel_core.errors import UsageError

PLUGIN = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def new_plugin(name: str, folder: Path) -> None:
    """Write a whole distribution into ``folder/bilevel-NAME``.

    Raises:
        UsageError: a name that cannot be one, or a folder that exists.
    """
    if not PLUGIN.fullmatch(name):
        raise UsageError(f"Expected a plugin's name of small letters, digits and single dashes, got {name!r}.")
    if name == "bilevel" or name.startswith("bilevel-"):
        raise UsageError(f"The distribution will be called bilevel-NAME: leave the prefix out of {name!r}.")
    _not_ours(name)
    target = folder / f"bilevel-{name}"
    _write(target, plugin_files(name))
    echo(
        f"wrote {target}\n\nnext:\n  cd {target}\n  pip install -e '.[dev]'\n  bilevel plugins check {name}\n"
        f"  bilevel solve {name}/levy -s {name}.grid\n  pytest"
    )


def plugin_files(name: str) -> dict[str, str]:
    """The files of a new plugin by their path in its folder."""
    package = f"bilevel_{name.replace('-', '_')}"
    words = {
        "__NAME__": name,
        "__PACKAGE__": package,
        "__FUNCTION__": "levy",
        "__PROBLEM__": f"{name}/levy",
        "__CLASS__": "Grid",
    }
    out = {"pyproject.toml": "plugin/pyproject.toml", "README.md": "plugin/README.md"}
    out |= {f"{package}/{f}": f"plugin/{f}" for f in ("__init__.py", "plugin.py", "commands.py")}
    out |= {f"{package}/{f}": f for f in ("problem.py", "solver.py")}
    out |= {f"tests/{f}": f"plugin/{f}" for f in ("test_conformance.py", "test_command.py")}
    return {**{path: _render(template, words) for path, template in out.items()}, f"{package}/py.typed": ""}


def new_problem(name: str, folder: Path) -> None:
    """Write ``NAME.py`` with a problem and ``test_NAME.py`` with its checks.

    Raises:
        UsageError: a name that cannot be one, or a file that exists.
    """
    module = _module(name, folder)
    words = {"__MODULE__": module, "__FUNCTION__": "build", "__PROBLEM__": name}
    _write_both(folder, module, "problem", words)
    echo(
        f"wrote {folder / module}.py and {folder / f'test_{module}'}.py\n\nnext:\n"
        f"  bilevel solve {folder / module}.py\n  pytest {folder / f'test_{module}'}.py"
    )


def new_solver(name: str, folder: Path) -> None:
    """Write ``NAME.py`` with a solver and ``test_NAME.py`` with its checks.

    Raises:
        UsageError: a name that cannot be one, or a file that exists.
    """
    module = _module(name, folder)
    words = {"__MODULE__": module, "__CLASS__": "".join(part.capitalize() for part in module.split("_"))}
    _write_both(folder, module, "solver", words)
    echo(
        f"wrote {folder / module}.py and {folder / f'test_{module}'}.py\n\nnext:\n"
        f"  pytest {folder / f'test_{module}'}.py\n"
        f"  bilevel solve trap/small-bound -s {module}:{words['__CLASS__']}{_from(folder)}\n\n"
        "To use it by a name of its own, put it into a plugin: bilevel new plugin NAME"
    )


def _from(folder: Path) -> str:
    """Where a command has to be called from."""
    return "" if folder.resolve() == Path.cwd().resolve() else f"    # in {folder}"


def _write_both(folder: Path, module: str, kind: str, words: Mapping[str, str]) -> None:
    texts = {f"{module}.py": _render(f"{kind}.py", words), f"test_{module}.py": _render(f"test_{kind}.py", words)}
    taken = [name for name in texts if (folder / name).exists()]
    if taken:
        raise UsageError(f"{folder / taken[0]} exists: choose another name, or another folder with --out.")
    _put(folder, texts)


def _module(name: str, folder: Path) -> str:
    """The name as that of a Python module."""
    module = name.replace("-", "_")
    if not module.isidentifier() or not module.islower() or keyword.iskeyword(module):
        raise UsageError(
            f"Expected a name of small letters, digits, - and _, which begins with a letter; got {name!r}."
        )
    taken = module in sys.stdlib_module_names
    if not taken and not (folder / f"{module}.py").exists():
        try:
            taken = importlib.util.find_spec(module) is not None
        except (ImportError, ValueError):
            taken = True
    if taken:
        raise UsageError(
            f"A Python module is called {module!r} already, and would be imported instead: choose another."
        )
    return module


def _not_ours(name: str) -> None:
    """Refuse names that a plugin here has: of two with one name neither would be what it was."""
    from bilevel_core.plugins.registry import get_registry

    registry = get_registry()
    if name in registry.infos or name in registry.commands:
        raise UsageError(f"A plugin or command named {name!r} is installed already: choose another name.")


def _render(template: str, words: Mapping[str, str]) -> str:
    text = (files("bilevel_cli") / "templates" / f"{template}.txt").read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def _write(target: Path, texts: Mapping[str, str]) -> None:
    if target.exists():
        raise UsageError(f"{target} exists: choose another name, or another folder with --out.")
    _put(target, texts)


def _put(folder: Path, texts: Mapping[str, str]) -> None:
    try:
        for name, text in texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}.") from error
