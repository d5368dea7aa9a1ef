"""The independent check of a point. Uses the user's own model and the backends; never a solver or a reduction."""

from bilevel_core.verification.verify import Tolerances, check

__all__ = ["Tolerances", "check"]
