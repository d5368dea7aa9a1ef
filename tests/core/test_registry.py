"""What plugins offer by name, names that several want, and observers."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bilevel_core import hookimpl
from bilevel_core.errors import MissingError, UsageError
from bilevel_core.plugins.manager import PluginError
from bilevel_core.plugins.registry import get_registry
from bilevel_core.plugins.specs import ExecutorSpec, ProblemSpec, SolverSpec

from .fake_plugins import GOOD, Install, broken, check_builtins, make_strict


def test_two_strangers_with_one_entry_point_name(install: Install) -> None:
    install("bilevel-a", GOOD.format(name="a"), name="same")
    install("bilevel-b", GOOD.format(name="b"), name="same")
    registry = get_registry(fresh=True)
    assert {"a", "b"} <= set(registry.solvers)
    assert registry.infos["same@bilevel-a"].dist == "bilevel-a"
    assert registry.infos["same@bilevel-b"].dist == "bilevel-b"
    assert any("'same'" in w and "bilevel-a and bilevel-b" in w for w in registry.warnings)
    check_builtins(registry)


def test_a_stranger_with_the_name_of_a_builtin_plugin(install: Install) -> None:
    install("aaa-first", GOOD.format(name="a"), name="builtin")
    registry = get_registry(fresh=True)
    assert registry.infos["builtin"].dist == "bilevel"
    assert registry.infos["builtin@aaa-first"].status == "active"
    assert any("'builtin'" in w and "bilevel and aaa-first" in w for w in registry.warnings)
    check_builtins(registry)


def test_our_names_cannot_be_taken(install: Install) -> None:
    install("aaa-first", GOOD.format(name="kkt"))
    registry = get_registry(fresh=True)
    assert registry.solvers["kkt"].factory == "bilevel_core.solvers.kkt.solver:KKT"
    assert any("'kkt'" in w and "aaa-first" in w and "bilevel is used" in w for w in registry.warnings)
    check_builtins(registry)


def test_of_two_strangers_neither_gets_a_name(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("bilevel-a", GOOD.format(name="same"))
    install("bilevel-b", GOOD.format(name="same"))
    registry = get_registry(fresh=True)
    assert "same" not in registry.solvers
    assert any("'bilevel-a' of" in w and "'bilevel-b' of" in w and "none of them" in w for w in registry.warnings)
    with pytest.raises(MissingError, match=r"bilevel-a.*bilevel-b.*BILEVEL_DISABLE_PLUGINS=bilevel-a"):
        registry.find("solvers", "same")
    check_builtins(registry)

    monkeypatch.setenv("BILEVEL_DISABLE_PLUGINS", "bilevel-a")
    assert "same" in get_registry(fresh=True).solvers

    make_strict(monkeypatch)
    with pytest.raises(PluginError, match="none of them"):
        get_registry(fresh=True)


def test_a_plugin_named_twice_is_loaded_once(install: Install) -> None:
    install(
        "bilevel-two", GOOD.format(name="two"), points="[bilevel]\na = bilevel_two_plugin\nb = bilevel_two_plugin\n"
    )
    registry = get_registry(fresh=True)
    assert {registry.infos["a"].status, registry.infos["b"].status} == {"active", "broken"}
    assert "two" in registry.solvers


def test_one_name_twice_in_one_distribution(install: Install) -> None:
    install("bilevel-two", "", points="[bilevel]\na = bilevel_two_plugin\na = bilevel_two_plugin:f\n")
    registry = get_registry(fresh=True)
    assert {"a@bilevel-two", "a@bilevel-two#2"} <= set(registry.infos)
    assert any("bilevel_two_plugin:f (bilevel-two)" in w for w in registry.warnings)
    check_builtins(registry)


def test_an_observer_that_raises_is_reported_once_and_the_others_go_on(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    class Watcher:
        @hookimpl
        def bilevel_iteration(self, event: str) -> bool:
            calls.append(event)
            return True

    class Faulty:
        @hookimpl
        def bilevel_iteration(self) -> None:
            calls.append("faulty")
            raise ZeroDivisionError("oh")

        @hookimpl
        def bilevel_solvers(self) -> list[SolverSpec]:
            return []

    extra = [("before", Watcher()), ("faulty", Faulty()), ("after", Watcher())]
    registry = get_registry(extra=extra)
    assert registry.infos["faulty"].status == "active"
    registry.new_warnings()
    assert registry.emit("bilevel_iteration", event="one") == [True, True]
    assert calls == ["one", "faulty", "one"]
    broken(registry, "faulty", "(given)", "bilevel_iteration failed", "ZeroDivisionError: oh")
    assert len(registry.new_warnings()) == 1
    assert registry.emit("bilevel_iteration", event="two") == [True, True]
    assert registry.new_warnings() == []

    make_strict(monkeypatch)
    strict = get_registry(extra=extra)
    with pytest.raises(ZeroDivisionError):
        strict.emit("bilevel_iteration", event="three")


def test_observers_are_called_in_the_order_that_they_ask_for(install: Install) -> None:
    order: list[str] = []

    def watcher(name: str, **options: bool) -> SimpleNamespace:
        def bilevel_solve_start() -> None:
            order.append(name)

        return SimpleNamespace(bilevel_solve_start=hookimpl(**options)(bilevel_solve_start))

    plugins = [
        ("last", watcher("last", trylast=True)),
        ("first", watcher("first", tryfirst=True)),
        ("mid", watcher("mid")),
    ]
    assert get_registry(extra=plugins).emit("bilevel_solve_start", run=None) == []
    assert order == ["first", "mid", "last"]


def test_emit_checks_its_arguments(install: Install) -> None:
    registry = get_registry(fresh=True)
    with pytest.raises(ValueError, match="takes run, result"):
        registry.emit("bilevel_solve_end", run=None)
    with pytest.raises(ValueError, match="no such hook"):
        registry.emit("bilevel_nothing", run=None)
    with pytest.raises(ValueError, match="through the registry"):
        registry.emit("bilevel_solvers")


def test_find(install: Install) -> None:
    registry = get_registry(fresh=True)
    assert registry.find("executors", "serial") == ExecutorSpec(
        "serial", "bilevel_core.run.executors:serial", "one task after the other, in this process"
    )
    with pytest.raises(UsageError, match=r"no executor named 'serail'.*'serial'"):
        registry.find("executors", "serail")


def test_the_registry_is_kept_until_asked_anew(install: Install) -> None:
    module = ModuleType("given")
    module.bilevel_problems = hookimpl(lambda: [ProblemSpec("given/one", "nowhere:nothing")])  # type: ignore[attr-defined]
    given = get_registry(extra=[("given", module)])
    assert "given/one" in given.problems
    assert get_registry() is given
    assert get_registry(fresh=True) is not given
    assert "given/one" not in get_registry().problems


def test_what_the_core_offers_can_be_imported() -> None:
    registry = get_registry(fresh=True)
    for table in ("solvers", "backends", "reformulations", "executors"):
        specs: dict[str, Any] = getattr(registry, table)
        for name, spec in specs.items():
            if registry.owners[table, name].name == "builtin":
                assert callable(spec.load())
                assert spec.summary


def test_listing_plugins_imports_nothing_heavy() -> None:
    code = """
        import sys
        from bilevel_core.plugins.registry import get_registry
        get_registry()
        print(*sorted({"torch", "cvxpy", "pyomo", "scipy", "casadi", "highspy", "pyscipopt"} & set(sys.modules)))
        print("bilevel_core.result" in sys.modules, "numpy" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout == "\nFalse False\n"
