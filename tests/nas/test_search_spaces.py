"""The solver `supernet` over every search space."""

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="architecture search needs torch")

import bilevel_core as bl  # noqa: E402
from bilevel_nas.spaces import SPACES  # noqa: E402

from .small import graphs, problem  # noqa: E402
from .test_spaces import SMALL  # noqa: E402


@pytest.mark.parametrize("space", list(SPACES))
def test_every_space_is_searched(space: str) -> None:
    data = graphs() if space == "graph" else None
    small = problem(space, SMALL[space], data=data, budget=2.0, final_epochs=0)
    options = {"preset": "auxiliary", "batch": 16, "second_order_batch": 16, "every": 2, "hyper": "aux:2"}
    result = bl.solve(small, "supernet", options, verify=False)
    assert result.details["architecture"].startswith(small.search_space.name)
    assert result.details["joint_steps_accepted"] >= 0.0
