"""`trust-region`: models of both levels, solved to global optimality inside a region that grows and shrinks."""

from bilevel_core.solvers.trust_region.solver import TrustRegion

__all__ = ["TrustRegion"]
