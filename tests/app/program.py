"""The program as its users start it, and what tests wait for while it runs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

__all__ = ["RUN", "SMALL", "Start", "everything_from", "left_of", "wait_for_update", "wait_until"]

RUN = Path(__file__).parents[2] / "run.py"
SMALL = ("--workers", "2", "--total-episodes", "20", "--episodes-per-update", "10")
"""Flags of a run of two updates."""
Start = Callable[..., "subprocess.Popen[str]"]
"""Starts the program with flags: what the fixture `start` gives."""


def left_of(group: int) -> list[psutil.Process]:
    """Return the processes of a process group that are still there after a while."""
    deadline = time.monotonic() + 5
    while (alive := [each for each in psutil.process_iter() if _is_alive(each, group)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def _is_alive(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.Error):
        return False


def wait_until(holds: Callable[[], object], process: subprocess.Popen[Any]) -> None:
    """Wait until something `holds` while `process` runs."""
    deadline = time.monotonic() + 60
    while not holds():
        assert process.poll() is None, f"it ended early: {process.communicate()}"
        assert time.monotonic() < deadline, "waited a minute in vain"
        time.sleep(0.001)


def wait_for_update(run: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the run in the folder `run` has learned something."""
    updates = run / "updates.csv"
    wait_until(lambda: updates.exists() and updates.read_text().count("\n") > 1, process)


def everything_from(terminal: int) -> str:
    """Read until the other end of a pseudo-terminal is closed."""
    read = b""
    with contextlib.suppress(OSError):  # which is how Linux tells
        while more := os.read(terminal, 65536):
            read += more
    return read.decode(errors="replace")
