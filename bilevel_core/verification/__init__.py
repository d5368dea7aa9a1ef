"""The independent check of a point. Uses the user's own model and the backends; never a solver or a reduction."""

from bilevel_core.verification.verify import CHECK_LIMIT, Tolerances, check

__all__ = ["CHECK_LIMIT", "Tolerances", "check"]
