"""Figures of a measurement: repeats, medians, ratios to a ceiling, how far repeats lie apart, and a table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.markup import escape
from rich.table import Table

from bench.tools.progress import say

__all__ = ["Figure", "Figures", "interleaved", "number", "ratio", "spread"]

NOISY = 1 / 3
"""Largest spread of a ceiling whose ratios mean something."""
TOO_NOISY = "too noisy"


def spread(values: Sequence[float]) -> float:
    """Return how far the lowest and the highest of ``values`` lie apart, as a share of the median."""
    middle = abs(statistics.median(values))
    return (max(values) - min(values)) / middle if middle else 0.0


def ratio(values: Sequence[float], ceilings: Sequence[float]) -> float | None:
    """Return the median ratio of a value to the ceiling of the same repeat.

    None: the ceiling's repeats differ by more than a third, which is too noisy for a ratio.
    """
    if spread(ceilings) > NOISY:
        return None
    return statistics.median(value / ceiling for value, ceiling in zip(values, ceilings, strict=True))


def number(value: float) -> str:
    """Write a number with about three digits, all of those before the point, and thousands apart."""
    size = abs(value)
    decimals = 0 if size >= 100 or value == int(value) else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{decimals}f}"


@dataclass
class Figure:
    """One figure of one subject, in all repeats."""

    subject: str
    """What it was measured of."""
    name: str
    unit: str
    repeats: list[float] = field(default_factory=list)
    ratio_to: str | None = None
    """What the ceiling is, if it has one."""
    ceilings: list[float] = field(default_factory=list)
    """The ceiling in the same repeats."""

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.repeats)

    @property
    def ratio(self) -> float | str | None:
        """The ratio to the ceiling; None without one."""
        if self.ratio_to is None:
            return None
        found = ratio(self.repeats, self.ceilings)
        return TOO_NOISY if found is None else found

    def row(self) -> dict[str, Any]:
        """Return the figure as a row of the JSON report."""
        return {
            "subject": self.subject,
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "repeats": self.repeats,
            "spread": spread(self.repeats),
            "ratio_to": self.ratio_to,
            "ratio": self.ratio,
            "ceilings": self.ceilings,
        }


class Figures:
    """The figures of a script, in the order in which they were first noted."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str, str | None], Figure] = {}
        self.remarks: dict[str, str] = {}
        """What else is to be said of a subject."""

    def note(
        self, subject: str, name: str, value: float, unit: str = "", *, ceiling: tuple[str, float] | None = None
    ) -> None:
        """Add a repeat of a figure.

        ``ceiling``: what its ratio is to, and the value of that in this repeat. A figure that is noted with several
        ceilings is reported with each.
        """
        ratio_to = None if ceiling is None else ceiling[0]
        figure = self._figures.setdefault((subject, name, ratio_to), Figure(subject, name, unit, ratio_to=ratio_to))
        figure.repeats.append(float(value))
        if ceiling is not None:
            figure.ceilings.append(float(ceiling[1]))

    def __iter__(self) -> Iterator[Figure]:
        return iter(self._figures.values())

    def of(self, subject: str, name: str) -> list[Figure]:
        """Return the figure, once for each of its ceilings; [] if there is none."""
        return [figure for figure in self if (figure.subject, figure.name) == (subject, name)]

    def tables(self, title: str) -> list[Table]:
        """Draw a row for each subject, with the medians and ratios of its figures.

        Subjects that have no figure in common stand in different tables.
        """
        groups: list[tuple[set[str], list[str]]] = []  # names of figures, and subjects that have them
        for subject in dict.fromkeys([*(figure.subject for figure in self), *self.remarks]):
            names = {figure.name for figure in self if figure.subject == subject}
            alike = [group for group in groups if group[0] & names or not names]
            groups = [group for group in groups if group not in alike]
            subjects = [each for _, known in alike for each in known]
            groups.append((names.union(*(known for known, _ in alike)), [*subjects, subject]))
        return [self._table(title if not place else "", subjects) for place, (_, subjects) in enumerate(groups)]

    def _table(self, title: str, subjects: Sequence[str]) -> Table:
        figures = [figure for figure in self if figure.subject in subjects]
        repeats = max((len(figure.repeats) for figure in figures), default=0)
        table = Table(title=title, caption=f"medians of {repeats} repeats" if repeats > 1 else None)
        table.add_column("", overflow="fold")
        ratios: dict[str, list[str]] = {}  # what each figure is divided by
        for figure in figures:
            known = ratios.setdefault(figure.name, [])
            if figure.ratio_to is not None and figure.ratio_to not in known:
                known.append(figure.ratio_to)
        for name, known in ratios.items():
            unit = next(figure.unit for figure in figures if figure.name == name)
            table.add_column(f"{name}, {unit}" if unit else name, justify="right")
            for ratio_to in known:
                table.add_column(f"÷ {ratio_to}", justify="right")
        with_remarks = any(subject in self.remarks for subject in subjects)
        if with_remarks:
            table.add_column("remarks", overflow="fold")
        for subject in subjects:
            cells = [subject]
            for name, known in ratios.items():
                found = self.of(subject, name)
                cells.append(number(found[0].value) if found else "")
                shares = {figure.ratio_to: figure.ratio for figure in found}
                cells += [_cell(shares.get(ratio_to)) for ratio_to in known]
            if with_remarks:
                cells.append(escape(self.remarks.get(subject, "")))
            table.add_row(*cells)
        return table


def _cell(share: float | str | None) -> str:
    return "" if share is None else share if isinstance(share, str) else number(share)


def interleaved(
    players: Mapping[str, Callable[[], float]], repeats: int, title: str = "", *, warm_up: bool = True
) -> Iterator[dict[str, float]]:
    """Measure ``players`` in turn, and yield what each came to in a repeat. The warm-up does not count."""
    for repeat in range(-warm_up, repeats):
        measured = {name: play() for name, play in players.items()}
        if repeat >= 0:
            told = ", ".join(f"{name} {number(value)}" for name, value in measured.items())
            say(f"{title + ', ' if title else ''}repeat {repeat + 1} of {repeats}: {told}")
            yield measured
