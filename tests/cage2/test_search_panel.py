"""What the console shows of a search over workflows."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from aiotrain.app.console import plain_line, summary
from aiotrain.cage2.screen.search_panel import SearchPanel
from aiotrain.cage2.search.status import OrderEstimate, TrainingStatus, WorkflowStatus
from aiotrain.training.reports import MetricSummary
from statuses import SIZES, frame, status

PANEL = SearchPanel()


ORDERS = [
    "enterprise,user,op_host,op_server,defender",
    "user,enterprise,op_host,op_server,defender",
    "op_host,user,enterprise,op_server,defender",
]


def training(place: int = 0, **changes: Any) -> TrainingStatus:
    return dataclasses.replace(TrainingStatus(ORDERS[place], 12 + place, 2500 - place, 0.9499 - 0.1 * place), **changes)


def search(**changes: Any) -> WorkflowStatus:
    best = tuple(OrderEstimate(order, -150.13 - i, 12.45, i < 2) for i, order in enumerate(ORDERS[1:] + ORDERS[:1]))
    default = WorkflowStatus((training(),), 0.95, 11, 7, best)
    return dataclasses.replace(default, **changes)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_search_is_told_with_its_order_compliance_and_best_orders(width: int, height: int) -> None:
    text = frame(status(curriculum=search(), metrics={"compliance": MetricSummary(0.8426, 50)}), width, height, PANEL)
    expected = [
        "now  enterprise > user > op_host > op_server > defender  compliance 94% of 95%",  # not there yet: rounded down
        "best user > enterprise > op_host > op_server > defender  -150.1 ± 12.45",
        "playing",
        "signal 9",
    ]
    if width >= 110:
        expected += ["training 12"]
    if height >= 45:
        expected += ["     op_host > user > enterprise > op_server > defender  -151.1 ± 12.45"]
        expected += ["     enterprise > user > op_host > op_server > defender  -152.1 ± 12.45  missed"]
        expected += ["episodes 2,500", "trainings ended 11, complied 7"]
    for line in expected:
        assert line in text, f"{line!r} is missing at {width}x{height}:\n{text}"
    assert "…" not in text, f"something is cut off at {width}x{height}:\n{text}"
    without = frame(status(), width, height, PANEL)
    assert "compliance" not in without, f"there is no search:\n{without}"


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_several_orders_in_training_are_told_as_far_as_there_is_room(width: int, height: int) -> None:
    running = (training(0), training(1, compliance=0.9512), training(2, compliance=math.nan, episodes=0))
    text = frame(status(curriculum=search(running=running)), width, height, PANEL)
    expected = [
        "1/3  enterprise > user > op_host > op_server > defender  compliance 94% of 95%",
        "best user > enterprise > op_host > op_server > defender  -150.1 ± 12.45",
        "playing",
        "signal 9",
    ]
    others = [
        "2/3  user > enterprise > op_host > op_server > defender  compliance 95% of 95%  training 13  episodes 2,499",
        "3/3  op_host > user > enterprise > op_server > defender  compliance - of 95%  training 14  episodes 0",
        "     op_host > user > enterprise > op_server > defender  -151.1 ± 12.45",
    ]
    if height >= 45:
        expected += others
    for line in expected:
        assert line in text, f"{line!r} is missing at {width}x{height}:\n{text}"
    assert "…" not in text, f"something is cut off at {width}x{height}:\n{text}"


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_with_many_orders_in_training_the_best_have_room(width: int, height: int) -> None:
    text = frame(
        status(curriculum=search(running=tuple(training(place % 3) for place in range(120)))), width, height, PANEL
    )
    assert "1/120 enterprise > user > op_host > op_server > defender  compliance 94% of 95%" in text, text
    assert "best user > enterprise > op_host > op_server > defender" in text, text


def test_a_line_names_all_orders_in_training() -> None:
    running = (training(0), training(1), training(2, compliance=math.nan))
    line = plain_line(status(curriculum=search(running=running)), PANEL)
    assert " elapsed_s=754.2 workflow=3-orders policy_loss=" in line, line


def test_a_line_names_the_one_order_in_training() -> None:
    line = plain_line(status(curriculum=search(), metrics={"compliance": MetricSummary(0.84261, 50)}), PANEL)
    assert f" elapsed_s=754.2 workflow={ORDERS[0]} compliance=0.8426 policy_loss=" in line, line


def test_a_search_at_its_start_can_be_drawn() -> None:
    started = search(running=(training(compliance=math.nan, episodes=0),), trainings=0, complied=0, best=())
    text = frame(status(curriculum=started), 80, 24, PANEL)
    assert "compliance - of 95%" in text, text
    assert "best none yet" in text, text
    assert "no training of an order has ended" in str(summary(status(curriculum=started), PANEL))
    assert f" workflow={ORDERS[0]} " in plain_line(status(curriculum=started), PANEL)


def test_summary_of_a_search_names_the_best_order() -> None:
    text = str(summary(status(curriculum=search()), PANEL))
    assert "best user > enterprise > op_host > op_server > defender: -150.1 ± 12.45\n" in text, text
    assert "after 11 trainings, 64% complied" in text, text
    missed = search(best=(OrderEstimate(ORDERS[0], -50.0, 1.0, False),), trainings=1, complied=0)
    text = str(summary(status(curriculum=missed), PANEL))
    assert "without having complied\n            after 1 training, 0% complied" in text, text
