"""The checks of plugins: each a function of an entry-point name, which raises `Failed`. They need no pytest."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from bilevel_core.errors import BilevelError
from bilevel_core.hooks import HOOK_API, PROJECT
from bilevel_core.plugins.manager import OWN, PluginInfo
from bilevel_core.plugins.registry import get_registry
from bilevel_core.plugins.specs import Spec
from bilevel_core.run.options import describe
from bilevel_core.testing.check import Failed, NotApplicable, expect, since

HEAVY = ("torch", "cvxpy", "pyomo", "scipy", "pandas", "matplotlib", "casadi", "highspy", "pyscipopt", "sklearn")
"""Packages that take long to import: listing plugins must not wait for them."""
OPTIONS = {"problems": "parameter", "solvers": "option"}
"""Tables whose entries have options, and what these are called."""


@since("0.1")
def active(plugin: str) -> None:
    """It is installed, loads, and its hooks have the signatures of the specification."""
    info = _info(plugin)
    expect(info.status == "active", f"Plugin {info.origin} is {info.status}: {info.error or 'it is switched off'}")
    expect(bool(info.hooks), f"Plugin {info.origin} has no hooks: mark its functions with @hookimpl.")
    missed = [w for w in get_registry().warnings if repr(plugin) in w and "without @hookimpl" in w]
    expect(not missed, " ".join(missed))


@since("0.1")
def states_hook_api(plugin: str) -> None:
    """It says for which version of the hooks it is written, so that a later bilevel can tell it apart."""
    module = _module(plugin)
    stated = getattr(module, "BILEVEL_HOOK_API", None)
    expect(
        stated == HOOK_API,
        f"The module of plugin {plugin!r} has BILEVEL_HOOK_API = {stated!r}. Expected BILEVEL_HOOK_API = {HOOK_API}.",
    )


@since("0.1")
def light_import(plugin: str, allow: tuple[str, ...] = ()) -> None:
    """Importing its module imports nothing heavy: every call of the command line does that."""
    name = _module(plugin).__name__
    code = f"import json, sys, {name}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    expect(done.returncode == 0, f"{name} cannot be imported in a fresh process: {done.stderr.strip()[-300:]}")
    heavy = sorted((set(HEAVY) & set(json.loads(done.stdout.splitlines()[-1]))) - set(allow))
    expect(
        not heavy,
        f"{name} imports {', '.join(heavy)}. Move what needs them into another module, and name that in the specs.",
    )


@since("0.1")
def no_name_clash(plugin: str) -> None:
    """No name that it offers is taken by another plugin."""
    registry = get_registry()
    info = _info(plugin)
    clashes = [w for w in registry.warnings if "is offered by" in w and info.origin in w]
    if info.dist == OWN:  # its names stay its own, whatever others offer
        clashes = [w for w in clashes if "the one of bilevel is used" not in w]
    clashes += [w for w in registry.warnings if f"Several plugins are named {plugin.partition('@')[0]!r}" in w]
    expect(not clashes, " ".join(clashes))


@since("0.1")
def documented(plugin: str) -> None:
    """Everything that it offers has a summary, and every option or parameter a text."""
    for table, spec in offers(plugin):
        expect(
            bool(spec.summary.strip()),
            f"{spec.name!r} in {table} has no summary: give its spec one line for the lists.",
        )
        if table not in OPTIONS:
            continue
        silent = [o.name for o in describe(_loaded(spec)) if not o.help]
        expect(not silent, f"{spec.name!r} in {table} has {OPTIONS[table]}s without a help text: {', '.join(silent)}.")


@since("0.1")
def importable(plugin: str) -> None:
    """Every "module:attribute" leads to something of the kind that the specification asks for."""
    from bilevel_core.solvers.base import Solver

    found = offers(plugin)
    for table, spec in found:
        thing = _loaded(spec)
        if table == "solvers":
            expect(
                isinstance(thing, type) and issubclass(thing, Solver),
                f"{spec.factory}: expected a subclass of bilevel_core.Solver, got {thing!r:.80}.",
            )
        elif table == "commands":
            expect(
                type(thing).__name__ == "Typer", f"{spec.factory}: expected a typer.Typer, got {type(thing).__name__}."
            )
        else:
            expect(callable(thing), f"{spec.factory}: expected a function or class, got {type(thing).__name__}.")


CHECKS: tuple[Callable[[str], None], ...] = (
    active,
    states_hook_api,
    light_import,
    no_name_clash,
    documented,
    importable,
)
"""All of them, in the order in which they make sense."""


def run_all(plugin: str) -> list[dict[str, str]]:
    """Every check of one plugin: name, version, outcome (``passed``, ``failed``, ``skipped``) and message."""
    rows: list[dict[str, str]] = []
    for check in CHECKS:
        outcome, message = "passed", ""
        try:
            check(plugin)
        except Failed as error:
            outcome, message = "failed", str(error)
        except NotApplicable as reason:
            outcome, message = "skipped", str(reason)
        except Exception as error:  # noqa: BLE001 - whatever a plugin's code raises is its fault, and is reported
            outcome, message = "failed", f"{type(error).__name__}: {error}"
        since_version: str = check.since  # type: ignore[attr-defined]
        name = check.__name__.replace("_", " ")
        rows.append({"check": name, "since": since_version, "outcome": outcome, "message": message})
        if check is active and outcome == "failed":
            break
    return rows


def offers(plugin: str) -> list[tuple[str, Spec]]:
    """What a plugin offers: table and description."""
    registry = get_registry()
    found = [(t, n) for (t, n), owner in registry.owners.items() if owner.name == plugin]
    return [(table, getattr(registry, table)[name]) for table, name in found]


def _info(plugin: str) -> PluginInfo:
    infos = get_registry().infos
    if plugin not in infos:
        raise Failed(
            f"No plugin is named {plugin!r}; installed are {', '.join(infos)}. Install the distribution (pip install "
            f"-e .), and see that its pyproject.toml has [project.entry-points.{PROJECT}]."
        )
    return infos[plugin]


def _module(plugin: str) -> Any:
    info = _info(plugin)
    name = plugin.partition("@")[0]
    points = [p for p in entry_points(group=PROJECT, name=name) if p.dist and _same(p.dist.name, info.dist)]
    if not points:
        raise NotApplicable(f"{plugin!r} was handed over, not installed")
    return points[0].load()


def _same(a: str, b: str) -> bool:
    return a.replace("_", "-").replace(".", "-").lower() == b.replace("_", "-").replace(".", "-").lower()


def _loaded(spec: Spec) -> Any:
    """The code of a description; a missing optional package, with the command that installs it, is no fault."""
    try:
        return spec.load()
    except BilevelError as error:
        if spec.install:
            raise NotApplicable(str(error)) from error
        raise Failed(f"{spec.factory} cannot be loaded: {error}") from error
