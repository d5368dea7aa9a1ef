"""A way to call the command line in this process, in a folder of the test's own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bilevel_cli.__main__ import main


@dataclass(frozen=True)
class Outcome:
    """What a call printed and returned."""

    code: int
    out: str
    err: str


Call = Callable[..., Outcome]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """``cli("toll", "equilibrium", "braess")``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["bilevel", *arguments])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return call
