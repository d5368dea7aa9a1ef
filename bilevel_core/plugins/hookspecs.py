"""The hooks that a plugin may implement. Every one is optional.

A plugin is a module (or object) named under the entry-point group ``bilevel`` of its distribution:

    [project.entry-points.bilevel]
    mine = "my_package.plugin"

Functions in it that are marked with ``@hookimpl`` (``from bilevel_core import hookimpl``) and have the name of a hook
are called. A hook may leave out arguments that it does not need. Registration hooks (those without arguments) return
descriptions that name their code as "module:attribute", so that the plugin module itself stays light; they are
called once a process. Observer hooks (those with arguments) are called during a solve.

Each plugin is called apart from the others, so hook wrappers and ``firstresult`` have no place here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bilevel_core.hooks import hookspec

if TYPE_CHECKING:
    from bilevel_core.plugins.specs import (
        BackendSpec,
        CheckSpec,
        CommandSpec,
        DoctorSpec,
        ExecutorSpec,
        ExporterSpec,
        FigureSpec,
        LoaderSpec,
        ProblemSpec,
        ReformulationSpec,
        ReporterSpec,
        SolverSpec,
    )
    from bilevel_core.result import Result
    from bilevel_core.run.context import Event, RunContext


@hookspec
def bilevel_problems() -> Iterable[ProblemSpec]:  # type: ignore[empty-body]
    """Offer named problems, shown by ``bilevel problems``.

    Example:
        @hookimpl
        def bilevel_problems():
            yield ProblemSpec("mine/market", "my_package.market:market", "two firms and a price")
    """


@hookspec
def bilevel_solvers() -> Iterable[SolverSpec]:  # type: ignore[empty-body]
    """Offer solvers, shown by ``bilevel solvers`` and considered by ``solver="auto"``.

    Example:
        @hookimpl
        def bilevel_solvers():
            return [SolverSpec("descent", "my_package.descent:Descent", "projected descent", priority=10)]
    """


@hookspec
def bilevel_reformulations() -> Iterable[ReformulationSpec]:  # type: ignore[empty-body]
    """Offer reductions that solvers may put in their chains.

    ``kkt`` puts only its own there; a solver of yours finds yours in ``get_registry().reformulations``.

    Example:
        @hookimpl
        def bilevel_reformulations():
            yield ReformulationSpec("duality", "my_package.duality:StrongDuality", "strong duality in place of pairs")
    """


@hookspec
def bilevel_backends() -> Iterable[BackendSpec]:  # type: ignore[empty-body]
    """Offer solvers of single-level programs, shown by ``bilevel backends``.

    Example:
        @hookimpl
        def bilevel_backends():
            yield BackendSpec("mine", "my_package.backend:Mine", "mixed-integer", install="pip install mine")
    """


@hookspec
def bilevel_loaders() -> Iterable[LoaderSpec]:  # type: ignore[empty-body]
    """Offer readers of problem files, chosen by the file's suffix.

    Example:
        @hookimpl
        def bilevel_loaders():
            yield LoaderSpec("gmns", "my_package.files:read", "GMNS networks", suffixes=(".gmns",))
    """


@hookspec
def bilevel_exporters() -> Iterable[ExporterSpec]:  # type: ignore[empty-body]
    """Offer writers of problem files, chosen by the file's suffix: ``bilevel export PROBLEM FILE``.

    Example:
        @hookimpl
        def bilevel_exporters():
            yield ExporterSpec("aux", "my_package.files:write", "MPS with its AUX file", suffixes=(".mps",))
    """


@hookspec
def bilevel_reporters() -> Iterable[ReporterSpec]:  # type: ignore[empty-body]
    """Offer renderings of a result, each an output format by its name.

    Example:
        @hookimpl
        def bilevel_reporters():
            yield ReporterSpec("latex", "my_package.latex:table", "a LaTeX table")
    """


@hookspec
def bilevel_figures() -> Iterable[FigureSpec]:  # type: ignore[empty-body]
    """Offer figures of recorded runs, drawn by ``bilevel plot`` and shown by ``bilevel report``.

    Example:
        @hookimpl
        def bilevel_figures():
            yield FigureSpec("market/shares", "my_package.figures:shares", "the firms' shares of the market")
    """


@hookspec
def bilevel_checks() -> Iterable[CheckSpec]:  # type: ignore[empty-body]
    """Offer extra checks of a point, run with the verification.

    Example:
        @hookimpl
        def bilevel_checks():
            yield CheckSpec("flow-balance", "my_package.checks:balance", "what enters a node leaves it")
    """


@hookspec
def bilevel_executors() -> Iterable[ExecutorSpec]:  # type: ignore[empty-body]
    """Offer places where work that fans out runs, chosen by ``--executor NAME[:ARGUMENT]``.

    Example:
        @hookimpl
        def bilevel_executors():
            yield ExecutorSpec("grid", "my_package.grid:connect", "the grid at ADDRESS", install="pip install grid")
    """


@hookspec
def bilevel_commands() -> Iterable[CommandSpec]:  # type: ignore[empty-body]
    """Offer groups of sub-commands: ``bilevel NAME ...``.

    Example:
        @hookimpl
        def bilevel_commands():
            yield CommandSpec("market", "my_package.commands:app", "tools for market problems")
    """


@hookspec
def bilevel_doctor() -> Iterable[DoctorSpec]:  # type: ignore[empty-body]
    """Offer lines of ``bilevel doctor``.

    Example:
        @hookimpl
        def bilevel_doctor():
            yield DoctorSpec("licence", "my_package.doctor:licence", "whether the licence file is found")
    """


@hookspec
def bilevel_solve_start(run: RunContext) -> None:
    """Watch a solve begin.

    Args:
        run: the run's context: time limit, seed, trace.

    Example:
        @hookimpl
        def bilevel_solve_start(run):
            log.info("seed %d, limit %s s", run.seed, run.time_limit)
    """


@hookspec
def bilevel_iteration(event: Event) -> bool | None:
    """Watch the progress of a solve; return True to ask the solver to stop at its next chance.

    Args:
        event: kind, time in seconds since the start, and figures.

    Example:
        @hookimpl
        def bilevel_iteration(event):
            return event.kind == "incumbent" and event.time > 60
    """


@hookspec
def bilevel_solve_end(run: RunContext, result: Result) -> None:
    """Watch a solve end with a result, whatever its status.

    Args:
        run: the run's context.
        result: what the solve gives back, certificate included.

    Example:
        @hookimpl
        def bilevel_solve_end(result):
            log.info("%s %s", result.status, result.upper_objective)
    """


@hookspec
def bilevel_solve_error(run: RunContext, error: BaseException) -> None:
    """Watch a solve end with an exception, which is raised on after the hooks.

    Args:
        run: the run's context.
        error: what was raised.

    Example:
        @hookimpl
        def bilevel_solve_error(run, error):
            log.error("failed after %.1f s: %s", run.elapsed, error)
    """
