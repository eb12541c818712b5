"""A domain's panel that raises, or returns what is no panel's, ends neither the picture nor the run."""

from __future__ import annotations

from typing import Any

import pytest

from aiotrain.app.console import plain_line, summary
from aiotrain.app.console.guarded_panel import GuardedPanel
from aiotrain.domains import Panel
from statuses import Telling, frame, status

CURRICULUM = ["level three"]


class Broken(Panel):
    """Answers every question in the same wrong way."""

    title = "difficulty"

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def _wrong(self, *_: Any) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    headline = lines = log = summary = _wrong


@pytest.mark.parametrize(
    "answer", [ValueError("no such level"), None, 7, ["text"], [("one", "two", "three")]], ids=repr
)
@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 45)])
def test_a_broken_panel_says_so_where_it_would_be_shown(answer: Any, width: int, height: int) -> None:
    shown, panel = status(curriculum=CURRICULUM), GuardedPanel(Broken(answer))
    assert "the domain's panel cannot be shown" in frame(shown, width, height, panel)
    assert "the domain's panel cannot be shown" in str(summary(shown, panel))
    assert plain_line(shown, panel).startswith("update="), "the log goes on without the panel"


def test_a_style_that_does_not_exist_is_plain_text() -> None:
    class Bold(Telling):
        def lines(self, status: list[str], width: int, height: int) -> list[list[tuple[str, str]]]:
            return [[(status[0], "bold and blinking")]]

    assert CURRICULUM[0] in frame(status(curriculum=CURRICULUM), 120, 45, GuardedPanel(Bold()))


def test_a_panel_in_order_is_shown_as_it_is() -> None:
    shown = status(curriculum=CURRICULUM)
    assert frame(shown, 120, 45, GuardedPanel(Telling())) == frame(shown, 120, 45, Telling())
