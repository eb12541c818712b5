"""How fast other trainers are at the same work: the same environment, network and settings of PPO, end to end.

    python -m bench.peers                                          # CAGE 2 on csle-cyborg, driven leanly
    python -m bench.peers --env bench.tools.envs:stock_cage2 --steps-per-update 2000
    python -m bench.peers --env CartPole-v1 --peers sb3 rllib --workers 2 16 --envs-per-worker 1 16

Each other trainer runs in a virtual environment of its own, which is made when it is first needed (some minutes, and
several GB for all of them). Each trainer is tried with several numbers of workers, and of environments in each where
its workers can have several, and then measured in interleaved repeats with what was fastest. Before every run the
ceiling is measured: bare processes, one per core, that play one environment each with a NumPy policy of the same size,
without communication. Every ratio is to the ceiling just before; medians are reported:

- steps/s: environment steps that were learned from, per second of a run that is under way (WARM_UP_S after its first
  update), counted from update to update.
- CPU efficiency: the ceiling's CPU time per step ÷ that of all of the trainer's processes.
- first update: seconds from the start of the program until a batch has been learned.
- memory: PSS (shared pages counted once) of all of the trainer's processes.

What differs: only aiotrain scales rewards, lowers its step size and weights steps that an older policy played; aiotrain
and TorchRL play on while they learn, the others wait. All learn on the CPU, with one thread: torch's default, one per
core, costs networks this small a multiple of the CPU time. The programs are in bench/trainers.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import platform
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import psutil
from gymnasium.spaces import Discrete
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aiotrain.collect.processes import preload
from aiotrain.play.factory import EnvFactory
from bench.startup import ROOT
from bench.throughput import Ceiling
from bench.tools.processes import family, memory
from bench.trainers import PPO, factory_for

WARM_UP_S = 2.0
UPDATES = 3  # that a measurement has at least
START_S = 120.0  # until the first update, and between any two
GRACE_S = 10.0
SET_UP_S = 1800.0
NICENESS = 10  # that of the ceiling and of aiotrain's workers: on a busy machine, all players wait alike


class TrainerError(Exception):
    """A trainer cannot be measured; the text tells why."""


@dataclasses.dataclass(frozen=True)
class Trainer:
    name: str
    requirement: str | None
    """What pip installs; None: it is in the environment that this runs in."""
    several: bool = False
    """Whether a worker can have several environments."""


TRAINERS = {
    "aiotrain": Trainer("aiotrain", None, several=True),
    "sb3": Trainer("stable-baselines3, SubprocVecEnv", "stable-baselines3==2.9.2"),
    "rllib": Trainer("RLlib", "ray[rllib]==2.60.0", several=True),
    "torchrl": Trainer("TorchRL, MultiAsyncCollector", "torchrl==0.14.1", several=True),
    "tianshou": Trainer("Tianshou, ShmemVectorEnv", "tianshou==2.0.1"),
}


# ------------------------------------------------------------------------- set-up


def set_up(key: str, folder: Path, say: Callable[[str], None]) -> str:
    """The Python that trainer ``key`` runs with, in a virtual environment that is made where there is none.

    Raises TrainerError.
    """
    requirement = TRAINERS[key].requirement
    if requirement is None:
        return sys.executable
    # torch goes first and stays as it is here, so that no library draws in a build of several GB for GPUs.
    torch = "torch==" + version("torch").partition("+")[0]
    environments = [f"{name}=={version(name)}" for name in ("csle-cyborg", "cloudpickle")] + ["gymnasium>=1.1"]
    steps = [[torch], [torch, requirement, *environments]]
    python, ready = folder / key / "bin" / "python", folder / key / "ready.json"
    made_of = json.dumps([platform.python_version(), *steps])
    if ready.exists() and ready.read_text() == made_of:
        return str(python)
    say(f"setting up {requirement} in {folder / key}")
    run_or_raise([sys.executable, "-m", "venv", "--clear", str(folder / key)])
    for packages in steps:
        run_or_raise([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
    ready.write_text(made_of)  # last: without it, the set-up was interrupted and begins anew
    return str(python)


def run_or_raise(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SET_UP_S, check=False)
    except subprocess.TimeoutExpired:
        raise TrainerError(f"set-up: not done after {SET_UP_S:g} s: {' '.join(command)}") from None
    if done.returncode:
        raise TrainerError(f"set-up: {' '.join(command)} failed: {last_words(done.stderr)}")


def last_words(text: str) -> str:
    """The last line of an error output that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next(
        (line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "it gave no reason"
    )


# -------------------------------------------------------------------- measurement


class Layout(NamedTuple):
    """How a trainer spreads its environments."""

    workers: int
    envs_per_worker: int

    def __str__(self) -> str:
        return f"{self.workers} x {self.envs_per_worker}"


@dataclasses.dataclass(frozen=True)
class Report:
    """What a trainer's program prints after an update."""

    steps: int
    """Learned from since its start."""
    time: float
    """In seconds, of the clock that time.perf_counter reads in every process."""

    @classmethod
    def parse(cls, line: bytes) -> Report | None:
        """The report in a line of output, or None where the library printed something else."""
        try:
            return cls(**json.loads(line))
        except (ValueError, TypeError):
            return None


class Program:
    """A trainer's program and all processes that it starts. Leaving the block ends every one of them."""

    def __init__(self, python: str, key: str, env: str, layout: Layout, steps_per_update: int) -> None:
        self.started = time.perf_counter()
        self._folder = tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True)
        self._errors = Path(self._folder.name, "errors")
        options = {
            "--env": env,
            "--workers": layout.workers,
            "--envs-per-worker": layout.envs_per_worker,
            "--steps-per-update": steps_per_update,
        }
        variables = {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "HOME": self._folder.name,  # RLlib leaves results there
            "TMPDIR": self._folder.name,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [python, "-m", f"bench.trainers.{key}", *(str(part) for option in options.items() for part in option)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=os.environ | variables,
                start_new_session=True,
                preexec_fn=None if key == "aiotrain" else lambda: os.nice(NICENESS),
            )
        self._seen: set[psutil.Process] = set()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._seen.update(family(self._process.pid))
        self._process.send_signal(signal.SIGINT)
        try:
            psutil.wait_procs(self._seen, GRACE_S)
        finally:  # a second Ctrl-C does not wait
            for process in self._seen:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # what it had started after the last look
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._folder.cleanup()

    def reports(self) -> Iterator[Report]:
        """The reports as they come. Raises TrainerError when the program ends, or for too long says nothing."""
        assert self._process.stdout is not None
        rest, deadline = b"", time.monotonic() + START_S
        while True:
            readable, _, _ = select.select([self._process.stdout], [], [], 0.1)
            chunk = os.read(self._process.stdout.fileno(), 65536) if readable else b""
            if not chunk:  # a pipe that is at its end is always readable; one that its workers hold open never ends
                if self._process.poll() is not None:
                    raise TrainerError(f"ended with exit code {self._process.returncode}: {self._last_words()}")
                if time.monotonic() > deadline:
                    raise TrainerError(f"no update within {START_S:g} s: {self._last_words()}")
            *lines, rest = (rest + chunk).split(b"\n")
            for report in filter(None, map(Report.parse, lines)):
                deadline = time.monotonic() + START_S
                yield report

    def _last_words(self) -> str:
        return last_words(self._errors.read_text(errors="replace"))

    def cpu_s(self) -> float:
        """CPU seconds of all processes so far."""
        processes = family(self._process.pid)
        self._seen.update(processes)
        return cpu_s(processes)

    def pss_mib(self) -> float:
        return sum(map(memory, family(self._process.pid))) / 2**20


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    """CPU seconds of ``processes`` and of the children that they have seen end."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def train(program: Program, seconds: float) -> dict[str, float]:
    """Figures of a run of about ``seconds`` once it is under way. Raises TrainerError."""
    reports = program.reports()
    first = next(reports)
    begin = next(report for report in reports if report.time - first.time >= WARM_UP_S)
    cpu = program.cpu_s()
    for updates, end in enumerate(reports, 1):
        if updates >= UPDATES and end.time - begin.time >= seconds:
            break
    steps = end.steps - begin.steps
    return {
        "steps_per_s": steps / (end.time - begin.time),
        "cpu_s_per_step": (program.cpu_s() - cpu) / steps,
        "first_update_s": first.time - program.started,
        "pss_mib": program.pss_mib(),
    }


class Bench:
    """Measures trainers, and the ceiling before each."""

    def __init__(self, factory: EnvFactory, env: str, steps_per_update: int, seconds: float) -> None:
        self._env, self._steps_per_update, self._seconds = env, steps_per_update, seconds
        preload(factory.modules)
        self._ceiling = Ceiling(factory, 1, PPO.hidden_sizes, len(os.sched_getaffinity(0)))
        self._ceiling.measure(WARM_UP_S)
        self._players = psutil.Process().children(recursive=True)

    def measure(self, key: str, python: str, layout: Layout) -> dict[str, float]:
        """All figures of a run. Raises TrainerError."""
        cpu = cpu_s(self._players)
        top = self._ceiling.measure(self._seconds / 2)
        top_cpu_s_per_step = (cpu_s(self._players) - cpu) / (top * self._seconds / 2)
        with Program(python, key, self._env, layout, self._steps_per_update) as program:
            row = train(program, self._seconds)
        return row | {
            **layout._asdict(),
            "ceiling_steps_per_s": top,
            "ratio": row["steps_per_s"] / top,
            "cpu_efficiency": top_cpu_s_per_step / row["cpu_s_per_step"],
        }

    def close(self) -> None:
        self._ceiling.close()


# -------------------------------------------------------------------------- main


Rows = dict[str, list[dict[str, float]]]


def compare(
    bench: Bench, pythons: dict[str, str], layouts: Sequence[Layout], repeats: int, say: Callable[[str], None]
) -> tuple[Rows, Rows, dict[str, str]]:
    """Trials of each trainer with the ``layouts`` that it can have, repeats with its best one, why some have none."""
    trials: Rows = {key: [] for key in pythons}
    repeated: Rows = {key: [] for key in pythons}
    faults: dict[str, str] = {}

    def attempt(key: str, layout: Layout, rows: Rows) -> None:
        title = f"{TRAINERS[key].name}, {layout}"
        try:
            row = bench.measure(key, pythons[key], layout)
        except TrainerError as error:
            faults[key] = str(error)
            say(f"{title}: {escape(str(error))}")
        else:
            rows[key].append(row)
            say(
                f"{title}: {row['ratio']:.3f} of {row['ceiling_steps_per_s']:,.0f} steps/s, "
                f"CPU efficiency {row['cpu_efficiency']:.2f}"
            )

    for layout in layouts:
        for key in pythons:
            if layout.envs_per_worker == 1 or TRAINERS[key].several:
                attempt(key, layout, trials)
    best = {key: max(rows, key=lambda row: row["ratio"]) for key, rows in trials.items() if rows}
    for _ in range(repeats):
        for key, row in best.items():
            attempt(key, Layout(int(row["workers"]), int(row["envs_per_worker"])), repeated)
    return trials, repeated, {key: fault for key, fault in faults.items() if not repeated[key]}


def medians(repeated: Rows) -> dict[str, dict[str, float]]:
    """The median of each figure of the trainers that have any, by how fast they are."""
    found = {
        key: {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        for key, rows in repeated.items()
        if rows
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]["ratio"]))


def lead(median: dict[str, dict[str, float]]) -> tuple[float, str] | None:
    """How many times as fast aiotrain is as the best other trainer, and which that is; None without either."""
    others = [key for key in median if key != "aiotrain"]
    if "aiotrain" not in median or not others:
        return None
    best = max(others, key=lambda key: median[key]["ratio"])
    return median["aiotrain"]["ratio"] / median[best]["ratio"], best


def table_of(title: str, median: dict[str, dict[str, float]], faults: dict[str, str]) -> Table:
    table = Table(title=title)
    table.add_column("", overflow="fold")
    for column in (
        "workers x environments",
        "steps/s",
        "÷ ceiling",
        "CPU efficiency",
        "first update, s",
        "memory, MiB",
    ):
        table.add_column(column, justify="right")
    for key, row in median.items():
        table.add_row(
            TRAINERS[key].name,
            f"{row['workers']:.0f} x {row['envs_per_worker']:.0f}",
            f"{row['steps_per_s']:,.0f}",
            f"{row['ratio']:.3f}",
            f"{row['cpu_efficiency']:.2f}",
            f"{row['first_update_s']:.1f}",
            f"{row['pss_mib']:,.0f}",
        )
    for key, fault in faults.items():
        table.add_row(f"{TRAINERS[key].name}: {escape(fault)}", *["-"] * 6)
    return table


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--env", default="aiotrain/Cage2-v0", help="a Gymnasium id, or module:factory, of discrete actions"
    )
    parser.add_argument("--peers", nargs="+", choices=[*TRAINERS][1:], default=[*TRAINERS][1:])
    parser.add_argument("--workers", type=int, nargs="+", default=[cores, 4 * cores], help="numbers to try")
    parser.add_argument("--envs-per-worker", type=int, nargs="+", default=[1, 8, 32], help="numbers to try with each")
    parser.add_argument("--steps-per-update", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run, half as many of each ceiling")
    parser.add_argument(
        "--venvs", type=Path, default=Path("~/.cache/aiotrain-peers"), metavar="DIR", help="of the virtual environments"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    factory = factory_for(arguments.env)
    if not isinstance((actions := factory().action_space), Discrete):
        parser.error(f"--env {arguments.env} takes actions of {actions}, for which the programs have no policies")

    console = Console(width=140, highlight=False)
    pythons, unready = {}, {}
    for key in ("aiotrain", *arguments.peers):
        try:
            pythons[key] = set_up(key, arguments.venvs.expanduser().absolute(), console.print)
        except TrainerError as error:
            unready[key] = str(error)
    layouts = [Layout(*both) for both in itertools.product(arguments.workers, arguments.envs_per_worker)]
    bench = Bench(factory, arguments.env, arguments.steps_per_update, arguments.seconds)
    trials, repeated, faults = compare(bench, pythons, layouts, arguments.repeats, console.print)
    bench.close()  # where an exception passes it by, the players, which are daemons, end with this process
    median, faults = medians(repeated), unready | faults
    title = f"{arguments.env}, {arguments.steps_per_update:,} steps an update, medians of {arguments.repeats}"
    console.print(table_of(title, median, faults))
    if (ahead := lead(median)) is not None:
        console.print(f"aiotrain ÷ {TRAINERS[ahead[1]].name}: {ahead[0]:.2f}")
    if arguments.json:
        setting = {"env": arguments.env, "steps_per_update": arguments.steps_per_update, "ppo": dataclasses.asdict(PPO)}
        setting |= {"python": platform.python_version(), "machine": platform.machine(), "cores": cores}
        requirements = {key: TRAINERS[key].requirement for key in pythons}
        results = {"trials": trials, "repeats": repeated, "faults": faults}
        arguments.json.write_text(json.dumps(setting | {"trainers": requirements} | results, indent=1))


if __name__ == "__main__":
    main()
