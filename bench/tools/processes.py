"""What the system tells of processes: memory, CPU time, and the cores that are left to them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence

import psutil

__all__ = ["Cores", "cpu_s", "family", "memory"]


def family(pid: int) -> list[psutil.Process]:
    """The process and all that come from it."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def memory(process: psutil.Process) -> int:
    """Bytes of PSS: shared pages counted once."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    """CPU seconds of ``processes`` and of the children that they have seen end."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


class Cores:
    """How many of the cores that this process may use are left to it and its children by other programs."""

    def __init__(self) -> None:
        self._before = self._read()

    def left(self) -> float:
        """Mean since this was made."""
        (wall, busy, own), (wall_before, busy_before, own_before) = self._read(), self._before
        others = (busy - busy_before) - (own - own_before)
        return len(os.sched_getaffinity(0)) - max(others, 0.0) / (wall - wall_before)

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """Wall time, busy seconds of the cores, and CPU seconds of this process and its children."""
        times = psutil.cpu_times(percpu=True)
        busy = sum(sum(times[core]) - times[core].idle - times[core].iowait for core in os.sched_getaffinity(0))
        own = sum(sum(process.cpu_times()[:2]) for process in family(os.getpid()))
        return time.perf_counter(), busy, own
