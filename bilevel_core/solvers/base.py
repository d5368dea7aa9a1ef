"""What a solver is: a frozen dataclass whose fields are its options, with `accepts` and `run`.

A new solver is one file with one such class, and one `SolverSpec` returned by the hook ``bilevel_solvers``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from bilevel_core.errors import UsageError
from bilevel_core.problems.base import Problem
from bilevel_core.result import Result
from bilevel_core.run import RunContext
from bilevel_core.traits import Traits


@dataclass(frozen=True)
class Accepted:
    """The solver takes problems of this class.

    Attributes:
        how: what it will do, one clause for ``--explain`` (reformulation and backend).
        claim: the strongest claim that its answer can carry on this class.
        slow: why an automatic choice passes over it, though it takes the problem; empty when it does not.
    """

    how: str = ""
    claim: str = "global"
    slow: str = ""


@dataclass(frozen=True)
class Refused:
    """The solver does not take problems of this class.

    Attributes:
        reason: why, one sentence without the solver's name.
        instead: what kind of solver could, or how to change the problem.
    """

    reason: str
    instead: str = ""


class Solver(ABC):
    """Base of all solvers. Subclasses are frozen dataclasses; each field is an option with ``metadata={"help": ...}``.

    Constructing one checks its options; `run` never changes the problem.
    """

    uses_device: ClassVar[bool] = False
    """Whether it computes on a torch device; one that does not refuses any device but the CPU."""

    takes_duals: ClassVar[bool] = False
    """Whether it has the followers' multipliers as variables, so that the leader may use them."""

    resumable: ClassVar[bool] = False
    """Whether a recorded run can go on from its checkpoint (`bilevel_core.resume`). Such a solver hands the content of
    checkpoints, a dictionary with at least ``elapsed`` (seconds), to ``context.keeper``, and goes on from
    ``context.restored`` where there is one."""

    @abstractmethod
    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Whether this solver, with these options, takes problems with these traits."""

    def refuses(self, problem: Problem) -> Refused | None:
        """A reason against one problem whose traits are accepted, which only its numbers show; None for none.

        Asked whenever problems are classified, so it should cost no more than a few evaluations.
        """
        return None

    def check_options(self, form: str) -> None:
        """Check what of the options can only be judged when the problem's form is known.

        Raises:
            UsageError: an option was given that has no effect on problems of this form.
        """
        return

    def limited(self, count: int) -> Solver:
        """The same with another limit of its work, for a run that is resumed with ``max_iterations``.

        Raises:
            UsageError: it has no such limit.
        """
        raise UsageError(f"{type(self).__name__} has no limit of iterations: leave max_iterations out.")

    @abstractmethod
    def run(self, problem: Any, context: RunContext) -> Result:
        """Solve. Fills termination, claim, point, objectives, bound, trace, counts and message of the result.

        Honours ``context.remaining()`` and ``context.stopped``; reports incumbents through ``context.report``.
        The caller adds the certificate, names, versions and times.
        """
