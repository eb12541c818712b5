"""Ctrl-C and SIGTERM to the main job at random moments, and a look at what is left.

    python -m bench.interrupts --runs 50 --workers 4 --seed 0

Each run is ``run.py`` at the head of a process group, all of which gets the signals: while it imports and starts its
workers, while it compiles the engine (with an empty cache of compiled code), and while it trains, updates included. A
run has survived if it ended with the signal's exit code within 5 s (a fifth of that after a second signal), said little
or nothing on standard error, left no process and no shared memory, and left files that can be read. The exit code is 1
if one has not.

Moments are counted from the program's first line. Before it, Python itself starts, which takes some 20 ms, and answers
Ctrl-C with a traceback.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from safetensors import SafetensorError
from safetensors.numpy import load_file

from bench.tools.figures import Figures
from bench.tools.program import updates, wait_for
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.script import ROOT, Script

TAKES = "6 minutes"
SMALLEST = "--runs 1 --workers 1 --within-s 30"

STDERR_LINES = 10
PATIENCE_S = 60.0


class Disaster(NamedTuple):
    name: str
    signals: tuple[signal.Signals, ...]
    latest_s: float
    """The first signal comes at most so much later than the moment from which it is counted."""
    compiles: bool = False
    trains: bool = False
    """It is counted from the first update, not from the program's first line."""


DISASTERS = (
    Disaster("Ctrl-C while it starts", (signal.SIGINT,), 3.0),
    Disaster("Ctrl-C while it compiles", (signal.SIGINT,), 10.0, compiles=True),
    Disaster("Ctrl-C while it trains", (signal.SIGINT,), 2.0, trains=True),
    Disaster("Ctrl-C twice while it starts", (signal.SIGINT, signal.SIGINT), 3.0),
    Disaster("Ctrl-C twice while it trains", (signal.SIGINT, signal.SIGINT), 2.0, trains=True),
    Disaster("SIGTERM while it starts", (signal.SIGTERM,), 3.0),
    Disaster("SIGTERM while it trains", (signal.SIGTERM,), 2.0, trains=True),
)


def interrupt(
    disaster: Disaster, workers: int, within_s: float, chance: random.Random, folder: Path
) -> tuple[float, list[str]]:
    """Start a run in ``folder`` and interrupt it; seconds from the last signal to its end, and what is wrong then."""
    command = [
        sys.executable,
        str(ROOT / "run.py"),
        "--workers",
        str(workers),
        "--total-episodes",
        "10000000",
        "--run-dir",
        "run",
    ]
    variables = os.environ | ({"NUMBA_CACHE_DIR": str(folder / "cache")} if disaster.compiles else {})
    with (folder / "stderr").open("w+") as stderr:
        program = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True
        )
        try:
            wait_for(lambda: has_begun(program.pid), program, every_s=0.001)
            if disaster.trains:
                wait_for(lambda: updates(folder / "run"), program)
            time.sleep(chance.uniform(0, disaster.latest_s))
            for number, which in enumerate(disaster.signals):
                if number:
                    time.sleep(chance.uniform(0.02, 0.5))
                os.killpg(program.pid, which)  # its first process is not waited for yet, so that the group is there
            signalled_s = time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(PATIENCE_S)
            took_s = time.monotonic() - signalled_s
            found = faults(disaster, program, folder)
            if took_s > (within_s if len(disaster.signals) == 1 else within_s / 5):
                found.append(f"took {took_s:.1f} s")
            return took_s, found
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait()


def has_begun(pid: int) -> bool:
    """Tell whether the program's own first lines have run: Python by itself does not catch SIGTERM."""
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def faults(disaster: Disaster, program: subprocess.Popen[bytes], folder: Path) -> list[str]:
    """Return what is wrong after a run was interrupted."""
    found = []
    in_order = len(disaster.signals) == 1
    which = disaster.signals[0]
    # In the last steps of its end, Python leaves a second signal to the system; shells tell both by the same number.
    if program.returncode not in ((128 + which,) if in_order else (128 + which, -which)):
        found.append(f"exit code {program.returncode}")
    if left := left_of(program.pid):
        found.append(f"left processes: {left}")
    if segments := [path.name for path in Path("/dev/shm").glob(f"aiotrain-{program.pid}-*")]:
        found.append(f"left shared memory: {segments}")
    said = (folder / "stderr").read_text()
    if len(said.splitlines()) > STDERR_LINES or "Traceback" in said:
        found.append(f"said:\n{said}")
    return found + faults_of_files(folder / "run", in_order)


def left_of(group: int) -> list[str]:
    """Return the processes of a group that are still there after a second."""
    deadline = time.monotonic() + 1.0
    while True:
        left = []
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, psutil.Error):
                if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                    left.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.01)


def faults_of_files(run: Path, in_order: bool) -> list[str]:
    """Return what is wrong with the folder of a run that was ended ``in_order`` or at once. It may not be there yet."""
    found = []
    for path in run.glob("*.safetensors"):
        try:
            if not all(np.isfinite(tensor).all() for tensor in load_file(path).values()):
                found.append(f"{path.name} is not finite")
        except SafetensorError as error:
            found.append(f"{path.name} cannot be loaded: {error}")
    if in_order and (run / "updates.csv").exists():
        if not (run / "weights.safetensors").exists():
            found.append("there are no weights")
        last = json.loads((run / "events.jsonl").read_text().splitlines()[-1])
        if (last["event"], last.get("phase")) != ("end", "interrupted"):
            found.append(f"the last event is {last}")
        found += [f"{path.name} is left" for path in run.glob(".*")]
    return found


def main() -> int:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--within-s", type=float, default=5.0, help="more where others keep the cores busy")
    parser.add_argument("--seed", type=int, default=0)
    arguments = script.parse(parser)
    report = Report(script, arguments)
    chance = random.Random(arguments.seed)
    tries: dict[Disaster, list[tuple[float, list[str]]]] = {}
    for number in range(arguments.runs):
        disaster = DISASTERS[number % len(DISASTERS)]
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            seconds, wrong = interrupt(disaster, arguments.workers, arguments.within_s, chance, Path(folder))
        tries.setdefault(disaster, []).append((seconds, wrong))
        say(f"run {number + 1} of {arguments.runs}, {disaster.name}: ended after {seconds:.2f} s")
        for each in wrong:
            say(f"run {number + 1}, {disaster.name}: {each}")
    figures = Figures()
    for disaster, ends in tries.items():
        figures.note(disaster.name, "tries", len(ends))
        figures.note(disaster.name, "survived", sum(not wrong for _, wrong in ends))
        for seconds, _ in ends:
            figures.note(disaster.name, "ended after", seconds, "s")
        figures.note(disaster.name, "worst", max(seconds for seconds, _ in ends), "s")
    all_wrong = [each for ends in tries.values() for _, wrong in ends for each in wrong]
    report.finish(figures, "Interrupted", {"wrong": all_wrong})
    return int(bool(all_wrong))


if __name__ == "__main__":
    sys.exit(main())
