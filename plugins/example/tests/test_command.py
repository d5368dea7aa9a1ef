"""The command, called as the command line calls it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from bilevel_core.errors import UsageError
from bilevel_example.commands import app


def test_income() -> None:
    done = CliRunner().invoke(app, ["income", "--levy", "3", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"levy": 3.0, "demand": 5.0, "income": 15.0}


def test_a_negative_levy() -> None:
    done = CliRunner().invoke(app, ["income", "--levy", "-1"])
    assert isinstance(done.exception, UsageError)
    with pytest.raises(UsageError, match="at least 0, got -1"):
        raise done.exception
