"""The hooks. Descriptions only: what they name as "module:attribute" is imported on use."""

from __future__ import annotations

from bilevel_core import KnownOptimum, ProblemSpec, SolverSpec, hookimpl
from bilevel_core.plugins.specs import CommandSpec

BILEVEL_HOOK_API = 1


@hookimpl
def bilevel_problems() -> list[ProblemSpec]:
    """The problem, shown by ``bilevel problems``."""
    return [
        ProblemSpec(
            "example/levy",
            "bilevel_example.problem:levy",
            "a levy on a good, and buyers who answer it",
            known=KnownOptimum(16.0, "by hand: size^2 / 4, at half the size"),
            tags=frozenset({"quadratic", "toy"}),
        )
    ]


@hookimpl
def bilevel_solvers() -> list[SolverSpec]:
    """The solver. Its priority is negative: ``auto`` never takes it, since it proves nothing."""
    return [
        SolverSpec(
            "example.grid",
            "bilevel_example.solver:Grid",
            "a look: values of one leader's variable on a grid",
            priority=-20,
        )
    ]


@hookimpl
def bilevel_commands() -> list[CommandSpec]:
    """``bilevel example ...``."""
    return [CommandSpec("example", "bilevel_example.commands:app", "The income from a levy.")]
