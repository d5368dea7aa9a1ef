"""Which way imports point, read from the sources, and what importing the package pulls in.

The rooms and their order are those of docs/architecture.md.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import bilevel_core

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "bilevel_core": ROOT / "bilevel_core",
    "bilevel_cli": ROOT / "cli" / "bilevel_cli",
    "bilevel_problems": ROOT / "problems" / "bilevel_problems",
    "bilevel_toll": ROOT / "plugins" / "toll" / "bilevel_toll",
    "bilevel_hpo": ROOT / "plugins" / "hpo" / "bilevel_hpo",
    "bilevel_nas": ROOT / "plugins" / "nas" / "bilevel_nas",
}

# Room of bilevel_core -> rooms that it may import besides itself; "" is the package itself, for its version.
ALLOWED: dict[str, set[str]] = {
    "": {"hooks"},
    "errors": set(),
    "hooks": set(),
    "result": {"errors"},
    "program": {"errors"},
    "sampling": {"errors"},
    "problems": {"program", "sampling", "result", "errors"},
    "traits": {"problems", "program", "sampling"},
    "backends": {"program", "errors"},
    "reductions": {"program", "traits", "backends", "errors"},
    "oracles": {"program", "problems", "backends", "result", "errors"},
    "linear": {"errors"},
    "lower": {"linear", "oracles", "program", "problems", "backends", "result", "errors"},
    "hypergradients": {"linear", "lower", "oracles", "problems", "result", "run", "errors"},
    "plugins": {"errors", "hooks"},
    "run": {"", "result", "plugins", "errors"},
    "verification": {"problems", "program", "traits", "backends", "oracles", "lower", "result", "run", "errors"},
    "solvers": {
        "errors",
        "result",
        "program",
        "sampling",
        "problems",
        "traits",
        "backends",
        "reductions",
        "oracles",
        "linear",
        "lower",
        "hypergradients",
        "plugins",
        "run",
    },
    "choose": {"errors", "plugins", "problems", "result", "run", "solvers", "traits"},
    "certify": {"errors", "plugins", "problems", "result", "run", "verification"},
    "report": {"result", "plugins", "errors"},
    "figures": {"result", "report", "plugins", "run", "errors"},
}
EVERYTHING = {"api", "testing"}
"""Rooms at the top, which may import all others."""

WHEN_ASKED = {("result", "report")}
"""Arrows against the order that are followed only when a function is called: a result prints itself."""

LAZY: dict[str, str] = vars(bilevel_core)["_LAZY"]
"""Names that the package resolves on first use, and the modules that they live in."""

HEAVY = ("pyomo", "cvxpy", "torch", "casadi", "highspy", "pyscipopt", "scipy")
LIGHT_MODULES = (
    "bilevel_core",
    "bilevel_core.plugins.builtin",
    "bilevel_core.plugins.registry",
    "bilevel_problems.plugin",
    "bilevel_toll.plugin",
    "bilevel_hpo.plugin",
    "bilevel_nas.plugin",
)


@dataclass(frozen=True)
class Import:
    """One import statement's target, as an absolute module path; ``nested`` when it stands inside a function."""

    file: Path
    line: int
    target: str
    nested: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.target}"


def imports_in(file: Path, package: str, text: str) -> list[Import]:
    """Every import of a source file, those inside functions included and those for type checkers left out."""
    found: list[Import] = []

    def visit(node: ast.AST, nested: bool) -> None:
        if isinstance(node, ast.If) and _type_checking(node.test):
            for child in node.orelse:
                visit(child, nested)
            return
        if isinstance(node, ast.Import):
            found.extend(Import(file, node.lineno, alias.name, nested) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [base])])
            # `from a.b import c` may name the module a.b.c.
            found.extend(Import(file, node.lineno, f"{base}.{alias.name}", nested) for alias in node.names)
        inside = nested or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(text), nested=False)
    return found


def _type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def imports_of(name: str) -> Iterator[Import]:
    """Every import of one of our packages."""
    folder = PACKAGES[name]
    for file in sorted(folder.rglob("*.py")):
        package = ".".join([name, *file.relative_to(folder).parts[:-1]])
        yield from imports_in(file, package, file.read_text())


def room(target: str) -> str:
    """The room of bilevel_core that a module path leads to; "" for the package itself."""
    rest = target.split(".")[1:]
    if rest and rest[0] in LAZY:
        rest = LAZY[rest[0]].split(".")[1:]
    return rest[0] if rest and rest[0] in {*ALLOWED, *EVERYTHING} else ""


def room_of(file: Path) -> str:
    part = file.relative_to(PACKAGES["bilevel_core"]).parts[0].removesuffix(".py")
    return "" if part == "__init__" else part


def wrong(item: Import) -> bool:
    """Whether an import inside bilevel_core points the wrong way."""
    top = item.target.split(".")[0]
    if top != "bilevel_core":
        return top in PACKAGES
    here, there = room_of(item.file), room(item.target)
    if here in EVERYTHING or here == there:
        return False
    return there not in ALLOWED[here] and not (item.nested and (here, there) in WHEN_ASKED)


def test_every_room_has_a_place_in_the_order() -> None:
    rooms = {room_of(f) for f in PACKAGES["bilevel_core"].rglob("*.py")}
    assert rooms == {*ALLOWED, *EVERYTHING}


def test_the_order_has_no_cycle() -> None:
    remaining = {here: there - {""} for here, there in ALLOWED.items()}
    while remaining:
        lowest = {here for here, there in remaining.items() if not there & remaining.keys()}
        assert lowest, f"rooms import each other in a circle: {sorted(remaining)}"
        remaining = {here: there for here, there in remaining.items() if here not in lowest}


def test_no_arrow_in_the_core_points_the_wrong_way() -> None:
    found = list(imports_of("bilevel_core"))
    assert len(found) > 100
    assert not [str(i) for i in found if wrong(i)]


@pytest.mark.parametrize("name", [p for p in PACKAGES if p != "bilevel_core"])
def test_packages_outside_the_core_never_import_each_other(name: str) -> None:
    ours = [i for i in imports_of(name) if i.target.split(".")[0] in PACKAGES]
    assert not [str(i) for i in ours if i.target.split(".")[0] not in (name, "bilevel_core")]


@pytest.mark.parametrize(
    ("file", "text", "is_wrong"),
    [
        ("program/program.py", "from bilevel_core.errors import ModelError", False),
        ("program/program.py", "from bilevel_core.problems.base import Problem", True),
        ("program/program.py", "def f():\n    from bilevel_core.problems.base import Problem", True),
        ("program/program.py", "from bilevel_core import problems", True),
        ("program/program.py", "from ..problems import base", True),
        ("program/program.py", "from . import function", False),
        (
            "program/program.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import bilevel_core.api",
            False,
        ),
        ("verification/verify.py", "import bilevel_core.solvers.kkt.solver", True),
        ("verification/verify.py", "from bilevel_core.reductions.kkt import Multiplier", True),
        ("solvers/kkt/solver.py", "from bilevel_core.api import solve", True),
        ("solvers/kkt/solver.py", "from bilevel_core.verification import check", True),
        ("result.py", "def f():\n    from bilevel_core.report import result_text", False),
        ("result.py", "from bilevel_core.report import result_text", True),
        ("certify.py", "from bilevel_core.verification import check", False),
        ("api.py", "import bilevel_cli", True),
        ("run/context.py", "from bilevel_core import __version__", False),
        ("run/context.py", "from bilevel_core import solve", True),
        ("hooks.py", "def f():\n    import bilevel_problems.plugin", True),
    ],
)
def test_wrong_arrows_are_seen(file: str, text: str, is_wrong: bool) -> None:
    path = PACKAGES["bilevel_core"] / file
    package = ".".join(["bilevel_core", *Path(file).parts[:-1]])
    assert any(wrong(i) for i in imports_in(path, package, text)) is is_wrong


@pytest.mark.parametrize("name", LIGHT_MODULES)
def test_importing_is_light(name: str) -> None:
    code = f"import sys, {name}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {module.split(".")[0] for module in done.stdout.split()}
    assert name in done.stdout.split()
    assert not loaded & set(HEAVY)


def test_names_of_the_package_are_resolved_on_first_use() -> None:
    code = (
        "import importlib.util, sys, bilevel_core as bl; before = 'pyomo' in sys.modules; "
        "skip = set() if importlib.util.find_spec('torch') else {'TorchProblem'}; "
        "missing = [n for n in bl.__all__ if n not in skip and getattr(bl, n, None) is None]; "
        "print(before, missing, 'pyomo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "[]", "True"], done.stderr


def test_choosing_a_solver_for_an_algebraic_problem_loads_no_torch() -> None:
    """Solvers of plugins for problems of their own are not imported for others."""
    code = (
        "import sys, bilevel_core as bl; from bilevel_core.plugins.registry import get_registry; "
        "found = bl.classify(get_registry().problems['classic/bard-511'].load()()); "
        "print(found.chosen, 'torch' in sys.modules, found.verdicts['toll-pricing'].reason, sep='|')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "kkt|False|it takes network-pricing problems only", done.stderr
