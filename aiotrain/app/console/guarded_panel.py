"""A domain's panel whose faults end neither the picture nor the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from aiotrain.app.console.lines import Line, printed
from aiotrain.domains import Panel

_T = TypeVar("_T")


class GuardedPanel(Panel):
    """Shows what ``panel`` shows; where that raises, it says so in its place."""

    def __init__(self, panel: Panel) -> None:
        self.title = str(panel.title)
        self._panel = panel

    def headline(self, status: Any) -> Line:
        """See Panel."""
        return _or_fault(lambda: printed(self._panel.headline(status)), lambda fault: [])

    def lines(self, status: Any, width: int, height: int) -> list[Line]:
        """See Panel."""
        return _or_fault(
            lambda: [printed(line) for line in self._panel.lines(status, width, height)],
            lambda fault: [printed([(fault, "bad")])],
        )

    def log(self, status: Any) -> Mapping[str, str]:
        """See Panel."""
        return _or_fault(
            lambda: {str(name): str(value) for name, value in self._panel.log(status).items()}, lambda fault: {}
        )

    def summary(self, status: Any) -> Mapping[str, str]:
        """See Panel."""
        return _or_fault(
            lambda: {str(label): str(told) for label, told in self._panel.summary(status).items()},
            lambda fault: {"panel": fault},
        )


def _or_fault(show: Callable[[], _T], instead: Callable[[str], _T]) -> _T:
    """Return what ``show`` returns, or what ``instead`` makes of a sentence about its fault."""
    try:
        return show()
    except Exception as error:
        return instead(f"the domain's panel cannot be shown: {type(error).__name__}: {error}")
