"""The distribution as it is installed: names, entry points, version."""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import bilevel_core

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
PLUGINS: dict[str, str] = PROJECT["project"]["entry-points"]["bilevel"]


def test_one_version() -> None:
    assert PROJECT["project"]["version"] == bilevel_core.__version__ == distribution("bilevel").version


def test_every_package_of_the_wheel_is_there() -> None:
    assert len(PACKAGES) == len(set(PACKAGES))
    assert [p for p in PACKAGES if not (ROOT / p / "__init__.py").is_file()] == []


def test_every_package_in_the_tree_is_in_the_wheel() -> None:
    places = [*ROOT.glob("*"), *ROOT.glob("cli/*"), *ROOT.glob("problems/*"), *ROOT.glob("plugins/*/*")]
    found = {str(p.parent.relative_to(ROOT)) for place in places for p in place.glob("__init__.py")}
    example = {p for p in found if p.startswith("plugins/example/")}  # a distribution of its own
    assert found - example == set(PACKAGES)


def test_import_names_are_our_own() -> None:
    """Installed top-level names such as ``core`` or ``plugins`` would collide with other people's."""
    names = [p.rsplit("/", 1)[-1] for p in PACKAGES]
    assert [n for n in names if not n.startswith("bilevel_")] == []
    installed = {Path(str(f)).parts[0] for f in distribution("bilevel").files or []}
    top = {n for n in installed if n not in ("..", "__pycache__") and "." not in n}
    assert top <= set(names)


def test_installed_entry_points_are_those_of_the_project() -> None:
    installed = {p.name: p.value for p in entry_points(group="bilevel") if p.dist and p.dist.name == "bilevel"}
    assert installed == PLUGINS


@pytest.mark.parametrize("name", PLUGINS)
def test_entry_points_load(name: str) -> None:
    (point,) = [p for p in entry_points(group="bilevel", name=name) if p.dist and p.dist.name == "bilevel"]
    module = point.load()
    assert isinstance(module, ModuleType)
    assert module.BILEVEL_HOOK_API == bilevel_core.HOOK_API


def test_the_command_is_installed() -> None:
    (point,) = [p for p in entry_points(group="console_scripts", name="bilevel") if p.dist and p.dist.name == "bilevel"]
    assert callable(point.load())
