"""Exit codes, promised to scripts."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bilevel_core.result import Certificate, Result


class Exit(IntEnum):
    """What the command returns to the shell."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NO_POINT = 3
    LIMIT = 4
    NOT_VERIFIED = 5
    MISSING = 6
    INTERRUPTED = 130


def exit_of(result: Result) -> Exit:
    """The code of a solve. An interruption comes first, then a failed check, then a limit."""
    from bilevel_core.result import Termination

    if result.termination is Termination.STOPPED_BY_USER:
        return Exit.INTERRUPTED
    if result.termination is Termination.ERROR:
        return Exit.ERROR
    if not result.has_point:
        return Exit.NO_POINT
    if result.certificate is not None and exit_of_check(result.certificate) is not Exit.OK:
        return Exit.NOT_VERIFIED
    if result.termination in (Termination.TIME_LIMIT, Termination.ITERATION_LIMIT):
        return Exit.LIMIT
    return Exit.OK


def exit_of_check(certificate: Certificate) -> Exit:
    """The code of a check: a point that could not be verified is not verified."""
    from bilevel_core.result import Verdict

    return Exit.OK if certificate.verdict is Verdict.VERIFIED else Exit.NOT_VERIFIED
