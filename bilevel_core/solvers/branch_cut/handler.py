"""The constraint "the followers' answers are optimal", as a constraint handler of SCIP.

Separation adds intersection or interdiction cuts at fractional points, enforcement at integer ones, and where cuts
stall it branches on a bilevel-free set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bilevel_core.solvers.branch_cut.branching import Child, around, by_set, one_column
from bilevel_core.solvers.branch_cut.cone import Cone
from bilevel_core.solvers.branch_cut.model import LinearModel
from bilevel_core.solvers.branch_cut.responses import Response, Responses
from bilevel_core.solvers.branch_cut.rival import Rival
from bilevel_core.solvers.branch_cut.scip_tree import ScipTree

ROOT_ROUNDS, NODE_ROUNDS, ENFORCED_ROUNDS = 12, 2, 8
"""Most rounds of cuts at the root, at other nodes, and at an integer point before branching."""
MOST_CHILDREN = 40
ROUNDED = 10
"""At every so many nodes the point of the linear program is rounded."""
FRACTIONAL = 1e-5


class Search:
    """The handler's answers to SCIP, and what they rest on.

    Args:
        tree: SCIP's tree, not yet searched.
        rivals: the followers.
        responses: the leader's value at given linking columns.
        watch: called now and then with (objective or None, bound, nodes, cuts); returns True to stop.
        found: called with each better `Response`.
        cutting: whether to add cuts; without, points are only branched on.

    Attributes:
        branchings: how often it branched on a set.
        failure: what went wrong inside an answer to SCIP; the search is void then.
    """

    def __init__(
        self,
        tree: ScipTree,
        rivals: list[Rival],
        responses: Responses,
        *,
        watch: Callable[[float | None, float, int, int], bool],
        found: Callable[[Response], None],
        cutting: bool = True,
    ) -> None:
        self.tree, self.rivals, self.responses = tree, rivals, responses
        self.model: LinearModel = tree.model
        self.branchings = 0
        self.failure: BaseException | None = None
        self._watch, self._found, self._cutting = watch, found, cutting
        self._whole_columns = self.model.linking[self.model.integer[self.model.linking]]
        self._waiting: list[np.ndarray] = []
        self._best = np.inf
        self._rounds = self._enforced = 0
        self._node = self._enforced_node = -1
        self._asked = self._separations = self._misses = self._offers = self._refusals = 0
        tree.tree.includeConshdlr(
            _handler(tree, self),
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

    # What SCIP asks.

    def guarded(self, ask: Any, fallback: str) -> dict[str, Any]:
        """An answer to SCIP. An exception must not pass through it: it is kept, and the search ended."""
        result = self.tree.scip.SCIP_RESULT
        if self.failure is None:
            try:
                return {"result": getattr(result, ask())}
            except BaseException as error:  # noqa: BLE001 - raised again when SCIP has ended
                self.failure = error
                self.tree.interrupt()
        return {"result": getattr(result, fallback)}

    def check(self, solution: Any) -> str:
        """Whether a point is bilevel feasible."""
        values = self.tree.values(solution)
        return "FEASIBLE" if self._feasible(values) else "INFEASIBLE"

    def separate(self) -> str:
        """Cut off a fractional point."""
        self._tell()
        node = self.tree.node
        self._rounds = self._rounds + 1 if node == self._node else 0
        self._node = node
        if self._rounds == 0 and self.tree.nodes % ROUNDED == 1:
            self._wait(self.tree.values())  # its linking columns rounded may be a better choice of the leader's
        self._offer()
        root = self.tree.at_root
        if not self._cutting or self._rounds >= (ROOT_ROUNDS if root else NODE_ROUNDS):
            return "DIDNOTRUN"
        self._separations += 1
        if not root and self._separations % (1 << min(self._misses // 4, 4)):
            return "DIDNOTRUN"  # cuts have become rare: look for them less often
        values = self.tree.values()
        done = self._cut(values, exact=self._whole(values))
        self._misses = 0 if done else self._misses + 1
        return done or "DIDNOTFIND"

    def enforce(self) -> str:
        """Accept an integer point, cut it off, or branch."""
        self._tell()
        values = self.tree.values()
        model = self.model
        lower, upper = self.tree.bounds()
        if not self._whole(values):
            return self.tree.split(one_column(self._whole_columns, values, lower, upper))
        loser: Rival | None = None
        for rival in self.rivals:
            answer = rival.answers.at(values)
            if answer is None:  # feasible within tolerances only: this x is not
                return self.tree.split(around(self._whole_columns, values, lower, upper, None))
            if loser is None and not rival.optimal(values, answer):
                loser = rival
                rival.keep(values, answer)
        all_fixed = bool((upper[model.linking] - lower[model.linking] < 0.5).all())
        self._asked += 1
        if all_fixed or self._asked <= 20 or self._asked % 5 == 0 or loser is None:
            self._propose(self.responses.at(values))
        if loser is None:
            return self._accept(values, lower, upper)
        node = self.tree.node
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
        return self.tree.split(around(self.model.linking, values, lower, upper, here))

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
        linking = values[self._whole_columns]
        return bool(np.abs(linking - np.rint(linking)).max(initial=0.0) <= FRACTIONAL)

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
        if response.value >= self.tree.value - 1e-9:
            return
        values = response.values
        if self.model.worth is not None:
            values = np.append(values, response.value - self.model.constant)
        self.tree.offer(values)

    # Cuts and branching.

    def _cut(self, values: np.ndarray, *, exact: bool) -> str:
        """Add a cut for the first follower that can be cut; "" where there is none."""
        cone: Cone | None = None
        for rival in self.rivals:
            if rival.interdiction is not None:
                done = self._interdict(rival, values)
                if done:
                    return done
                if not exact:
                    continue
            fresh = not rival.direct(values) and self.tree.at_root and rival.learn(values, exact=exact)
            if not fresh and not rival.holds(values):
                fresh = True
                if not rival.learn(values, exact=exact):
                    continue
            cone = self.tree.cone() if cone is None else cone
            if cone is None:
                return ""
            cut = rival.cut(cone)
            if cut is None and not fresh and rival.learn(values, exact=exact):
                cut = rival.cut(cone)
            if cut is not None:
                if not cut.coefficients.any():
                    return "CUTOFF"
                return self.tree.add_row(cut.coefficients, cut.side - 1e-9, local=not self.tree.at_root)
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
        return self.tree.add_row(-row[0], -row[1], local=False)

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
            best = one_column(self._whole_columns, values, lower, upper) or best
        self.branchings += 1
        return self.tree.split(best)

    def _tell(self) -> None:
        best = min(self.tree.value, self._best)
        if self._watch(best if np.isfinite(best) else None, self.tree.bound, self.tree.nodes, self.tree.cuts):
            self.tree.interrupt()


def _handler(tree: ScipTree, search: Search) -> Any:
    """The object that SCIP calls; made here since its base class comes with PySCIPOpt."""

    class Handler(tree.scip.Conshdlr):
        def consinitsol(self, constraints: Any) -> None:
            tree.started()

        def conscheck(self, constraints: Any, solution: Any, *_: Any, **__: Any) -> Any:
            return search.guarded(lambda: search.check(solution), "INFEASIBLE")

        def conssepalp(self, constraints: Any, nusefulconss: Any) -> Any:
            return search.guarded(search.separate, "DIDNOTRUN")

        def consenfolp(self, constraints: Any, nusefulconss: Any, solinfeasible: Any) -> Any:
            return search.guarded(search.enforce, "INFEASIBLE")

        def consenfops(self, constraints: Any, nusefulconss: Any, solinfeasible: Any, objinfeasible: Any) -> Any:
            return {"result": tree.scip.SCIP_RESULT.SOLVELP}

        def conslock(self, constraint: Any, locktype: Any, nlockspos: Any, nlocksneg: Any, **_: Any) -> None:
            locks = nlockspos + nlocksneg
            columns = {int(i) for i in tree.model.linking}
            columns |= {int(i) for r in search.rivals for i in r.follower.columns}
            if tree.model.worth is not None:
                columns = set(range(tree.model.size))
            for j in columns:
                self.model.addVarLocks(tree.variables[j], locks, locks)

    return Handler()
