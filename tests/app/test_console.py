"""What the console shows, through its public functions."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from aiotrain.app.console import (
    DivertedOutput,
    PlainLog,
    can_draw,
    charts,
    plain_line,
    printable_lines,
    render,
    save_svg,
    show,
    summary,
)
from aiotrain.collect.protocol import WorkerState, WorkerStatus
from aiotrain.config import Config, PPOConfig
from aiotrain.training.status import OrderEstimate, Status, TrainingStatus, WorkflowStatus

_LOSSES = {
    "policy_loss": -0.0123,
    "value_loss": 12.3,
    "entropy": 2.41,
    "approx_kl": 0.0087,
    "clip_fraction": 0.112,
    "explained_variance": 0.873,
    "learning_rate": 2.5e-4,
}
_CYCLE = [WorkerState.PLAYING] * 7 + list(WorkerState)


def status(workers: int = 100, **changes: Any) -> Status:
    default = Status(
        run_name="search-7",
        environment="CAGE 2 (compiled)",
        collector="shared_memory",
        device="cpu",
        phase="training",
        elapsed_s=754.2,
        remaining_s=3723.0,
        episodes_total=100_000,
        steps_total=None,
        episodes_finished=43_210,
        steps_finished=4_321_000,
        episodes_played=43_215,
        episodes_learned=43_000,
        episodes_waiting=210,
        episodes_discarded=3,
        episodes_lost=2,
        episodes_given_up=0,
        episodes_in_flight=120,
        episodes_per_s=74.3,
        steps_per_s=7430.0,
        mean_episodes_per_s=70.1,
        mean_steps_per_s=7010.0,
        episodes_per_s_history=tuple(float(second % 20) for second in range(120)),
        workers=tuple(WorkerStatus(_CYCLE[i % len(_CYCLE)], int(i == 17), 430 + i) for i in range(workers)),
        slots=256,
        slots_in_use=188,
        ring_bytes=12_900_000,
        policy_version=412,
        policy_lag=0.8,
        collect_share=0.27,
        learn_share=0.63,
        idle_share=0.1,
        worker_busy_share=0.58,
        returns=tuple((100 * i, -100.0 / i) for i in range(1, 431)),
        compliance=math.nan,
        losses=_LOSSES,
        updates=430,
        warnings=("Worker 17 was killed by signal 9; restarted.",),
        warnings_count=1,
        first_error=None,
    )
    if "warnings" in changes:
        changes.setdefault("warnings_count", len(changes["warnings"]))
    return dataclasses.replace(default, **changes)


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


def frame(shown: Status, width: int, height: int) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    with console.capture() as capture:
        console.print(render(shown, width, height), end="", crop=False)
    return capture.get()


SIZES = [(80, 24), (110, 36), (160, 50)]


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
    searching=st.none()
    | st.builds(
        search,
        running=st.lists(
            st.builds(training, workflow=st.text(max_size=60), compliance=st.sampled_from([math.nan, 1.0])),
            min_size=1,
            max_size=12,
        ).map(tuple),
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
    searching: WorkflowStatus | None,
) -> None:
    shown = status(
        workers,
        environment=name,
        returns=tuple((i, magnitude * (-1) ** i) for i in range(updates)),
        updates=updates,
        losses=_LOSSES if updates else {},
        episodes_finished=int(min(magnitude, 1e18)),
        episodes_per_s=magnitude,
        remaining_s=magnitude,
        first_error=error,
        warnings=(name, name),
        workflow=searching,
    )
    lines = frame(shown, width, height).splitlines()
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
def test_a_search_is_told_with_its_order_compliance_and_best_orders(width: int, height: int) -> None:
    text = frame(status(workflow=search()), width, height)
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
    assert "compliance" not in frame(status(), width, height), "of a run without a search"


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_several_orders_in_training_are_told_as_far_as_there_is_room(width: int, height: int) -> None:
    running = (training(0), training(1, compliance=0.9512), training(2, compliance=math.nan, episodes=0))
    text = frame(status(workflow=search(running=running)), width, height)
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
    text = frame(status(workflow=search(running=tuple(training(place % 3) for place in range(120)))), width, height)
    assert "1/120 enterprise > user > op_host > op_server > defender  compliance 94% of 95%" in text, text
    assert "best user > enterprise > op_host > op_server > defender" in text, text


def test_a_line_names_all_orders_in_training() -> None:
    line = plain_line(status(workflow=search(running=(training(0), training(1), training(2, compliance=math.nan)))))
    assert " workflow=3-orders compliance=nan policy_loss=" in line, line
    line = plain_line(status(compliance=0.84261))
    assert " elapsed_s=754.2 compliance=0.8426 policy_loss=" in line, line


def test_a_search_at_its_start_can_be_drawn() -> None:
    started = search(running=(training(compliance=math.nan, episodes=0),), trainings=0, complied=0, best=())
    text = frame(status(workflow=started), 80, 24)
    assert "compliance - of 95%" in text, text
    assert "best none yet" in text, text
    assert "no training of an order has ended" in str(summary(status(workflow=started)))
    assert "compliance=nan" in plain_line(status(workflow=started))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_compiling_is_told_as_such(width: int, height: int) -> None:
    text = frame(status(phase="compiling", returns=(), losses={}, updates=0), width, height)
    assert "● compiling" in text.splitlines()[0], text
    assert "compiling the engine" in text.partition("\n")[2], text


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
    shown = status(**hostile, losses={HOSTILE[:12]: 1.0})
    text = frame(shown, width, height)
    for character in "\x1b\x07\x9b\r\x00\u202e\ud800":
        assert character not in text, f"{character!r} reached the terminal"
    assert "[bold red]x[/]" in text, "markup was obeyed"
    for line in (plain_line(shown), str(summary(shown)), printable_lines(HOSTILE)):
        assert not set(line) & set("\x1b\x07\x9b\r\x00\u202e\ud800")
    assert printable_lines(HOSTILE).endswith("\nnext\ufffd \xe9 \ufffd")
    console = Console(file=io.StringIO(), width=200)
    console.print(summary(shown))
    assert "[bold red]x[/]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_plain_line_is_one_stable_ascii_line() -> None:
    line = plain_line(status())
    assert line.isascii()
    assert line.isprintable()
    assert line.startswith(
        "update=430 episodes=43210/100000 played=43215 learned=43000 waiting=210 discarded=3 lost=2 given_up=0"
        " return=-0.232558 best=-0.232558 eps=74.3 sps=7430 lag=0.8 elapsed_s=754.2 policy_loss=-0.0123 value_loss=12.3"
    ), line
    assert "return=nan best=nan" in plain_line(status(returns=()))
    searching = plain_line(status(workflow=search()))
    assert f" elapsed_s=754.2 workflow={ORDERS[0]} compliance=nan policy_loss=" in searching, searching
    assert "workflow" not in line


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


def test_summary_of_a_search_names_the_best_order() -> None:
    text = str(summary(status(workflow=search())))
    assert "best user > enterprise > op_host > op_server > defender: -150.1 ± 12.45\n" in text, text
    assert "after 11 trainings, 64% complied" in text, text
    missed = search(best=(OrderEstimate(ORDERS[0], -50.0, 1.0, False),), trainings=1, complied=0)
    assert "without having complied\n            after 1 training, 0% complied" in str(summary(status(workflow=missed)))


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


def test_svg_is_well_formed_and_repeatable(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        save_svg(status(run_name="a<b&c", first_error="<script>"), tmp_path / name)
    one = (tmp_path / "one.svg").read_text()
    assert one == (tmp_path / "two.svg").read_text()
    text = "".join(ElementTree.fromstring(one).itertext())
    assert "a<b&c" in text
    assert "43,210" in text


def terminal(**options: Any) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=True, width=80, height=24, _environ={"TERM": "xterm"}, **options), file


def stops_after(redraws: int) -> Callable[[float], Awaitable[None]]:
    """Return a sleep that takes no time, and lasts for ever after so many."""
    left = redraws

    async def sleep(seconds: float) -> None:
        nonlocal left
        assert seconds >= 0.25, f"more than four redraws a second: every {seconds} s"
        left -= 1
        if left < 0:
            stopped.set()
            await asyncio.Event().wait()

    stopped = asyncio.Event()
    sleep.stopped = stopped  # type: ignore[attr-defined]
    return sleep


async def until_stopped(task: asyncio.Task[None], stop: Any) -> None:
    """Wait until the sleep of `stops_after` is in its last round. Raises what `task` raises if it ends before."""
    waiting = asyncio.create_task(stop.stopped.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        waiting.cancel()
        await task
        pytest.fail("showing ended early")


@pytest.mark.asyncio
async def test_cancelling_leaves_the_last_frame_on_the_normal_screen() -> None:
    console, file = terminal()
    calls = 0

    def get_status() -> Status:
        nonlocal calls
        calls += 1
        return status(episodes_finished=43_000 + calls, phase="interrupted" if stop.stopped.is_set() else "training")

    stop: Any = stops_after(3)
    task = asyncio.create_task(show(get_status, console, sleep=stop))
    await until_stopped(task, stop)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    output = file.getvalue()
    assert output.count("\x1b[?1049h") == output.count("\x1b[?1049l") == 1
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 1, "the cursor stays hidden"
    drawn, _, last = output.partition("\x1b[?1049l")
    assert calls == 5, "a first frame, three more, and the last"
    assert "43,004" in drawn
    last = re.sub(r"\x1b\[[0-9;]*m", "", last)
    assert "43,005 / 100,000" in last, f"the last frame is not of the last status:\n{last}"
    assert "interrupted" in last
    assert "\x1b" not in last
    assert len(last.splitlines()) <= 23, "no room for the prompt"


@pytest.mark.asyncio
async def test_showing_ends_with_the_run() -> None:
    console, file = terminal()
    await show(lambda: status(phase="finished"), console, sleep=stops_after(0))
    assert file.getvalue().rstrip().count("finished") >= 2


@pytest.mark.asyncio
async def test_only_lines_that_changed_are_written() -> None:
    console, file = terminal()
    stop: Any = stops_after(5)
    task = asyncio.create_task(show(status, console, sleep=stop))
    await until_stopped(task, stop)
    assert len(re.findall(r"\x1b\[1;1H", file.getvalue())) == 1, "an unchanged line was written again"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.asyncio
async def test_what_is_printed_meanwhile_is_read_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    console, file = terminal()
    before = sys.stdout, sys.stderr

    def get_status() -> Status:
        print("a word from a library")
        return status(phase="finished" if "1049h" in file.getvalue() else "training")

    await show(get_status, console, sleep=stops_after(9))
    assert (sys.stdout, sys.stderr) == before
    after = file.getvalue().partition("\x1b[?1049l")[2]
    assert after.rstrip().endswith("a word from a library"), after


DIVERTED = """
import os, sys
from pathlib import Path
from aiotrain.app.console import DivertedOutput
from aiotrain.app.console import screen
log = Path("run", "workers.log")
screen._LOG_BYTES = 20
output = DivertedOutput(log)
print("mine")
os.system("echo a child; echo its error >&2")
output.trim()
print(log.read_text().split("\\n"), os.isatty(output.terminal))
os.write(1, b"more")
output.trim()
print(log.read_text())
written = output.close()
print(written, os.path.exists(log.parent))
os.write(1, b"on standard output again")
print("on standard error again", file=sys.stderr)
"""


@pytest.mark.parametrize("old", [False, True])
def test_output_of_children_is_diverted_to_a_file_of_bounded_size(old: bool, tmp_path: Path) -> None:
    if old:
        (tmp_path / "run").mkdir()
    done = subprocess.run(
        [sys.executable, "-u", "-c", DIVERTED], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == [
        *("mine", "['a child', 'its error', ''] False", ""),
        *(f"False {old}", "on standard output again"),
    ]
    assert done.stderr == "on standard error again\n"


def test_output_is_diverted_to_no_link(tmp_path: Path) -> None:
    (tmp_path / "workers.log").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        DivertedOutput(tmp_path / "workers.log").close()
    assert not (tmp_path / "precious").exists()


class _Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.asyncio
async def test_a_closed_terminal_does_not_end_the_run() -> None:
    console = Console(file=_Closed(), force_terminal=True, width=80, height=24)
    await asyncio.wait_for(show(status, console, sleep=stops_after(9)), 10)


def test_a_closed_pipe_does_not_end_the_run() -> None:
    log = PlainLog(Console(file=_Closed()))
    log.write(status(updates=1))
    log.write(status(updates=2))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_budget_in_steps_is_what_is_drawn(width: int, height: int) -> None:
    text = frame(status(steps_total=8_642_000), width, height)
    assert "50%" in text
    assert "4,321,000 / 8,642,000 steps" in text
    assert "of a budget of 8,642,000 steps" in summary(status(steps_total=8_642_000)).plain
    finished = status(steps_total=4_000_000)  # counted in whole batches, more were played
    assert finished.progress == 1


def test_summary_counts_in_words_that_fit() -> None:
    one = summary(status(1, warnings=("w",)))
    assert "restarted 0 times, 1 warning\n" in one.plain
    assert "3,000 warnings" in summary(status(warnings=("w",) * 100, warnings_count=3000)).plain


def test_log_has_each_warning_each_update_and_the_first_error_once() -> None:
    file = io.StringIO()
    log = PlainLog(Console(file=file))
    for news in (
        status(updates=0, warnings=()),
        status(updates=1, warnings=("one",)),
        status(updates=1, warnings=("one",)),
        status(updates=2, warnings=("one", "two \x1b[2J")),
        status(updates=3, warnings=("two \x1b[2J", "three"), warnings_count=3, first_error="it broke", phase="failed"),
        status(updates=3, warnings=("two \x1b[2J", "three"), warnings_count=3, first_error="it broke", phase="failed"),
    ):
        log.write(news)
    lines = [line.split(" episodes=")[0] for line in file.getvalue().splitlines()]
    assert lines == [
        *("warning: one", "update=1", "warning: two \ufffd[2J", "update=2"),
        *("warning: three", "error: it broke", "update=3"),
    ]


@pytest.mark.parametrize("how", ["dumb", "ascii", "file"])
def test_where_no_frame_can_be_shown_the_log_can_be_written(how: str) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii" if how == "ascii" else "utf-8")
    term = "dumb" if how == "dumb" else "xterm"
    console = Console(file=file, force_terminal=how != "file", _environ={"TERM": term})
    assert not can_draw(console)
    shown = status(phase="finished", warnings=("naïve",))
    PlainLog(console).write(shown)
    written = raw.getvalue().decode()
    assert "\x1b" not in written
    assert written.splitlines()[1] == plain_line(shown)


def test_a_terminal_can_show_frames() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert can_draw(Console(file=file, force_terminal=True, _environ={"TERM": "xterm"}))
