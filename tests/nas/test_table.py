"""Tables in the place of training: NAS-Bench-201 where it is, and faults of files."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.errors import UsageError
from bilevel_core.result import Claim, Status
from bilevel_core.run import RunContext
from bilevel_core.solvers.sample import methods as sample_methods
from bilevel_nas.spaces import find_space
from bilevel_nas.table import TabularProblem, any_table, nas_bench, read_table

FOLDER = Path(__file__).parents[2].parent / "shared" / "data" / "nas"
NB201, MACRO = FOLDER / "nb201_e12_e200.csv.gz", FOLDER / "nas-bench-macro_cifar10.json"
needs_nb201 = pytest.mark.skipif(not NB201.is_file(), reason="the table of NAS-Bench-201 is not on this machine")
needs_macro = pytest.mark.skipif(not MACRO.is_file(), reason="the table of NAS-Bench-Macro is not on this machine")


@pytest.fixture(scope="module")
def cifar10() -> Any:
    return nas_bench(str(NB201))


@needs_nb201
def test_known_figures_of_nas_bench_201(cifar10: TabularProblem) -> None:
    """Dong and Yang (2020): the best cells, and that of skips only."""
    table, space = cifar10.table, cifar10.search_space
    assert len(table.rows) == 15625
    columns = ("c10_test_e200", "c100_test_e200", "in16_test_e200")
    best = [max(r[c] for r in table.rows.values()) for c in columns]
    assert best == pytest.approx([94.373, 73.513, 47.311], abs=5e-4)
    assert [table.rows[(1,) * 6][c] for c in columns] == pytest.approx([54.297, 15.607, 16.322], abs=5e-4)
    assert [table.rows[space.read("333133")][c] for c in columns] == pytest.approx([94.363, 73.513, 46.344], abs=5e-4)


@needs_nb201
@pytest.mark.parametrize(
    ("kind", "mean", "deviation"),
    [("Random", 93.76, 0.33), ("Evolution", 94.09, 0.37), ("Local", 94.09, 0.4), ("Reinforce", 93.93, 0.4)],
)
def test_samplers_come_out_where_they_should(cifar10: TabularProblem, kind: str, mean: float, deviation: float) -> None:
    """Means of 300 to 500 seeds at 100 evaluations; here of ten, so within three of their standard errors."""
    options = {"population": 10} if kind == "Evolution" else {}
    found: list[float] = []
    for seed in range(10):
        result = getattr(sample_methods, kind)(lower_solves=100, **options).run(cifar10, RunContext(seed=seed))
        found.append(cifar10.table.rows[cifar10.search_space.of_point(cifar10.point(result.x))]["c10_test_e200"])
    assert abs(float(np.mean(found)) - mean) < 3.0 * deviation / np.sqrt(10)


@needs_nb201
def test_a_result_is_checked_against_the_table(cifar10: TabularProblem) -> None:
    result = bl.solve(cifar10, "sample.evolution", {"lower_solves": 60}, seed=1)
    assert result.certificate is not None
    assert result.certificate.verdict == "verified"
    told = result.details
    architecture = cifar10.search_space.read(told["architecture"])
    assert told["reported_accuracy"] == cifar10.table.rows[architecture]["c10_test_e200"]
    reported = [r["c10_test_e200"] for r in cifar10.table.rows.values()]
    assert told["better_ones_in_the_table"] == sum(v > told["reported_accuracy"] for v in reported)
    assert told["drawn_0"].startswith("cell: |")


@needs_macro
def test_nas_bench_macro() -> None:
    problem = any_table(str(MACRO), minimise=("flops",))
    assert len(problem.table.rows) == 6561
    assert max(r["mean_acc"] for r in problem.table.rows.values()) == pytest.approx(93.1267, abs=1e-3)
    assert problem.objectives == ("error", "flops")
    result = bl.solve(problem, "sample.random", {"lower_solves": 50}, verify=False)
    front = sorted((r["error"], r["flops"]) for r in result.details["pareto"])
    assert all(b[1] < a[1] for a, b in itertools.pairwise(front))


def small_table(path: Path, rows: list[str], header: str = "ops,val,test") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_whole_table_is_searched_to_a_proven_optimum(tmp_path: Path) -> None:
    space = find_space("cell201", {"nodes": 2})
    rows = [f"{k},{60 + k},{50 + k}" for k in range(5)]
    table = read_table(small_table(tmp_path / "t.csv", rows), space)
    problem = TabularProblem(space, table, "val", "test")
    result = bl.solve(problem, "sample.grid")
    assert result.claim is Claim.GLOBAL
    assert result.status is Status.OPTIMAL
    assert result.upper_objective == pytest.approx(0.36)
    assert result.details["reported_accuracy"] == 54.0


def test_an_architecture_that_is_not_in_the_table_has_no_answer(tmp_path: Path) -> None:
    space = find_space("cell201", {"nodes": 2})
    problem = TabularProblem(space, read_table(small_table(tmp_path / "t.csv", ["3,60,50"]), space), "val", "test")
    result = bl.solve(problem, "sample.grid")
    assert result.details["architecture"] == "cell201-1:3"


def test_rows_are_found_in_whatever_order_decisions_are_named(tmp_path: Path) -> None:
    space = find_space("cell201", {"nodes": 3})
    data = {space.text(a): {"val": float(10 * a[0] + a[2]), "test": [1.0, 2.0]} for a in list(space.enumerate())[:40]}
    path = tmp_path / "t.json.gz"
    path.write_bytes(gzip.compress(json.dumps(data).encode()))
    table = read_table(path, space)
    problem = TabularProblem(space, table, "val", "test_first")
    values = problem.search_space.space.values(problem.search_space.point((0, 4, 3)))
    shuffled = dict(reversed(list(values.items())))
    first, second = (problem.ask(problem.space.point(v), bl.Call()).upper for v in (values, shuffled))
    assert first == second == (pytest.approx(0.97),)


@pytest.mark.parametrize(
    ("rows", "header", "said"),
    [
        (["9,60,50"], "ops,val,test", "line 2"),
        (["1,60,50", "1,61,50"], "ops,val,test", "twice"),
        (["1,sixty,50"], "ops,val,test", "line 2"),
        (["1,60,50"], "cell,val,test", "no column 'ops'"),
        ([], "ops,val,test", "no architecture"),
    ],
)
def test_faults_are_named(tmp_path: Path, rows: list[str], header: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_table(small_table(tmp_path / "t.csv", rows, header), find_space("cell201", {"nodes": 2}))


def test_missing_files_and_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="file=FILE"):
        nas_bench()
    with pytest.raises(UsageError, match="cannot be read"):
        nas_bench(str(tmp_path / "none.csv"))
    space = find_space("cell201", {"nodes": 2})
    table = read_table(small_table(tmp_path / "t.csv", ["1,60,50"]), space)
    with pytest.raises(UsageError, match="column"):
        TabularProblem(space, table, "vale", "test")
