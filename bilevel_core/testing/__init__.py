"""The conformance kit: what a solver, a problem or a plugin has to pass, for authors anywhere.

    from bilevel_core.testing import SolverConformance

    class TestMine(SolverConformance):
        factory = Mine

pytest runs the checks. Each says in which version of the kit it came in (`bilevel_core.testing.check.since`); a class
with ``up_to = "0.1"`` is held to those that were there in 0.1, so that a newer kit does not break the tests of an older
plugin.

The checks themselves are plain functions that raise `Failed`; they need no pytest, and `bilevel plugins check` runs
those of plugins.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bilevel_core.testing.check import Failed, NotApplicable
    from bilevel_core.testing.conformance import PluginConformance, ProblemConformance, SolverConformance
    from bilevel_core.testing.runner import Case

_LAZY = {
    "Case": "bilevel_core.testing.runner",
    "Failed": "bilevel_core.testing.check",
    "NotApplicable": "bilevel_core.testing.check",
    "PluginConformance": "bilevel_core.testing.conformance",
    "ProblemConformance": "bilevel_core.testing.conformance",
    "SolverConformance": "bilevel_core.testing.conformance",
}

__all__ = ["Case", "Failed", "NotApplicable", "PluginConformance", "ProblemConformance", "SolverConformance"]


def __getattr__(name: str) -> Any:
    # The classes need pytest, the checks of plugins do not.
    if name not in _LAZY:
        raise AttributeError(f"module 'bilevel_core.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
