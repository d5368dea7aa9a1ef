"""Fixtures of the core's tests."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from bilevel_core.plugins.registry import get_registry

from .fake_plugins import Install


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Write a distribution as an installer would: a module, and a dist-info folder with entry points and metadata."""
    for variable in ("BILEVEL_NO_PLUGINS", "BILEVEL_DISABLE_PLUGINS", "BILEVEL_STRICT_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    numbers = itertools.count()
    modules: list[str] = []

    def write(
        dist: str, code: str, *, name: str = "", version: str = "1.0", metadata: str | None = None, points: str = ""
    ) -> None:
        site = tmp_path / f"site{next(numbers)}"
        module = f"{dist.replace('-', '_')}_plugin"
        info = site / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(textwrap.dedent(code))
        (info / "entry_points.txt").write_text(points or f"[bilevel]\n{name or dist} = {module}\n")
        if metadata is None:
            metadata = f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata)
        modules.append(module)
        monkeypatch.syspath_prepend(str(site))

    yield write
    monkeypatch.undo()
    for module in modules:
        sys.modules.pop(module, None)
    get_registry(fresh=True)
