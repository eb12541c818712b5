"""Medians, ratios and their noise, and the table that all scripts draw."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.tools.figures import Figures, interleaved, number, ratio, spread


def test_the_spread_goes_from_the_lowest_to_the_highest_as_a_share_of_the_median() -> None:
    assert spread([100.0, 90.0, 120.0]) == pytest.approx(0.3)
    assert spread([-20.0, -10.0, -15.0]) == pytest.approx(10 / 15)
    assert spread([7.0]) == 0.0
    assert spread([0.0, 0.0]) == 0.0


def test_a_ratio_is_the_median_of_those_within_a_repeat() -> None:
    assert ratio([50.0, 66.0, 90.0], [100.0, 110.0, 120.0]) == pytest.approx(0.6)


def test_a_ceiling_whose_repeats_differ_by_more_than_a_third_is_too_noisy() -> None:
    assert ratio([1.0, 1.0, 1.0], [100.0, 90.0, 123.0]) == pytest.approx(1 / 100)
    assert ratio([1.0, 1.0, 1.0], [100.0, 90.0, 124.0]) is None


def test_a_report_says_too_noisy_instead_of_the_ratio() -> None:
    figures = Figures()
    for ceiling in (100.0, 150.0):
        figures.note("a", "played", 50.0, "steps/s", ceiling=("ceiling", ceiling))
    (figure,) = figures.of("a", "played")
    row = figure.row()
    assert (row["ratio_to"], row["ratio"], row["value"]) == ("ceiling", "too noisy", 50.0)
    assert "too noisy" in drawn(figures)


def test_the_table_has_a_row_for_each_subject_and_a_column_for_each_figure() -> None:
    figures = Figures()
    for repeat in range(3):
        for name, ceiling in (("ceiling", 2000.0 + 2 * repeat), ("all of it", 4000.0 + 4 * repeat)):
            figures.note("two workers", "played", 1000.0 + repeat, "steps/s", ceiling=(name, ceiling))
        figures.note("ten workers", "played", 1500.0)
        figures.note("ten workers", "memory", 12.345, "MiB")
    figures.remarks["one worker"] = "did not start"
    text = drawn(figures)
    for told in (
        "played, steps/s",
        "÷ ceiling",
        "÷ all of it",
        "0.250",
        "memory, MiB",
        "1,001",
        "0.500",
        "12.3",
        "did not start",
        "3 repeats",
    ):
        assert told in text, text


def test_subjects_without_a_figure_in_common_stand_in_different_tables() -> None:
    figures = Figures()
    for subject, names in {"a": "xy", "b": "z", "c": "yx", "d": "zw"}.items():
        for name in names:
            figures.note(subject, name, 1.0)
    tables = figures.tables("figures")
    assert [[str(cell) for cell in table.columns[0].cells] for table in tables] == [["a", "c"], ["b", "d"]]


@pytest.mark.parametrize(
    ("value", "written"), [(1234567.8, "1,234,568"), (-45.67, "-45.7"), (1.234, "1.23"), (0.0125, "0.013"), (3, "3")]
)
def test_numbers_have_about_three_digits(value: float, written: str) -> None:
    assert number(value) == written


def test_players_take_turns_and_the_warm_up_does_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    played: list[str] = []

    def player(name: str) -> float:
        played.append(name)
        return float(len(played))

    repeats = list(interleaved({"a": lambda: player("a"), "b": lambda: player("b")}, 2, "turns"))
    assert played == ["a", "b"] * 3
    assert repeats == [{"a": 3.0, "b": 4.0}, {"a": 5.0, "b": 6.0}]
    assert "turns, repeat 2 of 2: a 5, b 6" in capsys.readouterr().err


def drawn(figures: Figures) -> str:
    console = Console(file=io.StringIO(), width=160)
    for table in figures.tables("figures"):
        console.print(table)
    return str(console.file.getvalue())  # type: ignore[attr-defined]
