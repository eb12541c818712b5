"""Pictures of a search over workflows: which there are, and what is drawn in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from aiotrain import Config, ConfigError
from aiotrain.cage2 import Cage2, SearchConfig
from aiotrain.cage2.search.strategies import GpUcb
from aiotrain.cage2.search.workflow_search import Training
from aiotrain.cage2.workflows import ORDERS, order_text
from aiotrain.runs.journals import Journals
from aiotrain.runs.plot import plot_run
from aiotrain.training.reports import columns_of
from drawn_figures import _fonts, figures, size_of

__all__ = ["_fonts", "figures"]

THRESHOLD = 0.9


def write_run(folder: Path, compliance: float | None = None, trainings: int = 0) -> Path:
    """Write the files of a search as a trainer does."""
    columns = columns_of(("compliance",))
    env = Cage2(search=SearchConfig(compliance_threshold=THRESHOLD))
    journals = Journals(folder, Config(env=env).resolved(), columns)
    for update in range(1, 6):
        row: dict[str, float | int | None] = dict.fromkeys(columns, 1.0) | {"episodes": 50 * update}
        journals.update(row | {"mean_return": -10.0 - update, "compliance": compliance}, "")
    for row_number in range(trainings):
        bound = math.nan if row_number == 0 else 5.0
        order = order_text(ORDERS[7 * row_number % 120])
        value = -50.0 - row_number
        training = Training(row_number + 1, order, bound, 0.0, 1.0, value, 25.0, 0.95, 250, "compliance", True, True)
        journals.row("workflows.csv", training._asdict())
    journals.close()
    return folder


def test_a_search_is_drawn_with_its_orders(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", compliance=0.5, trainings=6)
    (run / "ucb.png").symlink_to(tmp_path / "precious")
    paths = plot_run(run)
    assert not (tmp_path / "precious").exists(), "a link was followed"
    assert [path.name for path in paths] == ["return.png", "orders.png", "ucb.png", "positions.png"]
    assert all(min(size_of(path)) >= 400 for path in paths)
    assert plot_run(run) == paths, "they cannot be drawn again"


def test_compliance_is_drawn_beside_its_threshold(tmp_path: Path, figures: dict[str, Figure]) -> None:
    plot_run(write_run(tmp_path / "run", compliance=0.5, trainings=1))
    _, of_compliance = figures["return.png"].axes
    compliance, threshold = of_compliance.lines
    np.testing.assert_array_equal(compliance.get_ydata(), [0.5] * 5)
    np.testing.assert_array_equal(threshold.get_ydata(), [THRESHOLD] * 2)


def test_without_any_compliance_none_is_drawn(tmp_path: Path, figures: dict[str, Figure]) -> None:
    plot_run(write_run(tmp_path / "run"))
    assert len(figures["return.png"].axes) == 1


def test_one_order_alone_has_no_pictures_of_a_search(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    config = run / "config.json"
    config.write_text(config.read_text().replace('"workflow": "search"', '"workflow": "reverse"'))
    assert [path.name for path in plot_run(run)] == ["return.png"]


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
    ("damage", "expected"),
    [
        (_truncate, r"damaged in line 3"),
        (_replace("op_host", "op_hots"), r"damaged in line 2: .*op_hots"),
        (_replace("True", "maybe"), r"damaged in line 2: .*neither True nor False"),
    ],
)
def test_a_damaged_table_is_named_with_its_line(damage: Callable[[Path], None], expected: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", trainings=2)
    damage(run / "workflows.csv")
    with pytest.raises(ConfigError, match=f"{run / 'workflows.csv'} is {expected}"):
        plot_run(run)
    assert not list(run.glob("*.png")), "some pictures are there, others not"
