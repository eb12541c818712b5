"""What a frame of the console shows."""

from __future__ import annotations

import dataclasses
import io
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from aiotrain.app.console import plain_line, printable_lines, summary
from aiotrain.collect.protocol import WorkerState, WorkerStatus
from aiotrain.config import Config, PPOConfig
from aiotrain.training.reports import MetricSummary
from statuses import LOSSES, SIZES, Telling, frame, status


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_frame_says_all_that_matters(width: int, height: int) -> None:
    text = frame(status(), width, height)
    for expected in (
        *("search-7", "CAGE 2 (compiled)", "shared_memory", "cpu", "training", "12:34", "1:02:03"),
        *("43%", "43,210 / 100,000 episodes", "74.3 now", "70.1 mean", "7,430 now", "7,010 mean"),
        *("188/256 slots", "12.3 MiB", "v412", "lag 0.80", "27%", "63%", "10%", "58%"),
        *("latest -0.2326", "best -0.2326", "-0.0123", "2.5e-04", "signal 9"),
        "played 43,215 = learned 43,000 + waiting 210 + discarded 3 + lost 2",
        "Workers wait for the learner",
    ):
        assert expected in text, f"{expected!r} is missing at {width}x{height}:\n{text}"
    assert "…" not in text, f"something is cut off at {width}x{height}:\n{text}"


@pytest.mark.parametrize(("width", "height"), [*SIZES, (80, 30)])
def test_first_error_is_pinned(width: int, height: int) -> None:
    shown = status(first_error="Worker 3: ValueError in reset", warnings=tuple("abcdefghij"))
    text = frame(shown, width, height)
    assert "first error: Worker 3: ValueError in reset" in text, text
    assert "! j" in text, f"the newest warning is missing:\n{text}"


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 200),
    height=st.integers(1, 70),
    workers=st.integers(0, 400),
    updates=st.integers(0, 40),
    magnitude=st.sampled_from([0.0, 1.0, 1e6, 1e15, 1e308]),
    error=st.none() | st.text(max_size=300),
    name=st.text(max_size=60),
    told=st.none() | st.lists(st.text(max_size=60), max_size=12),
    metrics=st.dictionaries(
        st.text(min_size=1, max_size=40), st.builds(MetricSummary, st.floats(), st.integers(1, 60))
    ),
)
def test_frame_never_leaves_its_size(
    width: int,
    height: int,
    workers: int,
    updates: int,
    magnitude: float,
    error: str | None,
    name: str,
    told: list[str] | None,
    metrics: dict[str, MetricSummary],
) -> None:
    shown = status(
        workers,
        environment=name,
        returns=tuple((i, magnitude * (-1) ** i) for i in range(updates)),
        updates=updates,
        losses=LOSSES if updates else {},
        episodes_finished=int(min(magnitude, 1e18)),
        episodes_per_s=magnitude,
        remaining_s=magnitude,
        first_error=error,
        warnings=(name, name),
        metrics=metrics,
        curriculum=told,
    )
    lines = frame(shown, width, height, Telling()).splitlines()
    assert len(lines) <= height, f"{len(lines)} lines on a screen of {height}"
    assert {cell_len(line) for line in lines} == {width}, "a line has not the width of the screen"


@pytest.mark.parametrize(("width", "height"), [*SIZES, (40, 12), (1, 1)])
def test_a_run_without_any_value_yet_can_be_drawn(width: int, height: int) -> None:
    nan = math.nan
    shown = status(
        0,
        **dict.fromkeys(("elapsed_s", "remaining_s", "episodes_per_s", "mean_steps_per_s", "policy_lag"), nan),
        **dict.fromkeys(("collect_share", "learn_share", "idle_share", "worker_busy_share"), nan),
        **dict.fromkeys(("episodes_finished", "slots", "updates"), 0),
        returns=(),
        losses={},
        episodes_per_s_history=(),
        warnings=(),
    )
    text = frame(shown, width, height)
    assert "nan" not in text.lower()
    if width >= 80:
        assert "no update yet" in text, text
        assert "wait for the learner" not in text, "a hint without any measurement"


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_compiling_is_told_as_such(width: int, height: int) -> None:
    text = frame(status(phase="compiling", returns=(), losses={}, updates=0), width, height)
    assert "● compiling" in text.splitlines()[0], text
    assert "compiling the environment's player" in text.partition("\n")[2], text


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_metrics_are_told_by_name_and_with_the_episodes_that_told_them(width: int, height: int) -> None:
    metrics = {"success": MetricSummary(0.8421, 50), "score": MetricSummary(-1234.5, 7)}
    text = frame(status(metrics=metrics), width, height)
    assert re.search(r"success 0\.8421 +score -1,234 \(7 of 50\) ", text), text
    assert "…" not in text, f"something is cut off at {width}x{height}:\n{text}"


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_metrics_that_have_no_room_are_cut_off_visibly(width: int, height: int) -> None:
    metrics = {f"a_metric_with_a_long_name_{number}": MetricSummary(0.5, 50) for number in range(40)}
    text = frame(status(metrics=metrics), width, height)
    assert "a_metric_with_a_long_name_0 0.5000" in text, text
    assert "a_metric_with_a_long_name_39" not in text, text
    assert "0.5000 …" in text, f"nothing tells that there are more:\n{text}"


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_panel_shows_the_curriculum_in_the_lines_that_it_is_given(width: int, height: int) -> None:
    told = [f"level {number}" for number in range(9)]
    text = frame(status(curriculum=told), width, height, Telling())
    room = 2 if height < 45 else 6
    for number in range(9):
        assert (f"told level {number}" in text) == (number < room), f"level {number} at {width}x{height}:\n{text}"
    if (width, height) == SIZES[-1]:
        assert re.search(r"─ difficulty ─+ level 0 ─", text), f"title and headline:\n{text}"
    for shown, panel in ((status(), Telling()), (status(curriculum=told), None)):
        assert "told" not in frame(shown, width, height, panel), "there is nothing to show, or nothing that shows it"


def test_returns_that_are_not_numbers_are_left_out() -> None:
    shown = status(returns=((1, math.nan), (2, -5.0), (3, math.inf), (4, -7.0), (5, math.nan)))
    text = frame(shown, 80, 24)
    assert "best -5.00" in text, text
    assert "latest -  best" in text, text
    assert "no finite return yet" in frame(status(returns=((1, math.nan),)), 80, 24)


@pytest.mark.parametrize("learn", [0.05, 0.6, 0.95])
@pytest.mark.parametrize("busy", [0.1, 0.95])
def test_hint_is_whole_on_small_terminals_and_names_flags_that_exist(learn: float, busy: float) -> None:
    text = frame(status(collect_share=1 - learn, learn_share=learn, worker_busy_share=busy), 80, 24)
    hint = text[text.index("▸") : text.index("policy v")] if "▸" in text else ""
    assert "…" not in hint, f"the hint is cut off:\n{text}"
    settings = {setting.name for kind in (Config, PPOConfig) for setting in dataclasses.fields(kind)}
    flags = {flag.replace("-", "_") for flag in re.findall(r"--([a-z-]+[a-z])", hint)}
    assert flags <= settings, f"unknown: {flags - settings}"


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("workers", [1, 7, 100, 144])
def test_every_worker_has_a_cell_and_its_state_a_count(width: int, height: int, workers: int) -> None:
    shown = status(workers)
    text = frame(shown, width, height)
    glyphs = {"playing": "■", "waiting": "□", "starting": "◌", "restarting": "↻", "hung": "✗"}
    for state, glyph in glyphs.items():
        count = sum(worker.state.value == state for worker in shown.workers)
        in_legend = 1 if count else 0
        assert text.count(glyph) == count + in_legend, f"cells of {state} workers:\n{text}"
        assert (f"{glyph} {count} {state}" in text) == (count > 0), f"legend of {state}:\n{text}"


@pytest.mark.parametrize("phase", ["finished", "stopped", "interrupted", "failed"])
def test_after_the_end_no_worker_and_no_ring_is_left(phase: str) -> None:
    ended = tuple(WorkerStatus(WorkerState.ENDED, 0, 430) for _ in range(100))
    shown = status(phase=phase, slots=0, slots_in_use=0, ring_bytes=0)
    text = frame(dataclasses.replace(shown, workers=ended), 110, 36)
    assert "100 ended" in text, text
    assert "playing" not in text, text
    assert "ring -" in text, text
    assert phase in str(summary(status(phase=phase)))


def test_a_long_name_costs_the_device_before_the_environment() -> None:
    shown = status(run_name="Cage2-v0-20260102-030405-12345", environment="aiotrain/Cage2-v0 (RedMeanderAgent)")
    first = frame(shown, 80, 24).splitlines()[0]
    assert "aiotrain/Cage2-v0 (RedMeanderAgent)  " in first, first
    assert "Cage2-v0-202601" in first, first
    assert first.rstrip().endswith("● training"), first


def test_a_crowd_is_shown_by_its_worst() -> None:
    workers = [WorkerStatus(WorkerState.PLAYING, 0, 1)] * 3000
    workers[1234] = WorkerStatus(WorkerState.HUNG, 0, 1)
    text = frame(dataclasses.replace(status(), workers=tuple(workers)), 80, 24)
    assert "2,999 playing" in text
    assert text.count("✗") == 2, f"one cell and one legend entry:\n{text}"
    assert "workers and shows the worst" in text


def test_restarted_workers_are_named() -> None:
    assert "restarts 1 · worker 17" in frame(status(), 80, 24)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"collect_share": 0.9, "learn_share": 0.1, "worker_busy_share": 0.97}, "more cores"),
        ({"collect_share": 0.9, "learn_share": 0.1, "worker_busy_share": 0.3}, "both wait"),
        ({"collect_share": 0.05, "learn_share": 0.95, "worker_busy_share": 0.9}, "--learner-threads"),
        ({"collect_share": 0.1, "learn_share": 0.1, "idle_share": 0.8}, "Neither collecting nor learning"),
        ({"collect_share": 0.4, "learn_share": 0.4, "idle_share": 0.2, "worker_busy_share": 0.9}, None),
        ({"phase": "stopping"}, None),
    ],
)
def test_hint_names_the_bottleneck_only_when_it_is_clear(changes: dict[str, Any], expected: str | None) -> None:
    text = frame(status(**changes), 160, 50)
    assert (expected in text) if expected else ("▸" not in text), text


HOSTILE = "[bold red]x[/] \x1b[2J\x1b]0;title\x07 :smile: \u202eabc \x9b31m\r\nnext\x00 e\u0301 \ud800"


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_text_from_outside_does_not_act(width: int, height: int) -> None:
    hostile = {"environment": HOSTILE, "first_error": HOSTILE, "warnings": (HOSTILE,), "run_name": HOSTILE[::-1]}
    shown = status(**hostile, losses={HOSTILE[:12]: 1.0}, curriculum=[HOSTILE])
    text = frame(shown, width, height, Telling(HOSTILE))
    for character in "\x1b\x07\x9b\r\x00\u202e\ud800":
        assert character not in text, f"{character!r} reached the terminal"
    assert "[bold red]x[/]" in text, "markup was obeyed"
    for line in (plain_line(shown, Telling()), str(summary(shown, Telling())), printable_lines(HOSTILE)):
        assert not set(line) & set("\x1b\x07\x9b\r\x00\u202e\ud800")
    assert printable_lines(HOSTILE).endswith("\nnext\ufffd \xe9 \ufffd")
    console = Console(file=io.StringIO(), width=200)
    console.print(summary(shown))
    assert "[bold red]x[/]" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_budget_in_steps_is_what_is_drawn(width: int, height: int) -> None:
    text = frame(status(steps_total=8_642_000), width, height)
    assert "50%" in text
    assert "4,321,000 / 8,642,000 steps" in text
    assert "of a budget of 8,642,000 steps" in summary(status(steps_total=8_642_000)).plain
    finished = status(steps_total=4_000_000)  # counted in whole batches, more were played
    assert finished.progress == 1
