"""What the tests of the plugin host share: the code of a good plugin, and what must hold after a bad one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bilevel_core.plugins.registry import Registry

Install = Callable[..., None]
"""The fixture ``install``: (distribution, code, *, name, version, metadata, points) -> None."""

GOOD = """
    from bilevel_core import hookimpl
    from bilevel_core.plugins.specs import SolverSpec

    @hookimpl
    def bilevel_solvers():
        return [SolverSpec("{name}", "nowhere:Nothing")]
"""


def check_builtins(registry: Registry) -> None:
    assert registry.infos["builtin"].status == "active"
    assert "kkt" in registry.solvers
    assert {"scip", "highs", "ipopt"} <= set(registry.backends)
    assert {"kkt", "sos1", "bigm"} <= set(registry.reformulations)
    assert {"serial", "processes"} <= set(registry.executors)


def make_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the first failure. The other built-in plugins are left out, so that it is that of the plugin under test."""
    monkeypatch.setenv("BILEVEL_STRICT_PLUGINS", "1")
    monkeypatch.setenv("BILEVEL_DISABLE_PLUGINS", "problems,toll,hpo,nas")


def broken(registry: Registry, name: str, dist: str, *words: str) -> None:
    """The plugin is off, its warning is there once and names it, its distribution and these words."""
    info = registry.infos[name]
    assert info.status == "broken"
    found = [w for w in registry.warnings if repr(name) in w and dist in w]
    assert len(found) == 1, registry.warnings
    for word in words:
        assert word in found[0]
        assert word in info.error
    check_builtins(registry)
