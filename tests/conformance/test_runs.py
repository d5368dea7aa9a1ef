"""What the kit asks of a run as such, of every registered solver of the core that takes a small smooth problem, tensors
or functions: resume, seed, time, stop, and an unchanged input. Whether they find the optimum is in test_solvers.py.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest

from bilevel_core.plugins.registry import get_registry
from bilevel_core.solvers.sample.solver import SamplingSolver
from bilevel_core.testing import NotApplicable, solver_checks
from bilevel_core.testing.problems import OTHER_FORMS
from bilevel_core.testing.runner import Case, Runner, case_of

TENSORS, FUNCTIONS = OTHER_FORMS
CHECKS: dict[str, Callable[..., None]] = {
    f.__name__: f
    for f in (
        solver_checks.resume_equals_uninterrupted,
        solver_checks.seed_reproduces,
        solver_checks.zero_time_claims_little,
        solver_checks.stop_honoured,
        solver_checks.input_unchanged,
    )
}
WHERE: dict[str, tuple[Case, ...]] = {
    "kkt": (case_of("classic/bard-511"),),
    "branch-and-cut": (case_of("classic/moore-bard"),),
    "global": (case_of("classic/bard-511"),),
    "auxiliary": (case_of("smd/smd1"), TENSORS),
    "trust-region": (case_of("smd/smd1"), TENSORS),
    "hypergradient": (case_of("smd/smd1"), TENSORS),
    "penalty": (case_of("classic/bard-511"), TENSORS),
    "bleaq": (case_of("smd/smd1"),),
    "sample.cma": (case_of("classic/bard-1991-1"),),
}
"""What each is run on; sampling solvers on functions where nothing is said."""
PACKAGES = {"sample.bayes": "optuna", "sample.cma": "cma", "sample.nsga2": "pymoo"}
SOLVERS = sorted(n for n in get_registry().solvers if get_registry().owners["solvers", n].name == "builtin")


def options_of(name: str, factory: Any) -> dict[str, Any]:
    if not issubclass(factory, SamplingSolver):
        return {}
    return {"lower_solves": 12, "box": 5.0, **({"population": 4} if name == "sample.nsga2" else {})}


@pytest.mark.parametrize("name", SOLVERS)
def test_a_run_keeps_its_promises(name: str) -> None:
    if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{PACKAGES[name]} is not installed")
    factory = get_registry().solvers[name].load()
    runner = Runner(factory, options_of(name, factory))
    seen = 0
    for case in WHERE.get(name, (FUNCTIONS,)):
        try:
            runner.takes(case.make())
        except NotApplicable as reason:
            if "torch is not installed" not in str(reason):
                raise
            continue
        for label, check in CHECKS.items():
            try:
                check(runner, case)
            except NotApplicable:
                # Only those without a state to go on from may pass by, and runs that are over in one step.
                assert label == "resume_equals_uninterrupted"
                assert not factory.resumable or case.name == "classic/bard-511"
        seen += 1
    assert seen
