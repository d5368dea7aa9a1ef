"""`bilevel`: optimisation problems with an optimisation problem inside, solved and independently checked.

    import bilevel_core as bl
    result = bl.solve(problem)

Importing this package is light; names that need Pyomo or another large package are resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bilevel_core.hooks import HOOK_API, hookimpl

if TYPE_CHECKING:
    from bilevel_core.api import classify, resume, solve, verify
    from bilevel_core.choose import Classification
    from bilevel_core.errors import BackendError, BilevelError, MissingError, ModelError, RefusedError, UsageError
    from bilevel_core.hypergradients.public import hypergradient
    from bilevel_core.plugins.specs import KnownOptimum, ProblemSpec, SolverSpec
    from bilevel_core.problems.base import AlgebraicProblem, Problem
    from bilevel_core.problems.cvxpy import CvxpyProblem
    from bilevel_core.problems.mps import MpsProblem, read_mps
    from bilevel_core.problems.mps_write import write_mps
    from bilevel_core.problems.pyomo import Follower, PyomoProblem
    from bilevel_core.problems.torch import TorchProblem
    from bilevel_core.result import Certificate, Claim, Result, Status, Termination, Verdict
    from bilevel_core.run.context import Event, RunContext
    from bilevel_core.solvers.base import Accepted, Refused, Solver
    from bilevel_core.traits import Traits

_LAZY = {
    "solve": "bilevel_core.api",
    "resume": "bilevel_core.api",
    "verify": "bilevel_core.api",
    "classify": "bilevel_core.api",
    "Classification": "bilevel_core.choose",
    "BilevelError": "bilevel_core.errors",
    "UsageError": "bilevel_core.errors",
    "ModelError": "bilevel_core.errors",
    "RefusedError": "bilevel_core.errors",
    "MissingError": "bilevel_core.errors",
    "BackendError": "bilevel_core.errors",
    "KnownOptimum": "bilevel_core.plugins.specs",
    "ProblemSpec": "bilevel_core.plugins.specs",
    "SolverSpec": "bilevel_core.plugins.specs",
    "Problem": "bilevel_core.problems.base",
    "AlgebraicProblem": "bilevel_core.problems.base",
    "CvxpyProblem": "bilevel_core.problems.cvxpy",
    "MpsProblem": "bilevel_core.problems.mps",
    "read_mps": "bilevel_core.problems.mps",
    "write_mps": "bilevel_core.problems.mps_write",
    "Follower": "bilevel_core.problems.pyomo",
    "PyomoProblem": "bilevel_core.problems.pyomo",
    "TorchProblem": "bilevel_core.problems.torch",
    "hypergradient": "bilevel_core.hypergradients.public",
    "Certificate": "bilevel_core.result",
    "Claim": "bilevel_core.result",
    "Result": "bilevel_core.result",
    "Status": "bilevel_core.result",
    "Termination": "bilevel_core.result",
    "Verdict": "bilevel_core.result",
    "Event": "bilevel_core.run.context",
    "RunContext": "bilevel_core.run.context",
    "Accepted": "bilevel_core.solvers.base",
    "Refused": "bilevel_core.solvers.base",
    "Solver": "bilevel_core.solvers.base",
    "Traits": "bilevel_core.traits",
}

__version__ = "0.1.0"
__all__ = [
    "HOOK_API",
    "Accepted",
    "AlgebraicProblem",
    "BackendError",
    "BilevelError",
    "Certificate",
    "Claim",
    "Classification",
    "CvxpyProblem",
    "Event",
    "Follower",
    "KnownOptimum",
    "MissingError",
    "ModelError",
    "MpsProblem",
    "Problem",
    "ProblemSpec",
    "PyomoProblem",
    "Refused",
    "RefusedError",
    "Result",
    "RunContext",
    "Solver",
    "SolverSpec",
    "Status",
    "Termination",
    "TorchProblem",
    "Traits",
    "UsageError",
    "Verdict",
    "classify",
    "hookimpl",
    "hypergradient",
    "read_mps",
    "resume",
    "solve",
    "verify",
    "write_mps",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        try:
            return getattr(importlib.import_module(_LAZY[name]), name)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise ImportError(
                f"bilevel_core.{name} needs torch. Install it with: pip install 'bilevel[torch]'"
            ) from error
    raise AttributeError(f"module 'bilevel_core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
