"""Every Python block of the README and of the documentation runs, in order, page by page."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
import types
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer

from bilevel_cli.app import app
from bilevel_core.plugins.manager import HOOKS
from bilevel_core.plugins.registry import get_registry

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", [p for p in PAGES if BLOCK.search(p.read_text())], ids=lambda p: p.name)
def test_code_runs(
    page: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "import torch" in page.read_text():
        torch = pytest.importorskip("torch", reason="the page needs torch")
        request.addfinalizer(partial(torch.set_default_dtype, torch.get_default_dtype()))
    if "import matplotlib" in page.read_text() or "bilevel_core.figures" in page.read_text():
        pytest.importorskip("matplotlib", reason="the page draws")
    if "import sklearn" in page.read_text() or "from sklearn" in page.read_text():
        pytest.importorskip("sklearn", reason="the page needs scikit-learn")
    if "from distributed" in page.read_text():
        pytest.importorskip("distributed", reason="the page starts a Dask cluster")
    monkeypatch.chdir(tmp_path)
    request.addfinalizer(lambda: get_registry(fresh=True))  # a page may have registered plugins of its own
    request.addfinalizer(partial(sys.modules.pop, "my_package", None))
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # dataclasses look their module up
    text = page.read_text()
    for block in BLOCK.finditer(text):
        above = "\n" * text.count("\n", 0, block.start(1))  # so that a failure names its line in the page
        exec(compile(above + block.group(1), str(page), "exec"), vars(module))  # the page's own code is under test


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_section_with_an_example_that_runs(hook: str) -> None:
    """The blocks of the page run above; here, that none is missing."""
    text = (ROOT / "docs" / "hooks.md").read_text()
    sections = re.findall(rf"^### `{hook}`\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert len(sections) == 1, f"docs/hooks.md needs a section '### `{hook}`'"
    code = "\n".join(BLOCK.findall(sections[0]))
    assert f"@hookimpl\ndef {hook}(" in code
    assert f"installed({hook})" in code
    assert "assert " in code


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    missing = [t for t in LINK.findall(page.read_text()) if not (page.parent / t).exists()]
    assert not missing


def pages_of(nav: Any) -> list[str]:
    """Every page of a navigation, whatever section it stands in."""
    if isinstance(nav, str):
        return [nav]
    items = nav.values() if isinstance(nav, dict) else nav
    return [page for item in items for page in pages_of(item)]


def test_the_site_shows_every_page() -> None:
    """In the navigation, or by a link from the README."""
    shown = pages_of(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"])
    assert len(shown) == len(set(shown))
    assert [p for p in shown if not (ROOT / "docs" / p).is_file()] == []
    linked = {Path(t).name for t in LINK.findall((ROOT / "README.md").read_text())}
    assert {p.name for p in PAGES if p.parent.name == "docs"} <= set(shown) | linked


def test_the_pages_that_follow_from_the_code_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    get_registry(fresh=True)
    for page in ("options.md", "python.md", "result.md"):
        assert (ROOT / "docs" / page).read_text() == generate.PAGES[page](), "run: python docs/generate.py"


def test_every_command_and_flag_stands_on_its_page() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()

    def look(command: Any, path: str) -> None:
        for name, sub in getattr(command, "commands", {}).items():
            look(sub, f"{path} {name}")
        if not hasattr(command, "commands"):
            (section,) = re.findall(rf"^## `{path}(?: [^`\n]*)?`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
            flags = [f for p in command.params if p.param_type_name == "option" for f in p.opts]
            assert [f for f in flags if f not in section] == [], f"{path}: run python docs/generate.py"

    root: Any = typer.main.get_command(app)
    look(root, "bilevel")


def test_the_readme_example_is_short_and_right() -> None:
    (block,) = BLOCK.findall((ROOT / "README.md").read_text())
    assert sum(1 for line in block.splitlines() if line.strip()) < 20
    names: dict[str, object] = {"__name__": "page"}
    exec(compile(block.replace("print(result)", ""), "README.md", "exec"), names)
    result = names["result"]
    assert result.status == "optimal"  # type: ignore[attr-defined]
    assert result.upper_objective == pytest.approx(-12.0)  # type: ignore[attr-defined]
