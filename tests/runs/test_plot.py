"""Pictures of a run: which there are, what is drawn in them, and what is said of files that cannot be read."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from aiotrain import Config
from aiotrain.app.main import main
from aiotrain.errors import ConfigError
from aiotrain.runs.journals import Journals
from aiotrain.runs.plot import plot_run
from aiotrain.training.reports import columns_of
from drawn_figures import _fonts, figures, size_of

__all__ = ["_fonts", "figures"]

METRICS = ("success", "score")


def write_run(folder: Path, updates: int = 5, **metrics: float | None) -> Path:
    """Write the files of a run as a trainer does; ``metrics`` are the values that each update tells."""
    columns = columns_of(METRICS)
    journals = Journals(folder, Config(env="CartPole-v1", metrics=METRICS).resolved(), columns)
    for update in range(1, updates + 1):
        row: dict[str, float | int | None] = dict.fromkeys(columns, 1.0) | {"episodes": 50 * update}
        row |= dict.fromkeys(METRICS) | {"mean_return": -10.0 - update, **metrics}
        journals.update(row, "")
    journals.close()
    return folder


def test_a_run_is_drawn_and_the_paths_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run")
    assert main(["plot", str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'return.png'}\n"
    assert [path.name for path in run.glob("*.png")] == ["return.png"]
    assert min(size_of(run / "return.png")) >= 400


def test_returns_and_metrics_are_drawn_over_episodes(tmp_path: Path, figures: dict[str, Figure]) -> None:
    plot_run(write_run(tmp_path / "run", success=0.5, score=7.0))
    of_return, of_success, of_score = figures["return.png"].axes
    (mean,) = of_return.lines
    np.testing.assert_array_equal(mean.get_xdata(), [50, 100, 150, 200, 250])
    np.testing.assert_array_equal(mean.get_ydata(), [-11, -12, -13, -14, -15])
    for axes, name, value in ((of_success, "success", 0.5), (of_score, "score", 7.0)):
        assert axes.get_ylabel() == name
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), [value] * 5)


def test_a_metric_that_no_episode_told_is_not_drawn(tmp_path: Path, figures: dict[str, Figure]) -> None:
    run = write_run(tmp_path / "run", success=0.5)
    table = run / "updates.csv"
    table.write_text(table.read_text().replace(",0.5,", ",,", 1))
    plot_run(run)
    _, of_success = figures["return.png"].axes
    np.testing.assert_array_equal(of_success.lines[0].get_ydata(), [math.nan, 0.5, 0.5, 0.5, 0.5])


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _replace(old: str, new: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("updates.csv", _truncate, ["damaged in line 6", "delete that line"]),
        ("updates.csv", _replace("-11.0", "eleven"), ["damaged in line 2", "'eleven'"]),
        ("updates.csv", _replace("-11.0", ""), ["damaged in line 2", "could not convert"]),
        ("updates.csv", _replace("mean_return", "return"), ["damaged in line 1", "no column mean_return"]),
        ("updates.csv", lambda path: path.write_bytes(b"\xff\xfe\x00"), ["damaged in line 1"]),
        ("config.json", lambda path: path.write_text("{"), ["damaged"]),
        ("config.json", lambda path: path.write_text("[]"), ["damaged"]),
    ],
)
def test_a_damaged_file_is_named_with_its_line(
    name: str, damage: Callable[[Path], None], expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run")
    damage(run / name)
    assert main(["plot", str(run)]) == 2
    out, err = capsys.readouterr()
    for text in (f"{run / name} is", *expected):
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
