"""Text pictures and number formats."""

from __future__ import annotations

import math

import pytest

from aiotrain.app.console import charts


def test_sparkline_is_scaled_from_zero_to_the_largest_value_shown() -> None:
    assert charts.sparkline([100, 0, 4, 8, math.nan, 0.01], 5) == [" ▄█ ▁"]
    assert charts.sparkline([8, 16], 4, 2) == ["   █", "  ██"]
    assert charts.sparkline([], 3) == ["   "]
    assert charts.sparkline([0, 0], 3) == ["   "]


def test_curve_rises_from_the_lower_left_to_the_upper_right() -> None:
    rows, low, high = charts.curve([(i, float(i)) for i in range(101)], 10, 5)
    assert (low, high) == pytest.approx((0, 100), abs=3)
    assert [len(row) for row in rows] == [10] * 5
    assert rows[0].strip() == rows[0][-2:], f"the top is reached at the right end only: {rows}"
    assert rows[-1].strip() == rows[-1][:2], f"the bottom at the left end only: {rows}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (charts.duration(3723), "1:02:03"),
        (charts.duration(None), "-"),
        (charts.duration(2e5), "2d 07:33"),
        (charts.number(-1e300), "-1.00e300"),
        (charts.short(9_960), "9k"),
        (charts.short(1_234_567), "1.2M"),
        (charts.rate(12_345_678.0), "12.35M"),
    ],
)
def test_formats(text: str, expected: str) -> None:
    assert text == expected
