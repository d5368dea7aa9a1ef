"""The hooks of architecture search. Descriptions only; the code is imported on use."""

from __future__ import annotations

from bilevel_core.hooks import hookimpl
from bilevel_core.plugins.specs import CommandSpec, FigureSpec, ProblemSpec, SolverSpec

BILEVEL_HOOK_API = 1

INSTALL = "pip install 'bilevel[nas]'"


@hookimpl
def bilevel_problems() -> list[ProblemSpec]:
    """Images to search on, and tables."""
    tags = frozenset({"nas", "architecture"})
    return [
        ProblemSpec(
            "nas/fashion",
            "bilevel_nas.library:fashion",
            "cells for Fashion-MNIST (for digits where it is missing): the demo of architecture search",
            install=INSTALL,
            tags=tags | {"images", "demo"},
        ),
        ProblemSpec(
            "nas/images",
            "bilevel_nas.library:images",
            "any labelled data and any search space",
            install=INSTALL,
            tags=tags | {"images"},
        ),
        ProblemSpec(
            "nas/table",
            "bilevel_nas.table:nas_bench",
            "NAS-Bench-201: cells whose accuracies are looked up in a table",
            tags=tags | {"table"},
        ),
        ProblemSpec(
            "nas/any-table",
            "bilevel_nas.table:any_table",
            "a table of architectures and accuracies of your own, or NAS-Bench-Macro",
            tags=tags | {"table"},
        ),
    ]


@hookimpl
def bilevel_solvers() -> list[SolverSpec]:
    """Search on a supernet, in all its variants."""
    return [
        SolverSpec(
            "supernet",
            "bilevel_nas.solver:Supernet",
            "architecture search on one network that holds all: DARTS and its kin, the auxiliary program",
            install=INSTALL,
            priority=20,
            structure="architecture",
        )
    ]


@hookimpl
def bilevel_figures() -> list[FigureSpec]:
    """The architecture found, of recorded runs."""
    return [
        FigureSpec(
            "nas/cell",
            "bilevel_nas.picture:cell",
            "the architecture that the search found",
            install="pip install 'bilevel[plot]'",
        )
    ]


@hookimpl
def bilevel_commands() -> list[CommandSpec]:
    """The group ``bilevel nas``."""
    return [CommandSpec("nas", "bilevel_nas.commands:app", "Architecture search: presets, spaces, tables, files.")]
