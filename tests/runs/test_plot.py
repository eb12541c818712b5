"""Pictures of a run: which there are, what is drawn in them, and what is said of files that cannot be read."""

from __future__ import annotations

import csv
import io
import json
import math
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from aiotrain.app.main import main
from aiotrain.cage2.search.strategies import GpUcb
from aiotrain.cage2.search.workflow_search import Training
from aiotrain.cage2.workflows import ORDERS, order_text
from aiotrain.errors import ConfigError
from aiotrain.runs.journals import METRICS, Records
from aiotrain.runs.plot import plot_run

THRESHOLD = 0.9


def write_run(folder: Path, updates: int = 5, compliance: float = math.nan, trainings: int = 0) -> Path:
    """Write the files of a run as a trainer does."""
    config = {
        "workflow": "search" if trainings else "none",
        "workflow_search": {"compliance_threshold": THRESHOLD},
    }
    records = Records(folder, config, tensorboard=False)
    for update in range(1, updates + 1):
        values: dict[str, float] = {metric.name: 1.0 for metric in METRICS} | {"episodes": 50 * update}
        values |= {"mean_return": -10.0 - update, "compliance": compliance}
        records.update(values)
    for row in range(trainings):
        bound = math.nan if row == 0 else 5.0
        order = order_text(ORDERS[7 * row % 120])
        training = Training(row + 1, order, bound, 0.0, 1.0, -50.0 - row, 25.0, 0.95, 250, "compliance", True, True)
        records.workflow(training._asdict())
    records.close()
    return folder


def size_of(png: Path) -> tuple[int, int]:
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n", f"{png} is no PNG"
    width, height = struct.unpack(">2I", data[16:24])
    return width, height


@pytest.fixture(scope="module", autouse=True)
def _fonts() -> None:
    """Matplotlib keeps the files of its fonts open once it has drawn a text."""
    figure = Figure()
    figure.text(0.5, 0.5, "text")
    figure.savefig(io.BytesIO())


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures that are saved, by the names of their files."""
    saved: dict[str, Figure] = {}

    def save(figure: Figure, path: Path, **options: Any) -> None:
        saved[path.name] = figure

    monkeypatch.setattr(Figure, "savefig", save)
    return saved


def test_a_run_is_drawn_and_the_paths_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run")
    assert main(["plot", str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'return.png'}\n"
    assert [path.name for path in run.glob("*.png")] == ["return.png"], "pictures of a search that there was not"
    assert min(size_of(run / "return.png")) >= 400


def test_a_search_is_drawn_with_its_orders(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", compliance=0.5, trainings=6)
    (run / "ucb.png").symlink_to(tmp_path / "precious")
    paths = plot_run(run)
    assert not (tmp_path / "precious").exists(), "a link was followed"
    assert [path.name for path in paths] == ["return.png", "orders.png", "ucb.png", "positions.png"]
    assert all(min(size_of(path)) >= 400 for path in paths)
    assert plot_run(run) == paths, "they cannot be drawn again"


def test_return_and_compliance_are_drawn_over_episodes(tmp_path: Path, figures: dict[str, Figure]) -> None:
    plot_run(write_run(tmp_path / "run", compliance=0.5, trainings=1))
    of_return, of_compliance = figures["return.png"].axes
    (mean,) = of_return.lines
    np.testing.assert_array_equal(mean.get_xdata(), [50, 100, 150, 200, 250])
    np.testing.assert_array_equal(mean.get_ydata(), [-11, -12, -13, -14, -15])
    compliance, threshold = of_compliance.lines
    np.testing.assert_array_equal(compliance.get_ydata(), [0.5] * 5)
    np.testing.assert_array_equal(threshold.get_ydata(), [THRESHOLD] * 2)


def test_without_any_compliance_none_is_drawn(tmp_path: Path, figures: dict[str, Figure]) -> None:
    plot_run(write_run(tmp_path / "run"))
    assert len(figures["return.png"].axes) == 1


def test_orders_stand_by_their_posterior_mean_and_every_training_has_its_bound(
    tmp_path: Path, figures: dict[str, Figure]
) -> None:
    plot_run(write_run(tmp_path / "run", trainings=6))
    (orders,) = figures["orders.png"].axes
    names = [label.get_text() for label in orders.get_yticklabels()]
    assert len(names) == len(set(names)) == 30
    search = GpUcb()
    for row in range(6):
        search.observe(ORDERS[7 * row], -50.0 - row)
    mean = search.posterior().mean
    assert names == [" > ".join(ORDERS[order]) for order in np.argsort(-mean, kind="stable")[:30]]
    (bounds,) = figures["ucb.png"].axes
    np.testing.assert_array_equal(bounds.lines[0].get_xdata(), [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(bounds.lines[0].get_ydata(), [math.nan, 5, 5, 5, 5, 5])
    np.testing.assert_array_equal(bounds.lines[1].get_ydata(), [-50, -51, -52, -53, -54, -55])


def test_trainings_that_finished_in_another_order_are_drawn_as_they_were_chosen(
    tmp_path: Path, figures: dict[str, Figure]
) -> None:
    run = write_run(tmp_path / "run", trainings=4)
    header, *rows = (run / "workflows.csv").read_text().splitlines()
    (run / "workflows.csv").write_text("\n".join([header, rows[2], rows[0], rows[3], rows[1]]) + "\n")
    plot_run(run)
    (axes,) = figures["ucb.png"].axes
    _, values, highest = axes.lines
    np.testing.assert_array_equal(values.get_xdata(), [1, 2, 3, 4], "the line goes back and forth")
    np.testing.assert_array_equal(values.get_ydata(), [-50, -51, -52, -53])
    np.testing.assert_array_equal(highest.get_ydata(), [-50] * 4)


def test_the_map_has_the_mean_return_of_each_type_at_each_position(tmp_path: Path, figures: dict[str, Figure]) -> None:
    trainings = 4
    plot_run(write_run(tmp_path / "run", trainings=trainings))
    axes = figures["positions.png"].axes[0]
    means = np.ma.filled(axes.images[0].get_array(), math.nan)
    kinds = [label.get_text() for label in axes.get_yticklabels()]
    for row, kind in enumerate(kinds):
        for position in range(5):
            returns = [-50.0 - i for i in range(trainings) if ORDERS[7 * i][position] == kind]
            expected = np.mean(returns) if returns else math.nan
            np.testing.assert_allclose(means[row, position], expected, err_msg=f"{kind} at {position}")


def test_what_the_search_did_not_learn_from_is_not_drawn(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", trainings=1)
    table = run / "workflows.csv"
    table.write_text(table.read_text().replace("-50.0", "nan").replace("True,True", "False,False"))
    assert [path.name for path in plot_run(run)] == ["return.png"]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _replace(old: str, new: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("updates.csv", _truncate, ["damaged in line 6", "delete that line"]),
        ("updates.csv", _replace("-11.0", "eleven"), ["damaged in line 2", "'eleven'"]),
        ("updates.csv", _replace("mean_return", "return"), ["damaged in line 1", "no column mean_return"]),
        ("updates.csv", lambda path: path.write_bytes(b"\xff\xfe\x00"), ["damaged in line 1"]),
        ("workflows.csv", _truncate, ["damaged in line 3"]),
        ("workflows.csv", _replace("op_host", "op_hots"), ["damaged in line 2", "op_hots"]),
        ("workflows.csv", _replace("True", "maybe"), ["damaged in line 2", "neither True nor False"]),
        ("config.json", lambda path: path.write_text("{"), ["missing or damaged"]),
        ("config.json", lambda path: path.write_text("[]"), ["missing or damaged"]),
        ("config.json", Path.unlink, ["missing or damaged", "No such file"]),
    ],
)
def test_a_damaged_file_is_named_with_its_line(
    name: str, damage: Callable[[Path], None], expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", trainings=2)
    damage(run / name)
    assert main(["plot", str(run)]) == 2
    out, err = capsys.readouterr()
    for text in (f"aiotrain: plot: {run / name} is", *expected):
        assert text in err, f"{text!r} is missing:\n{err}"
    assert out == ""
    assert not list(run.glob("*.png")), "some pictures are there, others not"


def test_a_run_without_an_update_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no update yet"):
        plot_run(write_run(tmp_path / "run", updates=0))


def test_what_is_no_run_is_refused_with_the_nearest_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        plot_run(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"there is no updates\.csv$"):
        plot_run(tmp_path)
    run = write_run(tmp_path / "run")
    with pytest.raises(ConfigError, match=f"did you mean a run in it, such as {run}"):
        plot_run(tmp_path)


def test_without_matplotlib_it_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'aiotrain\[plot\]'"):
        plot_run(run)


def test_the_files_of_the_tests_are_those_of_a_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", trainings=1)
    with (run / "updates.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 5
    assert json.loads((run / "config.json").read_text())["workflow"] == "search"
