"""Every problem of the library: its declared optimum by brute force, and what the solver makes of it.

A registered problem without an entry in `BRUTE` fails the first test.
"""

from __future__ import annotations

import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry

from .brute_classics import CLASSICS
from .brute_linear import LINEAR
from .brute_quadratic import QUADRATIC

BRUTE = CLASSICS | LINEAR | QUADRATIC
LIBRARY = {n: s for n, s in get_registry().problems.items() if n.startswith(("classic/", "trap/"))}
MODES = ("sos1", "bigm")
# On these no bound is finite, or the leader is unbounded: the answer is right, and no more is claimed than is known.
UNPROVEN = {
    "classic/bard-1991-1",
    "classic/falk-liu",
    "trap/small-bound",
    "classic/bard-1988-3",
    "classic/de-silva",
    "classic/bard-1998-813-nonnegative",
    "classic/outrata-1a",
    "classic/outrata-1b",
    "classic/outrata-2a",
    "classic/henderson-quandt",
    "classic/hatz",
}


def test_every_problem_is_in_the_table() -> None:
    assert set(LIBRARY) == set(BRUTE)


@pytest.mark.parametrize("name", [n for n, f in BRUTE.items() if f])
def test_declared_optimum(name: str) -> None:
    brute = BRUTE[name]
    known = LIBRARY[name].known
    assert brute is not None
    assert known is not None
    # The grids are laid through the optima, so that nothing but rounding remains.
    assert known.upper_objective == pytest.approx(brute(), rel=1e-6, abs=1e-6)
    assert known.source


def solvable(name: str) -> bool:
    spec = LIBRARY[name]
    return BRUTE[name] is not None and not spec.needs and "integer" not in spec.tags


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [n for n in BRUTE if solvable(n)])
def test_kkt_finds_the_optimum(name: str, mode: str) -> None:
    spec = LIBRARY[name]
    r = bl.solve(spec.load()(), solver="kkt", options={"complementarity": mode})
    assert spec.known is not None
    assert r.upper_objective == pytest.approx(spec.known.upper_objective, rel=1e-5, abs=1e-5)
    assert r.certificate is not None
    assert r.certificate.verdict == "verified"
    if mode == "bigm" and name in UNPROVEN:
        assert r.status == "feasible"
        assert "could not be proven" in r.message
    else:
        assert r.status == "optimal"
        assert r.bound == pytest.approx(r.upper_objective, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [n for n, f in BRUTE.items() if f is None])
def test_problems_without_a_solution(name: str, mode: str) -> None:
    known = LIBRARY[name].known
    r = bl.solve(LIBRARY[name].load()(), solver="kkt", options={"complementarity": mode})
    assert known is not None
    assert r.termination == known.termination
    assert not r.has_point
    assert r.status in ("infeasible", "no-solution")
    assert r.message


@pytest.mark.parametrize("name", [n for n, s in LIBRARY.items() if "integer" in s.tags and not s.needs])
def test_integer_followers_are_refused(name: str) -> None:
    with pytest.raises(bl.RefusedError, match=r"integer variable.*branch-and-cut"):
        bl.solve(LIBRARY[name].load()(), solver="kkt")


def test_a_nonconvex_follower_is_refused() -> None:
    with pytest.raises(bl.RefusedError, match=r"global"):
        bl.solve(LIBRARY["classic/mitsos-barton-313"].load()(), solver="kkt")


@pytest.mark.parametrize("mode", MODES)
def test_where_no_multipliers_exist_no_more_than_stationary_is_claimed(mode: str) -> None:
    problem = LIBRARY["trap/no-multipliers"].load()()
    r = bl.solve(problem, solver="kkt", options={"complementarity": mode}, time_limit=60)
    assert r.claim <= bl.Claim.STATIONARY
    assert r.status != "optimal"
    assert "multipliers" in r.message
    assert r.termination is bl.Termination.CONVERGED  # its optimum is 0 but for a constant: no relative gap is met
    assert bl.classify(LIBRARY["trap/no-multipliers"].load()()).verdicts["kkt"].claim == "stationary"  # type: ignore[union-attr]


@pytest.mark.parametrize("bound", [1.0, 10.0, 50.0])
@pytest.mark.parametrize("which", ["multiplier_bound", "slack_bound", "both"])
@pytest.mark.parametrize("backend", ["highs", "scip"])
def test_bounds_that_are_too_small(bound: float, which: str, backend: str) -> None:
    names = ["multiplier_bound", "slack_bound"] if which == "both" else [which]
    options = {"complementarity": "bigm", "backend": backend} | dict.fromkeys(names, bound)
    r = bl.solve(LIBRARY["trap/small-bound"].load()(), options=options)
    assert r.upper_objective == pytest.approx(102.0) or r.claim < bl.Claim.LOCAL
    assert r.status != "optimal" or r.upper_objective == pytest.approx(102.0)


@pytest.mark.parametrize("bound", [1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8])
@pytest.mark.parametrize("backend", ["highs", "scip"])
def test_bounds_that_are_too_large(bound: float, backend: str) -> None:
    options = {"complementarity": "bigm", "multiplier_bound": bound, "slack_bound": bound, "backend": backend}
    r = bl.solve(LIBRARY["classic/candler-townsley"].load()(), options=options)
    assert r.certificate is not None
    assert r.certificate.verdict == "verified"
    assert r.upper_objective == pytest.approx(-29.2, abs=1e-6) or r.status != "optimal"
    assert r.upper_objective is not None
    assert r.upper_objective >= -29.2 - 1e-6


@pytest.mark.parametrize("name", [n for n in BRUTE if solvable(n)])
def test_wrong_points_are_refuted(name: str) -> None:
    """Moving the follower away from its answer must not pass the check."""
    problem = LIBRARY[name].load()()
    r = bl.solve(problem)
    refuted = 0
    for key, array in r.y.items():
        for shift in (0.3, -0.3):
            moved = dict(r.y) | {key: array + shift}
            c = bl.verify(problem, r.x, moved)
            refuted += c.verdict == "refuted" or c.better_response is not None or c.response == "ties"
    assert refuted
