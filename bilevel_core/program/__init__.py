"""The algebraic intermediate form: expressions, functions, bilevel and single-level programs.

Problem types produce it, reductions transform it, backends solve it. It knows nothing of any of them.
"""

from bilevel_core.program.convexity import positive_definite, positive_semidefinite
from bilevel_core.program.expression import Expression
from bilevel_core.program.function import Function, collect, linear, total
from bilevel_core.program.program import INF, BilevelProgram, Dual, Level, Program, Row, Variable, append_columns

__all__ = [
    "INF",
    "BilevelProgram",
    "Dual",
    "Expression",
    "Function",
    "Level",
    "Program",
    "Row",
    "Variable",
    "append_columns",
    "collect",
    "linear",
    "positive_definite",
    "positive_semidefinite",
    "total",
]
