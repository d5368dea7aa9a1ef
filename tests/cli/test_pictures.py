"""`bilevel plot` and `bilevel report`, and the page as a browser shows it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .conftest import Call

BROWSER = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
WIDTHS = (1280, 390)


@pytest.fixture
def recorded(cli: Call, tmp_path: Path) -> Path:
    done = cli("solve", "smd/smd2", "-s", "auxiliary", "--out", "run")
    assert done.code == 0, done.err
    return tmp_path / "run"


def test_plot_writes_both_formats(recorded: Path, cli: Call, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = cli("plot", "run")
    assert done.code == 0, done.err
    names = done.out.split()
    assert {Path(n).suffix for n in names} == {".png", ".svg"}
    assert {Path(n).stem for n in names} >= {"value", "distance"}
    assert all((tmp_path / n).stat().st_size > 1000 for n in names)
    one = cli("plot", "run", "value", "-f", "svg", "--out", "elsewhere")
    assert one.out.split() == ["elsewhere/value.svg"]


def test_plot_says_what_is_not_there(recorded: Path, cli: Call) -> None:
    pytest.importorskip("matplotlib")
    assert "no figure named 'valu'" in cli("plot", "run", "valu").err
    none = cli("plot", "run", "pareto")
    assert (none.code, "nothing of pareto" in none.err) == (2, True)
    assert cli("plot", "nowhere").code == 2
    assert "picture format" in cli("plot", "run", "-f", "jpg").err


def test_without_matplotlib(recorded: Path, cli: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for module in [m for m in sys.modules if m.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = cli("plot", "run")
    assert done.code == 6
    assert "pip install 'bilevel[plot]'" in done.err
    page = cli("report", "run")
    assert page.code == 0
    text = (recorded / "report.html").read_text()
    assert "<img" not in text
    assert "Pictures need matplotlib" in text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: apt-get install chromium")
def test_the_page_in_a_browser(recorded: Path, cli: Call, tmp_path: Path) -> None:
    """It renders without messages on the console, its pictures load, and nothing sticks out, wide and phone-narrow."""
    pytest.importorskip("matplotlib")
    done = cli("report", "run", "--out", "page.html")
    assert (done.code, done.out) == (0, "page.html\n")
    page = (tmp_path / "page.html").read_text()
    frames = "".join(f'<iframe width="{w}" height="900" srcdoc="{html.escape(page)}"></iframe>' for w in WIDTHS)
    look = """
        const seen = [...document.querySelectorAll("iframe")].map(f => {
            const d = f.contentDocument;
            return {
                title: d.title, pictures: [...d.images].map(i => i.complete && i.naturalWidth > 0),
                wide: d.documentElement.scrollWidth - d.documentElement.clientWidth,
                text: d.body.innerText.length,
            };
        });
        document.body.textContent = JSON.stringify(seen);
    """
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<!doctype html><meta charset="utf-8"><body>{frames}'
        f'<script>addEventListener("load", () => setTimeout(() => {{{look}}}, 50));</script>'
    )
    seen, console = _dump(frame, tmp_path)
    assert "CONSOLE" not in console, console
    assert len(seen) == len(WIDTHS)
    for one in seen:
        assert one["title"] == "smd/smd2: locally-optimal"
        assert one["wide"] == 0
        assert one["text"] > 500
        assert len(one["pictures"]) >= 3
        assert all(one["pictures"])


def _dump(file: Path, folder: Path) -> tuple[list[dict[str, Any]], str]:
    """What the page's script found, and what the browser said."""
    assert BROWSER is not None
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions"]
    command += [f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=10000"]
    command += ["--window-size=1400,1000", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    found = re.search(r"<body>(.*?)</body>", done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found.group(1))), done.stderr
