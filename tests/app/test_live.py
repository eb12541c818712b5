"""A terminal that is kept up to date, and the log where there is none."""

from __future__ import annotations

import asyncio
import io
import re
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from rich.console import Console

from aiotrain.app.console import PlainLog, can_draw, plain_line, show
from aiotrain.training.status import Status
from statuses import status


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
