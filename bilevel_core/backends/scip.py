"""SCIP: everything, globally: integers, special ordered sets, nonconvex quadratic and nonlinear terms."""

from __future__ import annotations

import importlib.metadata
import math
from typing import Any

import numpy as np

from bilevel_core.backends.base import Backend, Solution, SolveSettings, SolveStatus
from bilevel_core.backends.interrupt import run_interruptibly
from bilevel_core.errors import BackendError, UsageError
from bilevel_core.program import Function, Program
from bilevel_core.program import expression as ex

SCIP_FUNCTIONS = {"exp", "log", "sqrt", "sin", "cos", "abs"}
CHECK_TOLERANCE = 1e-5
LARGE = 2000
"""Columns and rows from which on SCIP gives no nonlinear programs to Ipopt: the METIS in PySCIPOpt 6.3.0's wheel, by
which MUMPS orders large systems, frees memory that is not its own (METIS_NodeND) and ends the process."""


def tight_feastol(program: Program, degree: float = 1) -> float:
    """The tightest feasibility tolerance that SCIP works well with.

    Nonlinear programs make it re-solve linear ones with a thousandth of it, and below 1e-10 SoPlex only complains, a
    line on stderr each time.

    Args:
        program: what is solved.
        degree: of the objective up to which the tolerance is 1e-9, with linear rows: 2 where values must be exact.
    """
    return 1e-9 if program.degree <= degree and program.row_degree <= 1 else 1e-7


class Scip(Backend):
    """SCIP through PySCIPOpt."""

    name = "scip"
    summary = "LP to nonconvex MINLP with special ordered sets and indicators, global"
    scope = "global"
    takes_indicators = True

    def version(self) -> str:
        """The versions of SCIP and PySCIPOpt."""
        import pyscipopt

        model: Any = pyscipopt.Model()
        return f"{model.version()} (pyscipopt {importlib.metadata.version('pyscipopt')})"

    def accepts(self, program: Program) -> str | None:
        """No pairs (a reduction must express them) and no functions that SCIP does not know."""
        if program.complementarities:
            return "SCIP takes no complementarity pairs; express them by sets or binaries first"
        for f in (program.objective, *(r.function for r in program.rows)):
            if f.nonlinear is not None:
                for node in ex.walk(f.nonlinear):
                    if isinstance(node, ex.Call) and node.function not in SCIP_FUNCTIONS:
                        return f"SCIP does not know the function {node.function}()"
        return None

    def _solve(self, program: Program, settings: SolveSettings) -> Solution:
        """See `Backend.solve`. An interrupt from the keyboard ends the solve with the best point."""
        import pyscipopt

        model: Any = pyscipopt.Model()
        model.hideOutput()
        if len(program.columns) + len(program.rows) > LARGE:
            model.setParam("heuristics/subnlp/freq", -1)
        self._parameters(model, settings)
        try:
            variables = self._build(pyscipopt, model, program, settings)
        except AssertionError as error:  # of PySCIPOpt's own, for coefficients or sides beyond SCIP's infinity
            raise BackendError("SCIP does not take the program: a number in it is beyond 1e20.") from error
        if settings.start is not None:
            partial = model.createPartialSol()
            for v, value in zip(variables, settings.start, strict=True):
                if not math.isnan(value):
                    model.setSolVal(partial, v, float(value))
            model.addSol(partial)
        if settings.progress is not None:
            self._watch(pyscipopt, model, settings)
        try:
            run_interruptibly(model.optimizeNogil, model.interruptSolve)
        except Exception as error:  # PySCIPOpt raises bare exceptions, as when the LP solver breaks down
            raise BackendError(f"SCIP failed: {error}") from error
        return self._solution(model, variables, program)

    @staticmethod
    def _parameters(model: Any, settings: SolveSettings) -> None:
        # SCIP's own handler of Ctrl-C prints to stdout.
        model.setParam("misc/catchctrlc", False)
        # On its own SCIP tightens the tolerance of its linear programs until SoPlex can no longer follow, and complains
        # about that on stderr, thousands of times.
        model.setParam("constraints/nonlinear/tightenlpfeastol", False)
        model.setParam("limits/gap", 0.0 if settings.gap is None else settings.gap)
        model.setParam("limits/absgap", settings.absolute_gap or 0.0)
        model.setParam("randomization/randomseedshift", settings.seed % (2**31))
        if settings.time_limit is not None:
            model.setParam("limits/time", max(1e-3, settings.time_limit))
        for key, value in settings.options.items():
            try:
                model.setParam(key, value)
            except (KeyError, LookupError, ValueError, TypeError) as error:
                raise UsageError(f"SCIP has no parameter {key!r}, or does not take {value!r} for it.") from error

    @staticmethod
    def _build(pyscipopt: Any, model: Any, program: Program, settings: SolveSettings) -> list[Any]:
        variables: list[Any] = []
        for k, c in enumerate(program.columns):
            kind = "C" if not c.integer else "B" if (c.lower, c.upper) == (0.0, 1.0) else "I"
            lower = None if c.lower == -math.inf else c.lower
            upper = None if c.upper == math.inf else c.upper
            variables.append(model.addVar(name=f"v{k}", vtype=kind, lb=lower, ub=upper))
        translate = _Translator(pyscipopt, variables, model)
        if program.objective.degree <= 1:
            model.setObjective(translate.function(program.objective), "minimize")
        else:
            # SCIP's objective is linear: a column that bounds the nonlinear one from above stands for it.
            z = model.addVar(name="objective", lb=None, ub=None)
            model.addCons(translate.function(program.objective) <= z)
            model.setObjective(z, "minimize")
        for k, row in enumerate(program.rows):
            body = translate.function(row.function)
            if row.function.degree == 0:
                if row.violation(()) > 1e-9:
                    x = model.addVar(name=f"infeasible{k}", lb=0.0, ub=0.0)
                    model.addCons(x >= 1.0)
                continue
            if row.equality:
                model.addCons(body == row.upper)
            elif math.isfinite(row.lower) and math.isfinite(row.upper):
                model.addCons((body <= row.upper) >= row.lower)
            elif math.isfinite(row.upper):
                model.addCons(body <= row.upper)
            elif math.isfinite(row.lower):
                model.addCons(body >= row.lower)
        if translate.bases:
            # Presolve would put the sums back in their places, and multiply out.
            for key in ("presolving/donotaggr", "presolving/donotmultaggr"):
                if key not in settings.options:
                    model.setParam(key, True)
        for k, group in enumerate(program.sos1):
            model.addConsSOS1([variables[i] for i in group], name=f"sos{k}")
        for n, (z, value, k) in enumerate(program.indicators):
            model.addConsIndicator(variables[k] <= 0.0, variables[z], activeone=value == 1, name=f"indicator{n}")
        return variables

    @staticmethod
    def _watch(pyscipopt: Any, model: Any, settings: SolveSettings) -> None:
        """Report incumbents and, at nodes, bounds; stop when told to."""
        progress = settings.progress
        types = pyscipopt.SCIP_EVENTTYPE

        class Watcher(pyscipopt.Eventhdlr):
            def eventinit(self) -> None:
                self.model.catchEvent(types.BESTSOLFOUND, self)
                self.model.catchEvent(types.NODESOLVED, self)

            def eventexit(self) -> None:
                self.model.dropEvent(types.BESTSOLFOUND, self)
                self.model.dropEvent(types.NODESOLVED, self)

            def eventexec(self, event: Any) -> None:
                best: Any = self.model.getBestSol() if self.model.getNSols() else None
                value = None if best is None else float(self.model.getSolObjVal(best))
                bound = float(self.model.getDualbound())
                finite = None if abs(bound) >= self.model.infinity() else bound
                if progress is not None and progress(value, finite, int(self.model.getNTotalNodes())):
                    self.model.interruptSolve()

        model.includeEventhdlr(Watcher(), "progress", "reports progress")

    @staticmethod
    def _solution(model: Any, variables: list[Any], program: Program) -> Solution:
        raw = model.getStatus()
        status = {
            "optimal": SolveStatus.OPTIMAL,
            "gaplimit": SolveStatus.OPTIMAL,
            "infeasible": SolveStatus.INFEASIBLE,
            "unbounded": SolveStatus.UNBOUNDED,
            "inforunbd": SolveStatus.INFEASIBLE_OR_UNBOUNDED,
            "timelimit": SolveStatus.TIME_LIMIT,
            "userinterrupt": SolveStatus.INTERRUPTED,
        }.get(raw, SolveStatus.OTHER_LIMIT if raw.endswith("limit") else SolveStatus.ERROR)
        message = "" if status is not SolveStatus.ERROR else f"SCIP: {raw}"
        dual = float(model.getDualbound())
        bound = dual if abs(dual) < model.infinity() else math.copysign(math.inf, dual)
        nodes = int(model.getNTotalNodes())
        if status is SolveStatus.UNBOUNDED or not model.getNSols():
            return Solution(status, None, bound=bound, nodes=nodes, message=message)
        best = model.getBestSol()
        values = np.array([model.getSolVal(best, v) for v in variables], dtype=float)
        objective = program.objective.evaluate(values)
        told = float(model.getSolObjVal(best))
        # The column that stands for a nonlinear objective may be larger where the search was cut short.
        above = program.objective.degree > 1 and told > objective and status is not SolveStatus.OPTIMAL
        if not (above or abs(objective - told) <= CHECK_TOLERANCE * max(1.0, abs(objective))):
            raise BackendError(f"SCIP reports objective {told:.9g}, but its own point has {objective:.9g}.")
        return Solution(status, values, objective, bound, nodes, message)


class _Translator:
    """Functions and expressions in SCIP's terms."""

    def __init__(self, pyscipopt: Any, variables: list[Any], model: Any) -> None:
        self.scip = pyscipopt
        self.variables = variables
        self.model = model
        self.bases: dict[ex.Expression, Any] = {}

    def function(self, f: Function) -> Any:
        v = self.variables
        total: Any = self.scip.quicksum(c * v[i] for i, c in f.linear.items())
        if f.quadratic:
            total += self.scip.quicksum(c * v[i] * v[j] for (i, j), c in f.quadratic.items())
        if f.nonlinear is not None:
            total = total + self.expression(f.nonlinear)
        return total + f.constant

    def expression(self, node: ex.Expression) -> Any:
        match node:
            case ex.Constant(value):
                return value
            case ex.Column(index):
                return self.variables[index]
            case ex.Sum(terms):
                return self.scip.quicksum(self.expression(t) for t in terms)
            case ex.Product(factors):
                return self.scip.quickprod(self.expression(f) for f in factors)
            case ex.Power(base, exponent):
                if isinstance(exponent, ex.Constant):
                    return self._base(base, exponent.value) ** exponent.value
                # a^b = exp(b log a), for the positive a where it is defined
                return self.scip.exp(self.expression(exponent) * self.scip.log(self.expression(base)))
            case ex.Call("abs", argument):
                return abs(self.expression(argument))
            case ex.Call(function, argument):
                return getattr(self.scip, function)(self.expression(argument))
            case _:
                raise TypeError(f"Not an expression: {node!r}")

    def _base(self, node: ex.Expression, exponent: float) -> Any:
        """A variable of its own for a sum that is raised to a higher power.

        PySCIPOpt multiplies such powers out, and the bounds of (2 y - 10)^4 are then those of terms as large as 10^4
        that cancel.
        """
        if isinstance(node, ex.Column) or exponent < 3.0 or exponent != round(exponent):
            return self.expression(node)
        if node not in self.bases:
            self.bases[node] = self.model.addVar(name=f"base{len(self.bases)}", lb=None, ub=None)
            self.model.addCons(self.bases[node] == self.expression(node))
        return self.bases[node]
