"""Problems of the tests, at the top of a module so that other processes can have them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

import bilevel_core as bl

MIXED = (
    bl.Integer("i", -3, 8),
    bl.Integer("j", 0, 6),
    bl.Categorical("c", ("a", "b", "d")),
)
"""252 points; the optimum of `follow_mixed` is i=5, j=2, c=b with the value 0."""

CONDITIONAL = (
    bl.Categorical("kind", ("linear", "net")),
    bl.Integer("depth", 1, 4, bl.Condition("kind", ("net",))),
    bl.Categorical("act", ("relu", "tanh"), bl.Condition("depth", (3, 4))),
)
"""1 + 2 + 2 * 2 = 7 points; the optimum of `follow_conditional` is net, 3, tanh."""


def follow_mixed(x: dict[str, Any], call: bl.Call) -> bl.Answer:
    value = (x["i"] - 5) ** 2 + (x["j"] - 2) ** 2 + (x["c"] != "b")
    return bl.Answer({"y": x["i"] + 0.5}, float(value), 0.0)


def follow_conditional(x: dict[str, Any], call: bl.Call) -> bl.Answer:
    value = {"linear": 5.0, "net": 4.0}[x["kind"]] - (x.get("depth") == 3) - 0.5 * (x.get("act") == "tanh")
    return bl.Answer({"y": value}, value, 0.0)


def follow_trained(x: dict[str, Any], call: bl.Call) -> bl.Answer:
    """A follower that is trained: budget is steps, and the state is where it stands; more steps come nearer to x."""
    start = 0.0 if call.start is None else float(np.asarray(call.start).reshape(-1)[0])
    steps = round(27 * call.budget)
    y = start
    for _ in range(steps):
        y += 0.2 * (x["u"] - y)
    return bl.Answer({"y": y}, (y - 2.0) ** 2, (y - x["u"]) ** 2, state=np.array([y]))


def follow_two(x: dict[str, Any], call: bl.Call) -> bl.Answer:
    """Two objectives, u^2 and (u - 2)^2: every u in [0, 2] is Pareto optimal."""
    return bl.Answer({"y": x["u"]}, (x["u"] ** 2, (x["u"] - 2.0) ** 2), 0.0)


def follow_mortal(x: dict[str, Any], call: bl.Call) -> bl.Answer:
    """Like `follow_mixed`, but the process dies at i = 4: the first time, or every time, as the environment says."""
    marks = Path(os.environ["BILEVEL_TEST_MARKS"])
    limit = int(os.environ["BILEVEL_TEST_DEATHS"])
    if x["i"] == 4:
        died = len(list(marks.glob("death-*")))
        if died < limit:
            (marks / f"death-{died}-{os.getpid()}").touch()
            os._exit(9)
    return follow_mixed(x, call)


def mixed() -> bl.NestedProblem:
    return bl.NestedProblem(MIXED, follow_mixed, name="mixed", exact=True)


def mortal() -> bl.NestedProblem:
    return bl.NestedProblem(MIXED, follow_mortal, name="mortal")


def conditional() -> bl.NestedProblem:
    return bl.NestedProblem(CONDITIONAL, follow_conditional, name="conditional", exact=True)


def trained() -> bl.NestedProblem:
    return bl.NestedProblem((bl.Continuous("u", -5.0, 5.0),), follow_trained, name="trained")


def two() -> bl.NestedProblem:
    return bl.NestedProblem(
        (bl.Continuous("u", -5.0, 5.0), bl.Integer("k", 0, 1)), follow_two, objectives=("near", "far"), name="two"
    )
