"""What plugins hand over: frozen descriptions that name their code as "module:attribute", imported on first use."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

from bilevel_core.errors import MissingError, UsageError


def load(path: str) -> Any:
    """Import the object named ``module:attribute``.

    Raises:
        UsageError: if the path has another form or the attribute does not exist.
        MissingError: if the module, or something it imports, is not installed, or fails at import.
    """
    module, sep, attribute = path.partition(":")
    if not sep or not module or not attribute:
        raise UsageError(f"Expected 'module:attribute', got {path!r}.")
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise MissingError(f"{path!r} cannot be imported: {error}.") from error
    except Exception as error:
        raise MissingError(f"{path!r} fails at import: {type(error).__name__}: {error}.") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UsageError(f"Module {module!r} has no attribute {part!r}.")
        found = getattr(found, part)
    return found


@dataclass(frozen=True)
class Spec:
    """Common to all descriptions.

    Attributes:
        name: how users call it.
        factory: "module:attribute" of the class or function.
        summary: one line for lists.
        install: the command that brings what is missing, shown when the import fails.
    """

    name: str
    factory: str
    summary: str = ""
    install: str = ""

    def load(self) -> Any:
        """Import the code.

        Raises:
            MissingError: with the command that installs it.
        """
        try:
            return load(self.factory)
        except MissingError as error:
            hint = f" Install it with: {self.install}" if self.install else ""
            raise MissingError(f"{self.name}: {error}{hint}") from error


@dataclass(frozen=True)
class KnownOptimum:
    """The optimum of a library problem.

    Attributes:
        upper_objective: the leader's optimal value in the user's sense; None when the problem has no solution.
        source: where the value comes from.
        termination: what a correct run ends with, for problems without a solution.
        tolerance: how many digits the published value has, as an absolute tolerance.
    """

    upper_objective: float | None
    source: str
    termination: str = "converged"
    tolerance: float = 1e-6


@dataclass(frozen=True)
class ProblemSpec(Spec):
    """A named problem. ``factory`` is a function whose annotated keyword arguments are the problem's parameters.

    Attributes:
        known: the optimum at the default parameters.
        needs: the solver that settles it, where optimality conditions do not (``global``); else "".
        tags: words to search by.
    """

    known: KnownOptimum | None = None
    needs: str = ""
    tags: frozenset[str] = field(default_factory=frozenset[str])


@dataclass(frozen=True)
class SolverSpec(Spec):
    """A solver. ``factory`` is a subclass of ``bilevel_core.solvers.Solver``.

    Attributes:
        priority: of several that accept a problem, ``auto`` takes the one with the highest; it never takes one whose
            priority is negative.
        structure: what `Traits.structure` must hold for the solver to take a problem; "" where that is for
            ``accepts`` alone to say. For problems without it the solver is not even imported.
    """

    priority: int = 0
    structure: str = ""


@dataclass(frozen=True)
class BackendSpec(Spec):
    """A backend. ``factory`` is a subclass of ``bilevel_core.backends.Backend``."""


@dataclass(frozen=True)
class ReformulationSpec(Spec):
    """A reduction that a solver may put in its chain. ``factory`` is a ``bilevel_core.reductions.Reduction``."""


@dataclass(frozen=True)
class LoaderSpec(Spec):
    """Reads a problem from a file. ``factory`` is a function ``(path: pathlib.Path, **parameters) -> Problem``.

    Attributes:
        suffixes: file name endings, with the dot: ``(".tntp",)``.
    """

    suffixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExporterSpec(Spec):
    """Writes a problem to a file, by ``bilevel export``.

    ``factory`` is a function ``(problem, path: pathlib.Path, **options) -> str | None``: what it says is for people.

    Attributes:
        suffixes: file name endings, with the dot: ``(".mps",)``.
    """

    suffixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReporterSpec(Spec):
    """Renders a result. ``factory`` is a function ``(result) -> str``; offered as an output format by its name."""


@dataclass(frozen=True)
class FigureSpec(Spec):
    """A figure of a recorded run, for ``bilevel plot`` and ``bilevel report``.

    ``factory`` is a function ``(run: bilevel_core.run.stored.StoredRun) -> matplotlib.figure.Figure | None``; None
    where the run has nothing of it to show. `bilevel_core.figures.base.new_figure` makes one in the common style.
    """


@dataclass(frozen=True)
class CheckSpec(Spec):
    """An extra check of a point. ``factory`` is a function ``(problem, x, y) -> str``; "" when it holds."""


@dataclass(frozen=True)
class ExecutorSpec(Spec):
    """Where work that fans out runs. ``factory`` is a function ``(argument: str) -> concurrent.futures.Executor``."""


@dataclass(frozen=True)
class CommandSpec(Spec):
    """A group of sub-commands. ``factory`` is a ``typer.Typer``, loaded when the command is called."""


@dataclass(frozen=True)
class DoctorSpec(Spec):
    """A line of ``bilevel doctor``. ``factory`` is a function ``() -> tuple[bool, str]``: well or not, and a text."""
