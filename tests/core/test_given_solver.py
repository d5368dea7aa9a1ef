"""A solver is given by name, by ``module:Class``, as a class or as an instance."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.choose import find_solver, options_with
from bilevel_core.plugins.registry import get_registry
from bilevel_core.solvers.hypergradient.solver import HypergradientDescent
from bilevel_core.solvers.kkt.solver import KKT
from bilevel_core.solvers.sample.methods import Random


def problem() -> Any:
    return get_registry().problems["classic/bard-511"].load()()


def follow(x: dict[str, Any], call: Any) -> bl.Answer:
    return bl.Answer({"w": x["a"]}, upper=(x["a"] - 0.3) ** 2, lower=0.0)


def nested() -> bl.NestedProblem:
    return bl.NestedProblem((bl.Continuous("a", 0.0, 1.0),), follow, name="test/nested")


@dataclass(frozen=True)
class Fewest(Random):
    """Not registered."""

    budget_note: str = field(default="", metadata={"help": "kept in the record"})


def test_a_class_and_an_instance_do_what_the_name_does() -> None:
    by_name = bl.solve(problem(), "kkt")
    for given in (KKT, KKT(), "bilevel_core.solvers.kkt.solver:KKT"):
        result = bl.solve(problem(), given)
        assert (result.status, result.upper_objective) == (by_name.status, by_name.upper_objective)
        assert result.options == by_name.options
    assert bl.solve(problem(), KKT).solver == "kkt"
    assert find_solver(KKT(), get_registry())[0] == "kkt"


def test_the_options_of_an_instance_are_those_of_the_run() -> None:
    mine = Random(lower_solves=7)
    assert bl.solve(nested(), mine, verify=False).counts["lower_solves"] == 7
    assert bl.solve(nested(), mine, {"lower-solves": "5"}, verify=False).counts["lower_solves"] == 5
    assert options_with(mine, {"patience": 2}) == {"lower_solves": 7, "patience": 2}
    assert options_with(Random, {"patience": 2}) == {"patience": 2}
    assert options_with("sample.random", {}) == {}


def test_what_is_not_registered_goes_by_its_place() -> None:
    result = bl.solve(nested(), Fewest(lower_solves=3, budget_note="x"), verify=False)
    assert result.solver == f"{Fewest.__module__}:Fewest"
    assert result.options["budget_note"] == "x"
    with pytest.raises(bl.UsageError, match=r"has no option named 'points'|no option .*points"):
        bl.solve(nested(), Fewest, {"points": 3})


def test_a_recorded_run_of_such_a_solver_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options are written down, and the class is found again where it stands."""
    import sys

    monkeypatch.setitem(sys.modules, Fewest.__module__, sys.modules[__name__])
    whole = bl.solve(nested(), Fewest(lower_solves=9), verify=False)
    first = bl.solve(nested(), Fewest(lower_solves=4), verify=False, out=tmp_path / "run")
    assert first.termination == "iteration-limit"
    asked = json.loads((tmp_path / "run" / "run.json").read_text())
    assert asked["options"] == {"lower_solves": 4}
    resumed = bl.resume(nested(), tmp_path / "run", max_iterations=9)
    assert np.array_equal(resumed.x["a"], whole.x["a"])
    assert resumed.counts["lower_solves"] == 9


def test_what_is_no_solver_is_refused() -> None:
    with pytest.raises(bl.UsageError, match=r"'bilevel_core:Result' is no solver: expected a subclass"):
        bl.solve(problem(), "bilevel_core:Result")
    for nowhere in ("nowhere_at_all:Mine", "nowhere.at.all:Mine", ":Mine"):
        with pytest.raises(bl.UsageError, match=f"no module here or on the Python path to take the solver '{nowhere}'"):
            bl.solve(problem(), nowhere)
    with pytest.raises(bl.UsageError, match="Expected a solver's name, an instance or a class"):
        bl.solve(problem(), bl.Result)  # type: ignore[arg-type]
    with pytest.raises(bl.UsageError, match="Expected a solver's name, an instance or a class"):
        bl.solve(problem(), 3)  # type: ignore[arg-type]
    with pytest.raises(bl.RefusedError, match="does not take this problem"):
        bl.solve(nested(), HypergradientDescent())
