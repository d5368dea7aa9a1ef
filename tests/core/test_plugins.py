"""Finding and loading plugins: whatever a stranger's does wrong, it is named, and the built-in parts still work."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bilevel_core import hookimpl
from bilevel_core.plugins import hookspecs
from bilevel_core.plugins.manager import HOOKS
from bilevel_core.plugins.registry import get_registry
from bilevel_core.plugins.specs import SolverSpec

from .fake_plugins import GOOD, Install, broken, check_builtins, make_strict


def test_every_hook_of_the_contract_exists_and_has_an_example() -> None:
    registration = (
        "problems",
        "solvers",
        "reformulations",
        "backends",
        "loaders",
        "exporters",
        "reporters",
        "figures",
        "checks",
        "executors",
        "commands",
        "doctor",
    )
    expected: dict[str, tuple[str, ...]] = {f"bilevel_{n}": () for n in registration}
    expected |= {
        "bilevel_solve_start": ("run",),
        "bilevel_iteration": ("event",),
        "bilevel_solve_end": ("run", "result"),
        "bilevel_solve_error": ("run", "error"),
    }
    assert expected == HOOKS
    for name in HOOKS:
        text = inspect.getdoc(getattr(hookspecs, name)) or ""
        assert "Example:" in text
        assert f"def {name}(" in text


def test_examples_of_registration_hooks_run(install: Install) -> None:
    for name in (n for n, arguments in HOOKS.items() if not arguments):
        example = textwrap.dedent((inspect.getdoc(getattr(hookspecs, name)) or "").partition("Example:\n")[2])
        space: dict[str, Any] = {"hookimpl": hookimpl}
        exec("from bilevel_core.plugins.specs import *\n" + example, space)
        plugin = SimpleNamespace(**{name: space[name]})
        registry = get_registry(fresh=True, extra=[("example", plugin)])
        assert registry.infos["example"].hooks == [name], registry.infos["example"]
        table = {"bilevel_doctor": "doctors"}.get(name, name.removeprefix("bilevel_"))
        assert [n for (t, n), owner in registry.owners.items() if owner.name == "example" and t == table]


def test_a_good_plugin(install: Install) -> None:
    install("bilevel-good", GOOD.format(name="mine"), version="2.3")
    registry = get_registry(fresh=True)
    info = registry.infos["bilevel-good"]
    assert (info.dist, info.version, info.status, info.error) == ("bilevel-good", "2.3", "active", "")
    assert info.hooks == ["bilevel_solvers"]
    assert info.load_ms > 0.0
    assert registry.solvers["mine"] == SolverSpec("mine", "nowhere:Nothing")
    assert registry.owners["solvers", "mine"] is info
    assert not [w for w in registry.warnings if "good" in w]
    check_builtins(registry)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        pytest.param("import a_package_that_is_not_there", ["ModuleNotFoundError", "not_there"], id="import-error"),
        pytest.param("raise ValueError('first line\\nsecond')", ["ValueError: first line"], id="raises-at-import"),
        pytest.param("import sys\nsys.exit(0)", ["SystemExit: 0"], id="exits-at-import"),
        pytest.param("def f(:\n", ["SyntaxError"], id="syntax-error"),
        pytest.param("BILEVEL_HOOK_API = 99", ["hook API 99", "update bilevel"], id="newer-hook-api"),
        pytest.param("BILEVEL_HOOK_API = 0", ["hook API 0", "update bilevel-bad"], id="older-hook-api"),
        pytest.param("BILEVEL_HOOK_API = '1'", ["hook API '1'"], id="odd-hook-api"),
        pytest.param(
            """
            from bilevel_core import hookimpl
            @hookimpl
            def bilevel_solvers(registry):
                return []
            """,
            ["bilevel_solvers has a wrong signature", "Expected no arguments, got (registry)"],
            id="argument-where-there-is-none",
        ),
        pytest.param(
            """
            from bilevel_core import hookimpl
            @hookimpl
            def bilevel_solve_end(run, outcome):
                pass
            """,
            ["Expected some of (run, result), got (run, outcome)"],
            id="unknown-argument",
        ),
        pytest.param(
            """
            from bilevel_core import hookimpl
            @hookimpl
            def bilevel_solver():
                return []
            """,
            ["'bilevel_solver' is marked as a hook", "did you mean 'bilevel_solvers'?"],
            id="unknown-hook",
        ),
        pytest.param(
            """
            from bilevel_core import hookimpl
            @hookimpl(wrapper=True)
            def bilevel_solvers():
                return (yield)
            """,
            ["bilevel_solvers is a hook wrapper"],
            id="wrapper",
        ),
        pytest.param(
            """
            from bilevel_core import hookimpl
            @hookimpl
            def bilevel_solvers():
                raise RuntimeError("no licence")
            """,
            ["its hook bilevel_solvers failed", "RuntimeError: no licence"],
            id="raises-at-call",
        ),
        pytest.param(
            """
            from bilevel_core import hookimpl
            from bilevel_core.plugins.specs import SolverSpec
            @hookimpl
            def bilevel_solvers():
                yield SolverSpec("half", "nowhere:Nothing")
                raise RuntimeError("in the middle")
            """,
            ["RuntimeError: in the middle"],
            id="raises-in-the-middle",
        ),
        pytest.param(
            """
            from bilevel_core import hookimpl
            @hookimpl
            def bilevel_solvers():
                raise SystemExit("enough")
            """,
            ["it tried to end the program (SystemExit: enough)"],
            id="exits-at-call",
        ),
        pytest.param(
            """
            from bilevel_core import hookimpl
            @hookimpl
            def bilevel_solvers():
                return 7
            """,
            ["bilevel_solvers returned a wrong thing", "Expected a list of specs, got int"],
            id="not-iterable",
        ),
        pytest.param(
            """
            from bilevel_core import hookimpl
            @hookimpl
            def bilevel_solvers():
                return "kkt"
            """,
            ["Expected a list of specs, got str"],
            id="a-text",
        ),
        pytest.param(
            """
            from bilevel_core import hookimpl
            from bilevel_core.plugins.specs import ProblemSpec
            @hookimpl
            def bilevel_solvers():
                return [ProblemSpec("half", "nowhere:nothing")]
            """,
            ["Expected SolverSpec, got ProblemSpec"],
            id="another-spec",
        ),
        pytest.param(GOOD.replace('"{name}"', '""'), ["whose name is ''"], id="no-name"),
        pytest.param(
            GOOD.format(name="half").replace("nowhere:Nothing", "nowhere.Nothing"),
            ["'nowhere.Nothing'", "Expected 'module:attribute'"],
            id="factory-without-colon",
        ),
        pytest.param(
            """
            from bilevel_core import hookimpl
            from bilevel_core.plugins.specs import SolverSpec
            @hookimpl
            def bilevel_solvers():
                return [SolverSpec("half", "a:A"), SolverSpec("half", "b:B")]
            """,
            ["the solver name 'half' twice"],
            id="one-name-twice",
        ),
    ],
)
def test_a_bad_plugin_costs_only_itself(
    install: Install, monkeypatch: pytest.MonkeyPatch, code: str, words: list[str]
) -> None:
    install("bilevel-good", GOOD.format(name="mine"))
    install("bilevel-bad", code)
    registry = get_registry(fresh=True)
    broken(registry, "bilevel-bad", "bilevel-bad 1.0", *words)
    assert "half" not in registry.solvers
    assert "mine" in registry.solvers
    assert "Error" in registry.infos["bilevel-bad"].trace or "SystemExit" in registry.infos["bilevel-bad"].trace

    sys.modules.pop("bilevel_bad_plugin", None)
    make_strict(monkeypatch)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the kind depends on the case; SystemExit must not pass
        get_registry(fresh=True)
    assert "bilevel-bad" in str(caught.value) + "".join(getattr(caught.value, "__notes__", []))


def test_a_plugin_is_off_as_a_whole(install: Install) -> None:
    install(
        "bilevel-bad",
        """
        from bilevel_core import hookimpl
        from bilevel_core.plugins.specs import ProblemSpec
        @hookimpl
        def bilevel_problems():
            return [ProblemSpec("half/problem", "nowhere:nothing")]
        @hookimpl
        def bilevel_executors():
            raise RuntimeError("late")
        @hookimpl
        def bilevel_iteration(event):
            return True
        """,
    )
    registry = get_registry(fresh=True)
    broken(registry, "bilevel-bad", "bilevel-bad", "RuntimeError: late")
    assert "half/problem" not in registry.problems
    assert registry.emit("bilevel_iteration", event=None) == []


def test_none_and_nothing_are_fine(install: Install) -> None:
    install("bilevel-empty", "")
    install("bilevel-none", "from bilevel_core import hookimpl\n@hookimpl\ndef bilevel_solvers():\n    return None\n")
    registry = get_registry(fresh=True)
    assert registry.infos["bilevel-empty"].status == registry.infos["bilevel-none"].status == "active"


def test_a_forgotten_marker_is_pointed_out(install: Install) -> None:
    install("bilevel-shy", "def bilevel_solvers():\n    return []\n")
    registry = get_registry(fresh=True)
    assert registry.infos["bilevel-shy"].status == "active"
    assert any("'bilevel-shy'" in w and "bilevel_solvers without @hookimpl" in w for w in registry.warnings)


def test_the_first_on_the_path_counts(install: Install) -> None:
    install("bilevel_good", GOOD.format(name="old"), version="1.0")
    install("bilevel-good", GOOD.format(name="new"), version="2.0")
    registry = get_registry(fresh=True)
    assert registry.infos["bilevel-good"].version == "2.0"
    assert "new" in registry.solvers
    assert "bilevel_good" not in registry.infos


def test_distributions_without_metadata(install: Install) -> None:
    install("nameless-a", GOOD.format(name="a"), metadata="")
    install("nameless-b", GOOD.format(name="b"), metadata="Metadata-Version: 2.1\n")
    install("bilevel-good", GOOD.format(name="mine"))
    registry = get_registry(fresh=True)
    assert {"a", "b", "mine"} <= set(registry.solvers)
    assert registry.infos["nameless-a"].dist == "nameless_a"
    assert registry.infos["nameless-a"].version == ""
    check_builtins(registry)


def test_unreadable_entry_points(install: Install, tmp_path: Path) -> None:
    install("bilevel-noise", "")
    next(tmp_path.rglob("entry_points.txt")).write_bytes(b"[bilevel]\n\xff\xfe = x\n")
    registry = get_registry(fresh=True)
    assert any("bilevel_noise-1.0.dist-info" in w for w in registry.warnings)
    check_builtins(registry)


def test_no_plugins(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("bilevel-good", GOOD.format(name="mine"))
    monkeypatch.setenv("BILEVEL_NO_PLUGINS", "1")
    registry = get_registry(fresh=True)
    assert registry.infos["bilevel-good"].status == "disabled"
    assert "mine" not in registry.solvers
    assert "bilevel_good_plugin" not in sys.modules
    check_builtins(registry)

    monkeypatch.setenv("BILEVEL_NO_PLUGINS", "0")
    assert "mine" in get_registry(fresh=True).solvers


def test_disabled_plugins(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("bilevel-a", GOOD.format(name="a"), name="same")
    install("bilevel-b", GOOD.format(name="b"), name="same")
    monkeypatch.setenv("BILEVEL_DISABLE_PLUGINS", "same@bilevel-a, hpo")
    registry = get_registry(fresh=True)
    assert registry.infos["same@bilevel-a"].status == "disabled"
    assert registry.infos["hpo"].status == "disabled"
    assert "bilevel_a_plugin" not in sys.modules
    assert "a" not in registry.solvers
    assert "b" in registry.solvers
    assert not any("BILEVEL_DISABLE_PLUGINS" in w for w in registry.warnings)

    monkeypatch.setenv("BILEVEL_DISABLE_PLUGINS", "same")
    registry = get_registry(fresh=True)
    assert registry.infos["same@bilevel-a"].status == registry.infos["same@bilevel-b"].status == "disabled"

    monkeypatch.setenv("BILEVEL_DISABLE_PLUGINS", "bulitin")
    registry = get_registry(fresh=True)
    assert any("'bulitin'" in w and "'builtin'" in w for w in registry.warnings)


def test_a_source_folder_that_is_not_installed(tmp_path: Path) -> None:
    code = """
        import sys
        import importlib.metadata as metadata
        found = metadata.distributions
        from bilevel_core.plugins import manager
        manager.distributions = lambda: (d for d in found() if d.metadata["Name"] != "bilevel")
        from bilevel_core.plugins.registry import get_registry
        registry = get_registry()
        print(list(registry.infos), list(registry.solvers), len(registry.warnings))
        print(registry.warnings[0])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    names, _, text = done.stdout.partition("\n")
    assert names.startswith("['builtin'] ['kkt'")
    assert "toll-pricing" not in names
    assert text.startswith("The distribution 'bilevel' is not installed")
