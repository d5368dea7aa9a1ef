"""Every Python block of the README and of the documentation runs, in order, page by page."""

from __future__ import annotations

import re
import sys
import types
from functools import partial
from pathlib import Path

import pytest

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


def test_the_readme_example_is_short_and_right() -> None:
    (block,) = BLOCK.findall((ROOT / "README.md").read_text())
    assert sum(1 for line in block.splitlines() if line.strip()) < 20
    names: dict[str, object] = {"__name__": "page"}
    exec(compile(block.replace("print(result)", ""), "README.md", "exec"), names)
    result = names["result"]
    assert result.status == "optimal"  # type: ignore[attr-defined]
    assert result.upper_objective == pytest.approx(-12.0)  # type: ignore[attr-defined]
