"""`bilevel doctor`: what works is said to work, what does not is named with what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bilevel_cli import doctor

from .conftest import Call


def test_all_is_well(cli: Call) -> None:
    done = cli("doctor", "-f", "json")
    assert done.code == 0, done.out
    data = json.loads(done.out)
    assert (data["schema"], data["healthy"], data["troubles"]) == ("bilevel.doctor/1", True, [])
    assert all(data["packages"].values())
    assert {b["name"] for b in data["backends"] if b["works"]} >= {"highs", "scip", "ipopt"}
    assert data["solve"]["works"]
    assert all(data["writable"].values())
    assert data["cores"] >= 1
    if data["optional"]["torch"]:
        assert data["torch"][0]["device"] == "cpu"
        assert all(d["works"] for d in data["torch"])
    text = cli("doctor").out
    assert text.rstrip().endswith("all is well")
    assert "classic/bard-511 by kkt, optimal" in text


def test_troubles_come_with_what_to_do(cli: Call, plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin("crash", "raise RuntimeError('no such luck')")
    plugin(
        "licence",
        """
        from bilevel_core import hookimpl
        from bilevel_core.plugins.specs import BackendSpec, DoctorSpec

        @hookimpl
        def bilevel_backends():
            yield BackendSpec("gone", "a_package_that_is_not_there:It", install="pip install gone")

        @hookimpl
        def bilevel_doctor():
            yield DoctorSpec("licence", "licence_plugin:licence")

        def licence():
            return False, "the licence has run out"
        """,
    )
    version = doctor._version
    monkeypatch.setattr(
        doctor, "_version", lambda name: None if name in ("casadi", "torch", "optuna") else version(name)
    )
    monkeypatch.setattr(doctor, "_writable", lambda folder: False)
    monkeypatch.setattr(doctor, "PROBE", "classic/gone")
    done = cli("doctor", "-f", "json")
    data = json.loads(done.out)
    assert done.code == 6
    assert not data["healthy"]
    for words in (
        "casadi is not installed: pip install",
        "backend gone does not work",
        "pip install gone",
        "classic/gone could not be solved: There is no problem named",
        "files cannot be written in the working directory",
        "plugin crash of crash is broken",
        "BILEVEL_DISABLE_PLUGINS=crash",
        "licence: the licence has run out",
    ):
        assert any(words in t for t in data["troubles"]), data["troubles"]
    assert not any("torch" in t or "optuna" in t for t in data["troubles"]), "what is optional is no trouble"
    text = cli("doctor").out
    assert "TROUBLE: casadi" in text
    assert "sample.bayes: pip install 'bilevel[sampling]'" in text
