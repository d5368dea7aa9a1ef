"""Every Python block of the README and of the documentation runs, in order, page by page."""

from __future__ import annotations

import re
import sys
import types
from functools import partial
from pathlib import Path

import pytest

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
    if "import sklearn" in page.read_text() or "from sklearn" in page.read_text():
        pytest.importorskip("sklearn", reason="the page needs scikit-learn")
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # dataclasses look their module up
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, str(page), "exec"), vars(module))  # the page's own code is what is under test


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
