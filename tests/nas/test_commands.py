"""`bilevel nas`, the demo's fallback, and files of architectures."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="architecture search needs torch")

from typer.testing import CliRunner  # noqa: E402

import bilevel_core as bl  # noqa: E402
from bilevel_core.errors import MissingError, UsageError  # noqa: E402
from bilevel_core.plugins.registry import get_registry  # noqa: E402
from bilevel_nas import data as data_module  # noqa: E402
from bilevel_nas.architecture_file import load, save  # noqa: E402
from bilevel_nas.cells import tables  # noqa: E402
from bilevel_nas.commands import app  # noqa: E402
from bilevel_nas.library import fashion, images  # noqa: E402
from bilevel_nas.presets import NOT_OFFERED, PRESETS  # noqa: E402
from bilevel_nas.spaces import SPACES, Shape, find_space  # noqa: E402

from .small import problem  # noqa: E402


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_presets_are_listed_with_references_and_what_is_not_offered() -> None:
    text = call("presets")
    for name, preset in PRESETS.items():
        assert name in text
        assert preset.reference in text
    for name in NOT_OFFERED:
        assert name in text
    told = json.loads(call("presets", "-f", "json"))
    assert {p["name"] for p in told["presets"]} == set(PRESETS)
    assert not set(told["not_offered"]) & set(PRESETS)


def test_spaces_are_listed() -> None:
    told = json.loads(call("spaces", "-f", "json"))
    assert {s["name"]: s["architectures"] for s in told}["cell201-6"] == 15625
    assert all(name in call("spaces") for name in SPACES)


def test_a_table_is_looked_up(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("ops,val\n333133,84.5\n111111,50.25\n")
    assert "cell201-6:3-3-3-1-3-3" in call("table", str(path))
    assert json.loads(call("table", str(path), "111111", "-f", "json"))["val"] == 50.25
    with pytest.raises(UsageError, match="no row"):
        call("table", str(path), "000000")


@pytest.fixture(scope="module")
def result() -> Any:
    small = problem("cell201", {"nodes": 3, "stages": 1}, budget=4.0)
    return bl.solve(small, "supernet", {"preset": "darts1", "batch": 16}, seed=7, verify=False)


def test_an_architecture_is_exported_read_again_and_built(result: Any, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(result.to_json())
    path = tmp_path / "cell.json"
    call("export", str(tmp_path / "result.json"), str(path))
    found = load(path)
    assert found.space.text(found.architecture) == result.details["architecture"]
    assert found.scores["test_accuracy"] == result.details["test_accuracy"]
    assert found.document["seed"] == 7
    assert found.document["preset"] == "darts1"
    assert found.document["options"]["batch"] == 16
    assert "pass-equivalents is spent" in found.document["stopped_because"]
    net = found.build()
    assert sum(p.numel() for p in net.parameters()) == result.details["parameters"]
    assert found.build(Shape((3, 16, 16), 5))(torch.zeros(2, 3, 16, 16)).shape == (2, 5)
    shown = call("show", str(path))
    assert result.details["architecture"] in shown
    assert "drawing of cell" in shown
    assert json.loads(call("show", str(path), "-f", "json")) == found.document


@pytest.mark.parametrize("space", ["cell201-12", "darts", "mobile"])
def test_architectures_are_drawn(space: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    from bilevel_nas.cells import edges_of
    from bilevel_nas.picture import draw_architecture
    from bilevel_nas.spaces import find_space

    made = find_space(space)
    architecture = next(iter(made.fixed().values()))
    path = tmp_path / "cell.svg"
    draw_architecture(made, architecture, path)
    assert "<svg" in path.read_text()
    assert bool(edges_of(made, architecture)) == (space != "mobile")
    with pytest.raises(UsageError, match=r"\.png"):
        draw_architecture(made, architecture, tmp_path / "cell.txt")


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"\.png"):
        problem(picture="cell.txt")
    with pytest.raises(UsageError, match="no folder"):
        problem(picture=str(tmp_path / "nowhere" / "cell.svg"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"bilevel\[plot\]"):
        problem(picture=str(tmp_path / "cell.svg"))


def test_cells_are_drawn_as_tables() -> None:
    space = find_space("cell201", {"nodes": 3, "share": "stage"})
    told = tables(space, (1, 0, 3, 0, 2, 4))
    assert told["drawing_of_c0"] == [
        {"from": "0", "to 1": "skip", "to 2": ""},
        {"from": "1", "to 1": "", "to 2": "conv3x3"},
    ]
    assert told["drawing_of_c1"] == [{"from": "0", "to 2": "conv1x1"}, {"from": "1", "to 2": "avgpool"}]
    darts = find_space("darts")
    assert set(tables(darts, darts.fixed()["all skip"])) == {"drawing_of_normal", "drawing_of_reduce"}
    assert tables(find_space("mlp"), (0, 0, -1)) == {}


def test_a_recorded_run_has_its_architecture(result: Any) -> None:
    """Every edge of the cell found is named in the figure; what is no search space is not called."""
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    from bilevel_core.figures.base import draw
    from bilevel_core.run.stored import StoredRun
    from bilevel_nas.architecture_file import space_of
    from bilevel_nas.cells import edges_of

    def drawn(of: Any) -> Any:
        return draw(StoredRun(Path("nowhere"), {"name": "p"}, (), of), ["nas/cell"])

    (found,), notes = drawn(result)
    assert not notes
    space = space_of(json.loads(result.details["network"]))
    cells = edges_of(space, space.read(result.details["architecture"]))
    names = [name for edges in cells.values() for _, _, name, _ in edges]
    assert names
    shown = [text.get_text() for axes in found.figure.axes for text in axes.texts]
    assert sorted(t for t in shown if t and not t.isdigit()) == sorted(names)
    assert drawn(None) == ([], [])
    with pytest.raises(UsageError, match="no search space"):
        space_of({"factory": "os:getcwd", "parameters": {}})


def test_files_that_are_no_architectures(result: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")
    with pytest.raises(UsageError, match="schema"):
        load(path)
    path.write_text('{"schema": "bilevel.architecture/1"}')
    with pytest.raises(UsageError, match="lacks"):
        load(path)
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "none.json")
    save(result, path)
    changed = json.loads(path.read_text())
    changed["space"]["parameters"]["colour"] = "red"
    path.write_text(json.dumps(changed))
    with pytest.raises(UsageError, match="has changed"):
        load(path)
    del changed["space"]["parameters"]
    path.write_text(json.dumps(changed))
    with pytest.raises(UsageError, match="space cannot be read"):
        load(path)


def test_the_demo_falls_back_on_digits_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    monkeypatch.setattr(data_module, "DEBIAN", tmp_path)
    monkeypatch.delenv("BILEVEL_DATA", raising=False)
    with caplog.at_level(logging.WARNING, logger="bilevel"):
        made: Any = fashion(train=100, validation=100, test=100)
    assert "saturated" in caplog.text
    assert made.data.name == "digits"
    assert made.name == "nas/fashion"
    with pytest.raises(UsageError, match="no idx files"):
        fashion(data_dir=str(tmp_path))


def test_any_data_and_space() -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    made: Any = images("digits", space="mlp", space_options={"depth": 1, "widths": (4, 8)}, train=100, validation=100,
                       epochs=1, final_epochs=1)  # fmt: skip
    result = bl.solve(made, "sample.grid", verify=False)
    assert result.counts["lower_solves"] == 2


def test_the_solver_is_chosen_for_architectures_only() -> None:
    registry = get_registry()
    assert {"nas/fashion", "nas/images", "nas/table", "nas/any-table"} <= set(registry.problems)
    found = bl.classify(problem())
    assert found.chosen == "supernet"
    nested = bl.NestedProblem([bl.Integer("n", 0, 3)], lambda x, call: bl.Answer({}, 0.0, 0.0))
    assert bl.classify(nested).chosen is None
