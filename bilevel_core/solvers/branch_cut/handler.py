"""The constraint "the followers' answers are optimal", as a constraint handler of SCIP.

Separation adds intersection or interdiction cuts at fractional points, enforcement at integer ones, and where cuts
stall it branches on a bilevel-free set. SCIP's own presolving, symmetry and dual reductions are off: they see the
leader's objective only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevel_core.backends.interrupt import run_interruptibly
from bilevel_core.errors import BackendError, UsageError
from bilevel_core.solvers.branch_cut.branching import Child, around, by_set, one_column
from bilevel_core.solvers.branch_cut.cone import Cone, Cut, RowStore, read_cone
from bilevel_core.solvers.branch_cut.model import LinearModel
from bilevel_core.solvers.branch_cut.responses import Response, Responses
from bilevel_core.solvers.branch_cut.rival import Rival

ROOT_ROUNDS, NODE_ROUNDS, ENFORCED_ROUNDS = 12, 2, 8
"""Most rounds of cuts at the root, at other nodes, and at an integer point before branching."""
MOST_CHILDREN = 40
FRACTIONAL = 1e-5


class Tree:
    """SCIP's tree over the high-point relaxation, with the handler in it.

    Args:
        model: the problem.
        rivals: the followers.
        responses: the leader's value at given linking columns.
        watch: called now and then with (objective or None, bound, nodes, cuts); returns True to stop.
        found: called with each better `Response`.
        seed: SCIP's.
        cutting: whether to add cuts; without, points are only branched on.

    Attributes:
        cuts: how many were added.
        branchings: how often it branched on a set.
    """

    def __init__(
        self,
        model: LinearModel,
        rivals: list[Rival],
        responses: Responses,
        *,
        watch: Any,
        found: Any,
        seed: int = 0,
        cutting: bool = True,
    ) -> None:
        import pyscipopt

        self.model, self.rivals, self.responses = model, rivals, responses
        self._watch, self._found, self._cutting = watch, found, cutting
        self._scip: Any = pyscipopt
        self.tree: Any = self._scip.Model()
        self.variables: list[Any] = []
        self.cuts = self.branchings = 0
        self.failure: BaseException | None = None
        self._store = RowStore()
        self._waiting: list[np.ndarray] = []
        self._best = np.inf
        self._rounds = self._enforced = 0
        self._node = self._enforced_node = -1
        self._asked = self._separations = self._misses = self._offers = self._refusals = 0
        self._build(seed)

    def run(self, time_limit: float | None, stop: Any, options: dict[str, Any]) -> None:
        """Search, until the end, the time limit or an interrupt, on which ``stop`` is called.

        Raises:
            BackendError: SCIP broke, or a subproblem could not be solved; whatever else a callback raised.
        """
        m = self.tree
        if time_limit is not None:
            m.setParam("limits/time", max(1e-3, time_limit))
        for name, value in options.items():
            try:
                m.setParam(name, value)
            except (KeyError, LookupError, ValueError, TypeError) as error:
                raise UsageError(f"SCIP has no parameter {name!r}, or does not take {value!r} for it.") from error

        def interrupt() -> None:
            stop()
            m.interruptSolve()

        try:
            run_interruptibly(m.optimizeNogil, interrupt)
        except Exception as error:  # PySCIPOpt raises bare exceptions
            raise BackendError(f"SCIP failed: {error}") from error
        if self.failure is not None:
            raise self.failure

    @property
    def status(self) -> str:
        """SCIP's word for how it ended."""
        return str(self.tree.getStatus())

    @property
    def bound(self) -> float:
        """The proven bound (minimised)."""
        return self._number(self.tree.getDualbound())

    @property
    def nodes(self) -> int:
        """Nodes looked at."""
        return int(self.tree.getNTotalNodes())

    def solution(self) -> np.ndarray | None:
        """SCIP's best point."""
        if not self.tree.getNSols():
            return None
        best = self.tree.getBestSol()
        return np.array([self.tree.getSolVal(best, v) for v in self.variables], dtype=float)

    def _number(self, value: float) -> float:
        value = float(value)
        return value if abs(value) < self.tree.infinity() else float(np.copysign(np.inf, value))

    def _build(self, seed: int) -> None:
        m, data = self.tree, self.model
        m.hideOutput()
        for name, value in {
            "misc/catchctrlc": False,
            "misc/usesymmetry": 0,
            "limits/gap": 0.0,
            "propagating/dualfix/freq": -1,
            "separating/maxroundsroot": -1,
            "separating/maxstallroundsroot": ROOT_ROUNDS,
            "separating/maxrounds": -1,
            "randomization/randomseedshift": seed % (2**31),
        }.items():
            m.setParam(name, value)
        off = self._scip.SCIP_PARAMSETTING.OFF
        m.setPresolve(off)
        # Their points are hardly ever bilevel feasible, and each costs a follower's solve; responses take their place.
        m.setHeuristics(off)
        for j in range(data.size):
            low = None if data.lower[j] == -np.inf else float(data.lower[j])
            up = None if data.upper[j] == np.inf else float(data.upper[j])
            kind = "I" if data.integer[j] else "C"
            self.variables.append(m.addVar(f"v{j}", vtype=kind, lb=low, ub=up, obj=float(data.cost[j])))
        m.addObjoffset(data.constant)
        for i in range(data.matrix.shape[0]):
            row = data.matrix[i]
            low, up = float(data.row_lower[i]), float(data.row_upper[i])
            if not row.nnz:
                if low > 1e-9 or up < -1e-9:
                    never = m.addVar(f"infeasible{i}", lb=0.0, ub=0.0)
                    m.addCons(never >= 1.0)
                continue
            if np.isfinite(low) or np.isfinite(up):
                m.addCons(self._row(row.indices, row.data, low, up), name=f"row{i}")
        m.includeConshdlr(
            _handler(self._scip, self),
            "bilevel",
            "the followers' answers are optimal",
            sepapriority=1,
            sepafreq=1,
            enfopriority=-10,
            chckpriority=-10,
            needscons=False,
            eagerfreq=-1,
            maxprerounds=0,
        )

    def _row(self, where: Any, values: Any, low: float, up: float) -> Any:
        body = self._scip.quicksum(float(a) * self.variables[j] for j, a in zip(where, values, strict=True) if a)
        if low == up:
            return body == low
        if np.isfinite(low) and np.isfinite(up):
            return low <= (body <= up)
        return body <= up if np.isfinite(up) else body >= low

    # What SCIP asks.

    def guarded(self, ask: Any, fallback: str) -> dict[str, Any]:
        """An answer to SCIP. An exception must not pass through it: it is kept, and the search ended."""
        result = self._scip.SCIP_RESULT
        if self.failure is None:
            try:
                return {"result": getattr(result, ask())}
            except BaseException as error:  # noqa: BLE001 - raised again by `run`
                self.failure = error
                self.tree.interruptSolve()
        return {"result": getattr(result, fallback)}

    def check(self, solution: Any) -> str:
        """Whether a point is bilevel feasible."""
        values = self._values(solution)
        return "FEASIBLE" if self._feasible(values) else "INFEASIBLE"

    def separate(self) -> str:
        """Cut off a fractional point."""
        self._tell()
        node = int(self.tree.getCurrentNode().getNumber())
        self._rounds = self._rounds + 1 if node == self._node else 0
        self._node = node
        self._offer()
        root = self.tree.getDepth() == 0
        if not self._cutting or self._rounds >= (ROOT_ROUNDS if root else NODE_ROUNDS):
            return "DIDNOTRUN"
        self._separations += 1
        if not root and self._separations % (1 << min(self._misses // 4, 4)):
            return "DIDNOTRUN"  # cuts have become rare: look for them less often
        values = self._values(None)
        done = self._cut(values, exact=self._whole(values))
        self._misses = 0 if done else self._misses + 1
        return done or "DIDNOTFIND"

    def enforce(self) -> str:
        """Accept an integer point, cut it off, or branch."""
        self._tell()
        values = self._values(None)
        model = self.model
        lower, upper = self._bounds()
        if not self._whole(values):
            return self._split(one_column(model.linking, values, lower, upper))
        loser: Rival | None = None
        for rival in self.rivals:
            answer = rival.answers.at(values)
            if answer is None:  # feasible within tolerances only: this x is not
                return self._split(around(model.linking, values, lower, upper, None))
            if loser is None and not rival.optimal(values, answer):
                loser = rival
                rival.keep(values, answer)
        all_fixed = bool((upper[model.linking] - lower[model.linking] < 0.5).all())
        self._asked += 1
        if all_fixed or self._asked <= 20 or self._asked % 5 == 0 or loser is None:
            self._propose(self.responses.at(values))
        if loser is None:
            return self._accept(values, lower, upper)
        node = int(self.tree.getCurrentNode().getNumber())
        self._enforced = self._enforced + 1 if node == self._enforced_node else 0
        self._enforced_node = node
        if self._cutting and self._enforced < ENFORCED_ROUNDS:
            done = self._cut(values, exact=True)
            if done:
                return done
        return self._branch(loser, values, lower, upper)

    def _accept(self, values: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> str:
        """The followers are optimal. In the pessimistic case the leader's worth must also be the worst."""
        if self.model.worth is None:
            return "FEASIBLE"
        worst = self.responses.at(values)
        if worst is not None and self._worth_it(values, worst):
            return "FEASIBLE"
        here = None
        if worst is not None:
            unit = np.zeros(self.model.size)
            unit[self.model.worth] = 1.0
            here = Child(((unit, worst.value - self.model.constant, np.inf),))
        return self._split(around(self.model.linking, values, lower, upper, here))

    def _worth_it(self, values: np.ndarray, worst: Response) -> bool:
        worth = values[self.model.worth] + self.model.constant
        return bool(worth >= worst.value - 1e-6 * max(1.0, abs(worst.value)))

    def _feasible(self, values: np.ndarray) -> bool:
        if not self._whole(values):
            return False
        if any(r.beaten(values) for r in self.rivals):
            self._wait(values)
            return False
        for rival in self.rivals:
            answer = rival.answers.at(values)
            if answer is None:
                return False
            if not rival.optimal(values, answer):
                rival.keep(values, answer)
                self._wait(values)
                return False
        if self.model.worth is None:
            return True
        worst = self.responses.at(values)
        return worst is not None and self._worth_it(values, worst)

    def _whole(self, values: np.ndarray) -> bool:
        linking = self.model.linking[self.model.integer[self.model.linking]]
        return bool(np.abs(values[linking] - np.rint(values[linking])).max(initial=0.0) <= FRACTIONAL)

    # Points for SCIP.

    def _wait(self, values: np.ndarray) -> None:
        """Note a point whose linking columns may be worth a response; it cannot be handed in from inside a check."""
        if len(self._waiting) < 10 and not self.responses.known(values):
            self._waiting.append(values)

    def _offer(self) -> None:
        """Hand in the response of the latest point that waited; less often when many were no better."""
        while self._waiting:
            values = self._waiting.pop()
            if self.responses.known(values):
                continue
            self._offers += 1
            if self._offers % (1 << min(self._refusals // 6, 5)) == 0:
                before = self._best
                self._propose(self.responses.at(values))
                self._refusals = 0 if self._best < before else self._refusals + 1
            self._waiting.clear()

    def _propose(self, response: Response | None) -> None:
        if response is None or response.value >= self._best:
            return
        self._best = response.value
        self._found(response)
        if response.value >= self.tree.getPrimalbound() - 1e-9:
            return
        values = response.values
        if self.model.worth is not None:
            values = np.append(values, response.value - self.model.constant)
        point = self.tree.createSol()
        for v, value, whole in zip(self.variables, values, self.model.integer, strict=True):
            self.tree.setSolVal(point, v, float(np.rint(value) if whole else value))
        self.tree.trySol(point, printreason=False, completely=False, free=True)

    # Cuts and branching.

    def _cut(self, values: np.ndarray, *, exact: bool) -> str:
        """Add a cut for the first follower that can be cut; "" where there is none."""
        cone: Cone | None = None
        read = False
        for rival in self.rivals:
            if rival.interdiction is not None:
                done = self._interdict(rival, values)
                if done or not exact:
                    if done:
                        return done
                    continue
            if not read:
                cone = read_cone(self.tree, self._places, self.model.size, self._store)
                read = True
            if cone is None:
                return ""
            directed = rival.direct(values)
            fresh = not directed and self.tree.getDepth() == 0 and rival.learn(values, exact=exact)
            cut = rival.cut(cone)
            if cut is None and not fresh and rival.learn(values, exact=exact):
                cut = rival.cut(cone)
            if cut is not None:
                return self._add(cut)
        return ""

    def _interdict(self, rival: Rival, values: np.ndarray) -> str:
        assert rival.interdiction is not None
        row = None if rival.interdiction.cheap else rival.interdiction.violated(values)
        if row is None:
            y = rival.interdiction.find(values)
            if y is not None:
                rival.interdiction.add(y)
            row = rival.interdiction.violated(values)
        if row is None:
            return ""
        return self._add_row(-row[0], -row[1], local=False)

    def _add(self, cut: Cut) -> str:
        if not cut.coefficients.any():
            return "CUTOFF"
        return self._add_row(cut.coefficients, cut.side - 1e-9, local=self.tree.getDepth() > 0)

    def _add_row(self, coefficients: np.ndarray, side: float, *, local: bool) -> str:
        m = self.tree
        name = f"bilevel{self.cuts}"
        row = m.createEmptyRowUnspec(name, lhs=float(side), rhs=None, local=local, modifiable=False, removable=True)
        m.cacheRowExtensions(row)
        for j in np.flatnonzero(coefficients):
            m.addVarToRow(row, self._transformed[j], float(coefficients[j]))
        m.flushRowExtensions(row)
        infeasible = m.addCut(row, forcecut=True)
        m.releaseRow(row)
        self.cuts += 1
        return "CUTOFF" if infeasible else "SEPARATED"

    def _branch(self, rival: Rival, values: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> str:
        """Branch on the set with fewest children that holds the point; where all have too many, on one column."""
        answer = rival.answers.at(values)
        assert answer is not None
        family = rival.solutions.family
        choices = [by_set(family, rival.solutions.limits(answer.y), lower, upper)]
        if len(choices[0]) > 2 and rival.directions.useful:
            rival.directions.find(values)
            family = rival.directions.family
            numbers, _ = family.holding(values, 8)
            choices += [by_set(family, family.limits[k], lower, upper) for k in numbers]
        best = min(choices, key=len)
        if len(best) > MOST_CHILDREN:
            best = one_column(self.model.linking, values, lower, upper) or best
        self.branchings += 1
        return self._split(best)

    def _split(self, children: list[Child]) -> str:
        if not children:
            return "CUTOFF"
        m = self.tree
        estimate = m.getLocalEstimate()
        for child in children:
            node = m.createChild(child.priority, estimate)
            for coefficients, low, up in child.rows:
                where = np.flatnonzero(coefficients)
                # With the default check=True SCIP would reject feasible points of other nodes.
                m.addConsNode(node, self._row(where, coefficients[where], low, up), check=False, local=True)
        return "BRANCHED"

    # What SCIP knows.

    def _values(self, solution: Any) -> np.ndarray:
        m = self.tree
        return np.array([m.getSolVal(solution, v) for v in self.variables], dtype=float)

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return (
            np.array([v.getLbLocal() for v in self._transformed], dtype=float),
            np.array([v.getUbLocal() for v in self._transformed], dtype=float),
        )

    def start(self) -> None:
        """Note SCIP's transformed variables, once they exist."""
        self._transformed = [self.tree.getTransformedVar(v) for v in self.variables]
        self._places = {v.name: j for j, v in enumerate(self._transformed)}

    def _tell(self) -> None:
        objective = self._number(self.tree.getPrimalbound())
        best = min(objective, self._best)
        if self._watch(best if np.isfinite(best) else None, self.bound, self.nodes, self.cuts):
            self.tree.interruptSolve()


def _handler(scip: Any, tree: Tree) -> Any:
    """The object that SCIP calls; made here since its base class comes with PySCIPOpt."""

    class Handler(scip.Conshdlr):
        def consinitsol(self, constraints: Any) -> None:
            tree.start()

        def conscheck(self, constraints: Any, solution: Any, *_: Any, **__: Any) -> Any:
            return tree.guarded(lambda: tree.check(solution), "INFEASIBLE")

        def conssepalp(self, constraints: Any, nusefulconss: Any) -> Any:
            return tree.guarded(tree.separate, "DIDNOTRUN")

        def consenfolp(self, constraints: Any, nusefulconss: Any, solinfeasible: Any) -> Any:
            return tree.guarded(tree.enforce, "INFEASIBLE")

        def consenfops(self, constraints: Any, nusefulconss: Any, solinfeasible: Any, objinfeasible: Any) -> Any:
            return {"result": scip.SCIP_RESULT.SOLVELP}

        def conslock(self, constraint: Any, locktype: Any, nlockspos: Any, nlocksneg: Any, **_: Any) -> None:
            locks = nlockspos + nlocksneg
            columns = {int(i) for i in tree.model.linking}
            columns |= {int(i) for r in tree.rivals for i in r.follower.columns}
            if tree.model.worth is not None:
                columns = set(range(tree.model.size))
            for j in columns:
                self.model.addVarLocks(tree.variables[j], locks, locks)

    return Handler()
