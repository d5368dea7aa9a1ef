"""The core's functions and expressions as CasADi graphs: for Ipopt, and for whoever needs symbolic derivatives."""

from __future__ import annotations

import math
from typing import Any

from bilevel_core.program import Function
from bilevel_core.program import expression as ex


class CasadiTranslator:
    """Functions and expressions in CasADi's terms.

    Args:
        casadi: the module, so that it is imported only by those who use it.
        v: what stands for each column: anything that gives an SX scalar by index.
    """

    def __init__(self, casadi: Any, v: Any) -> None:
        self.ca = casadi
        self.v = v

    def function(self, f: Function) -> Any:
        """A function as an SX scalar."""
        total: Any = self.ca.SX(f.constant)
        for i, c in f.linear.items():
            total += c * self.v[i]
        for (i, j), c in f.quadratic.items():
            total += c * self.v[i] * self.v[j]
        return total if f.nonlinear is None else total + self.expression(f.nonlinear)

    def expression(self, node: ex.Expression) -> Any:
        """An expression tree as an SX scalar."""
        match node:
            case ex.Constant(value):
                return self.ca.SX(value)
            case ex.Column(index):
                return self.v[index]
            case ex.Sum(terms):
                return sum((self.expression(t) for t in terms), self.ca.SX(0))
            case ex.Product(factors):
                return math.prod((self.expression(f) for f in factors), start=self.ca.SX(1))
            case ex.Power(base, exponent):
                return self.expression(base) ** self.expression(exponent)
            case ex.Call("abs", argument):
                return self.ca.fabs(self.expression(argument))
            case ex.Call(function, argument):
                return getattr(self.ca, function)(self.expression(argument))
            case _:
                raise TypeError(f"Not an expression: {node!r}")
