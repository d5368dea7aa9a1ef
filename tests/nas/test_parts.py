"""The parts of a search by name: that each does what it says, what goes together, and what has no effect on a space."""

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="architecture search needs torch")

import bilevel_core as bl  # noqa: E402
from bilevel_core.errors import UsageError  # noqa: E402
from bilevel_nas.solver import Supernet  # noqa: E402

from .small import problem  # noqa: E402
from .test_search import SHORT, TINY, short  # noqa: E402
from .test_spaces import SMALL  # noqa: E402


def test_a_cost_cap_holds_whatever_the_preset() -> None:
    small = problem("cell201", TINY, cost_cap=12.0, budget=3.0, final_epochs=0)
    for preset, more in (
        ("darts1", {}),
        ("auxiliary", {"reg": "cost:1"}),
        ("gdas", {}),
        ("fair-darts", {}),
        ("darts-plus", {}),
        ("darts-pt", {"budget": 24.0}),
        ("ostr-darts", {"budget": 24.0}),
        ("once-for-all", {"budget": 24.0}),
    ):
        result = bl.solve(small, "supernet", {"preset": preset, **short(preset), **more}, verify=False)
        assert result.details["cost"] <= 12.0, preset


@pytest.mark.parametrize(
    ("options", "spent"),
    [
        ({"hyper": "unroll:2"}, {"hessian_products": 2, "mixed_products": 2}),
        ({"reg": "entropy"}, {}),
        ({"disc": "top2"}, {}),
        ({"disc": "budgeted"}, {}),
        ({"disc": "skips:1"}, {}),
        ({"relax": "sigmoid", "disc": "threshold"}, {}),
        ({"stop": "eigenvalue:1e-4", "warm": 0.0, "every": 1}, {}),
    ],
    ids=lambda o: " ".join(f"{k}={v}" for k, v in o.items()),
)
def test_parts_that_are_in_no_preset_run_a_short_search(options: dict[str, Any], spent: dict[str, int]) -> None:
    """What each does is tested by itself; here, that the search does it."""
    space = {"nodes": 4, "stages": 1} if options.get("disc") else TINY
    small = problem("cell201", space, budget=40.0 if "stop" in options else 6.0, final_epochs=0)
    result = bl.solve(small, "supernet", {"preset": "darts1", **SHORT, **options}, seed=4, verify=False)
    codes = small.architecture(result.x)
    steps = result.counts["architecture_steps"]
    assert steps > 0
    assert {k: result.counts[k] / steps for k in spent} == spent
    if options.get("disc") in ("top2", "threshold"):
        inputs = [d.node for d, c in zip(small.search_space.decisions, codes, strict=True) if c != d.zero]
        assert max(inputs.count(node) for node in inputs) <= 2
    if options.get("disc") == "skips:1":
        assert codes.count(1) <= 1
    if "stop" in options:
        assert "eigenvalue grew" in result.details["stopped_because"]
        assert result.details["pass_equivalents"] < 40.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preset": "dart"}, "preset"),
        ({"hyper": "newton"}, "hyper"),
        ({"hyper": "cg:-1"}, "positive number"),
        ({"preset": "darts2", "activation": "relu"}, "second derivatives"),
        ({"preset": "darts1", "mask": "sample1"}, "gumbel"),
        ({"preset": "enas", "mask": "full"}, "sample1"),
        ({"preset": "darts1", "reg": "zero-one"}, "sigmoid"),
        ({"preset": "darts1", "reg": "beta+beta"}, "twice"),
        ({"relax": "softmax:2"}, "no argument"),
        ({"hyper": "cg:2.5"}, "integer"),
        ({"preset": "once-for-all", "stop": "skips"}, "limit on skips"),
        ({"warm": 1.5}, "warm"),
        ({"budget": -1}, "budget"),
        ({"preset": "darts1", "damping": 0.2}, "no effect"),
        ({"preset": "implicit", "radius": 0.1}, "no effect"),
        ({"preset": "auxiliary", "architecture_rate": 0.1}, "no effect"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Supernet(**options)


@pytest.mark.parametrize(
    ("space", "options", "said"),
    [
        ("macro", {"preset": "fair-darts"}, "leave out edges"),
        ("macro", {"preset": "darts1", "edges": True}, "no edges"),
        ("mlp", {"preset": "random-features"}, "lower=freeze"),
        ("mlp", {"preset": "darts-plus"}, "stop=skips"),
        ("mlp", {"preset": "p-darts"}, "disc=skips"),
        ("mlp", {"preset": "darts1", "reg": "skip-dropout"}, "reg=skip-dropout"),
        ("mlp", {"preset": "darts1", "mask": "partial:2"}, "needs channels"),
        ("macro", {"preset": "darts1", "mask": "prune:3"}, "takes nothing away"),
    ],
    ids=str,
)
def test_parts_without_an_effect_on_a_space_are_refused(space: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        bl.solve(problem(space, SMALL[space], budget=4.0), "supernet", {**SHORT, **options})
