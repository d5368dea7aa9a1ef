"""The algebraic intermediate form: expressions, functions, bilevel and single-level programs.

Problem types produce it, reductions transform it, backends solve it. It knows nothing of any of them.
"""

from bilevel_core.program.convexity import positive_definite, positive_semidefinite
from bilevel_core.program.expression import Expression
from bilevel_core.program.function import Function, collect, linear, total
from bilevel_core.program.program import INF, BilevelProgram, Dual, Level, Program, Row, Variable, append_columns
from bilevel_core.program.ranges import function_range, polynomial_range

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
    "function_range",
    "linear",
    "polynomial_range",
    "positive_definite",
    "positive_semidefinite",
    "total",
]
