"""`Result`: the derived status, the order of claims, JSON there and back, the schema, and the text."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from bilevel_core.report import details_text
from bilevel_core.result import Certificate, Claim, Result, Status, Termination, Values, Verdict, plain
from bilevel_core.run.record import RunRecord, read_result

SCHEMA = json.loads(files("bilevel_core").joinpath("result.schema.json").read_text())
VERIFIED = Certificate(Verdict.VERIFIED, 0.0, 0.0, 0.0, 4.0, "global", "unique", reason="Fine.")


def point(**changes: Any) -> Result:
    start = Result(
        Termination.CONVERGED,
        Claim.GLOBAL,
        x=Values({"x": np.array(4.0)}),
        y=Values({"follower.y": np.array([1.0, np.nan]), "flow": np.arange(6.0).reshape(2, 3)}),
        upper_objective=-12.0,
        lower_objective=4.0,
        bound=-12.0,
        certificate=VERIFIED,
        trace=({"time": 0.1, "objective": -12.0, "bound": None},),
        solver="kkt",
        options={"gap": 1e-6},
        seed=3,
        wall_time=0.5,
        counts={"nodes": 2},
        versions={"bilevel": "0"},
        problem="some/problem",
        details={"revenue": 7.0, "tolls": [{"arc": "1-2", "toll": 5.0}]},
    )
    return dataclasses.replace(start, **changes)


def without(termination: Termination) -> Result:
    return Result(termination)


def checked(verdict: Verdict, scope: str = "global") -> Certificate:
    return Certificate(verdict, lower_scope=scope)


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (point(), Status.OPTIMAL),
        (point(certificate=checked(Verdict.VERIFIED, "local")), Status.LOCALLY_OPTIMAL),
        (point(claim=Claim.LOCAL), Status.LOCALLY_OPTIMAL),
        (point(claim=Claim.STATIONARY), Status.FEASIBLE),
        (point(claim=Claim.FEASIBLE), Status.FEASIBLE),
        (point(certificate=None), Status.FEASIBLE),
        (point(certificate=checked(Verdict.UNVERIFIABLE)), Status.FEASIBLE),
        (point(certificate=checked(Verdict.REFUTED)), Status.REFUTED),
        (point(termination=Termination.ERROR), Status.ERROR),
        (without(Termination.INFEASIBLE), Status.INFEASIBLE),
        (without(Termination.LOWER_INFEASIBLE), Status.INFEASIBLE),
        (without(Termination.UNBOUNDED), Status.UNBOUNDED),
        (without(Termination.LOWER_UNBOUNDED), Status.NO_SOLUTION),
        (without(Termination.TIME_LIMIT), Status.NO_SOLUTION),
        (without(Termination.STOPPED_BY_USER), Status.NO_SOLUTION),
        (without(Termination.ERROR), Status.ERROR),
    ],
)
def test_status(result: Result, status: Status) -> None:
    assert result.status is status
    assert json.loads(result.to_json())["status"] == status


def test_only_a_verified_global_claim_is_optimal() -> None:
    certificates = [None, *(checked(v, s) for v in Verdict for s in ("global", "local"))]
    for claim, certificate, end in itertools.product(Claim, certificates, Termination):
        if point(claim=claim, certificate=certificate, termination=end).status is Status.OPTIMAL:
            assert claim is Claim.GLOBAL
            assert certificate == checked(Verdict.VERIFIED)
            assert end is not Termination.ERROR


def test_claims_are_ordered() -> None:
    order = ["none", "feasible", "stationary", "local", "global"]
    for (i, a), (j, b) in itertools.product(enumerate(order), repeat=2):
        assert (Claim(a) < Claim(b)) is (i < j)
        assert (Claim(a) <= Claim(b)) is (i <= j)
        assert (Claim(a) > b) is (i > j)
        assert (Claim(a) >= b) is (i >= j)
    assert max(Claim) is Claim.GLOBAL


RESULTS = [
    point(),
    point(certificate=None, bound=None),
    point(lower_objective=(1.0, 2.0), certificate=dataclasses.replace(VERIFIED, lower_value=(1.0, math.nan))),
    point(certificate=Certificate(Verdict.UNVERIFIABLE)),
    *(without(t) for t in Termination),
]


@pytest.mark.parametrize("result", RESULTS, ids=lambda r: str(r.status))
def test_json_there_and_back(result: Result) -> None:
    text = result.to_json()
    again = Result.from_json(text)
    assert again.to_json() == text
    assert again.status is result.status
    assert again.claim is result.claim
    assert again.termination is result.termination
    for level in ("x", "y"):
        before, after = getattr(result, level), getattr(again, level)
        assert list(before) == list(after)
        for name in before:
            np.testing.assert_array_equal(before[name], after[name])
    jsonschema.validate(json.loads(text), SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"status": "fine"},
        {"claim": "GLOBAL"},
        {"certificate": {"verdict": "verified"}},
        {"x": {"x": "four"}},
        {"unknown": 1},
        {"schema": "bilevel.result/2"},
        {"trace": [{"time": 1.0}]},
    ],
)
def test_the_schema_can_say_no(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**point().to_dict(), **change}, SCHEMA)


def test_the_schema_lists_every_field() -> None:
    fields = {f.name for f in dataclasses.fields(Result)} | {"schema", "status"}
    assert set(SCHEMA["properties"]) == set(SCHEMA["required"]) == fields
    for name, kind in (("status", Status), ("claim", Claim), ("termination", Termination)):
        assert SCHEMA["properties"][name]["enum"] == [m.value for m in kind]


@pytest.mark.parametrize("text", ["[]", "{}", '{"schema": "bilevel.result/9"}', '"text"'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"bilevel\.result/1"):
        Result.from_json(text)


def test_plain_data() -> None:
    data = {"a-b": [np.float64("inf"), np.int64(2), {"c": (1.0, math.nan)}], "ok": np.bool_(True), "who": Claim.LOCAL}
    assert plain(data) == {"a_b": [None, 2, {"c": [1.0, None]}], "ok": True, "who": "local"}


def test_values_by_short_name() -> None:
    values = Values({"a.flow": np.array(1.0), "b.flow": np.array(2.0), "a.toll": np.array(3.0)})
    assert values["toll"] == 3.0
    with pytest.raises(KeyError, match="ambiguous"):
        values["flow"]
    with pytest.raises(KeyError, match="price"):
        values["price"]


def test_text_says_what_matters() -> None:
    text = str(point(message="A note."))
    assert text.startswith("optimal: ")
    for word in ("some/problem", "kkt", "-12", "verified", "Fine.", "A note.", "follower.y", "revenue", "1-2"):
        assert word in text
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_text_of_a_refuted_point_is_loud_and_gives_the_reason() -> None:
    text = str(point(certificate=Certificate(Verdict.REFUTED, reason="The follower can do better.")))
    assert text.startswith("refuted: ")
    assert any(word.isupper() and len(word) > 3 for word in text.splitlines()[0].split())
    assert "The follower can do better." in text


@pytest.mark.parametrize("end", [t for t in Termination if t.advice])
def test_text_gives_advice(end: Termination) -> None:
    assert end.advice in str(without(end))


def test_long_arrays_and_tables_are_summarised() -> None:
    text = str(point(x=Values({"toll": np.arange(1000.0)})))
    assert "1000 values from 0 to 999" in text
    assert "998" not in text
    rows = "\n".join(details_text({"rows": [{"k": k} for k in range(1000)]}))
    assert "960 more rows" in rows


def test_tables_are_aligned() -> None:
    lines = "\n".join(
        details_text({"tolls": [{"arc": "1-2", "toll": 5.0}, {"arc": "10-11", "toll": 10.25}]})
    ).splitlines()
    table = lines[lines.index("tolls") + 1 :]
    assert len(table) == 3
    assert len({len(line) for line in table}) == 1, "numbers end in one column"


def test_a_record_keeps_the_names_of_variables(tmp_path: Path) -> None:
    """Names such as those of arcs have dashes: what is read back is what was found."""
    result = Result(Termination.CONVERGED, x=Values({"toll[10-16]": np.array(2.0)}), y=Values({"a-b": np.array([1.0])}))
    record = RunRecord(tmp_path)
    record.start({"problem": "p"})
    record.finish(result)
    assert read_result(tmp_path) == result
