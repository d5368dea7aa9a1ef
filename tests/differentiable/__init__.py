"""Differentiable problems, their hypergradients and the solvers on them. Not called torch: that would hide the library."""
