"""A run in words: the line of a log, the summary, the picture."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from aiotrain import ConfigError
from aiotrain.app.console import plain_line, save_svg, summary
from aiotrain.training.reports import MetricSummary, columns_of
from statuses import Telling, status


def test_plain_line_is_one_stable_ascii_line() -> None:
    line = plain_line(status())
    assert line.isascii()
    assert line.isprintable()
    assert line.startswith(
        "update=430 episodes=43210/100000 played=43215 learned=43000 waiting=210 discarded=3 lost=2 given_up=0"
        " return=-0.232558 best=-0.232558 eps=74.3 sps=7430 lag=0.8 elapsed_s=754.2 policy_loss=-0.0123 value_loss=12.3"
    ), line
    assert "return=nan best=nan" in plain_line(status(returns=()))


def test_no_metric_takes_the_place_of_another_number_in_the_line() -> None:
    for pair in plain_line(status(metrics={})).split():
        with pytest.raises(ConfigError, match=r"^metrics: .*; rename it$"):
            columns_of((pair.partition("=")[0],))


def test_summary_accounts_for_every_episode_and_repeats_the_error() -> None:
    text = str(summary(status(phase="failed", episodes_given_up=1, first_error="Worker 3 died\n  at step 7")))
    for expected in (
        *(
            "failed",
            "43,215 played = 43,000 learned + 210 waiting + 3 discarded + 2 lost",
            "100,000 episodes, 1 given up",
        ),
        *(
            "70.1 episodes/s",
            "best -0.2326 after 43,000 episodes",
            "restarted 1",
            "Worker 3 died",
            "at step 7",
        ),
    ):
        assert expected in text, f"{expected!r} is missing:\n{text}"


def test_summary_counts_in_words_that_fit() -> None:
    one = summary(status(1, warnings=("w",)))
    assert "restarted 0 times, 1 warning\n" in one.plain
    assert "3,000 warnings" in summary(status(warnings=("w",) * 100, warnings_count=3000)).plain


def test_svg_is_well_formed_and_repeatable(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        save_svg(status(run_name="a<b&c", first_error="<script>"), tmp_path / name)
    one = (tmp_path / "one.svg").read_text()
    assert one == (tmp_path / "two.svg").read_text()
    text = "".join(ElementTree.fromstring(one).itertext())
    assert "a<b&c" in text
    assert "43,210" in text


def test_a_panel_and_the_metrics_are_told_in_words() -> None:
    shown = status(curriculum=["level 3 of 9", "half way"], metrics={"success": MetricSummary(0.25, 7)})
    line = plain_line(shown, Telling())
    assert " elapsed_s=754.2 level=level_3_of_9 level_3_of_9=2 success=0.25 policy_loss=" in line, line
    assert "\ndifficulty  level 3 of 9\n            half way\nworkers " in str(summary(shown, Telling()))
    assert "level" not in plain_line(shown), "there is nothing that shows it"
    assert "level" not in plain_line(status(), Telling()), "there is nothing to show"
