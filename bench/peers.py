"""Other trainers at the same work, end to end: the same environment, network and settings of PPO.

    python -m bench.peers                                          # CAGE 2 on csle-cyborg, driven leanly
    python -m bench.peers --env bench.tools.envs:stock_cage2 --steps-per-update 2000
    python -m bench.peers --env CartPole-v1 --peers sb3 rllib --workers 2 16 --envs-per-worker 1 16

Each other trainer runs in a virtual environment of its own, which is made when it is first needed (some minutes, and
several GB for all of them). Each trainer is tried with several numbers of workers, and of environments in each where
its workers can have several, and then measured in interleaved repeats with what was fastest. Before every run the
ceiling is measured: bare processes, one per core, that play one environment each with a NumPy policy of the same size,
without communication. Every ratio is to the ceiling just before:

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

import contextlib
import dataclasses
import itertools
import json
import os
import platform
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import psutil
from gymnasium.spaces import Discrete

from bench.tools.ceiling import Ceiling
from bench.tools.figures import Figures
from bench.tools.processes import cpu_s, family, memory
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.runs import factory_of
from bench.tools.script import ROOT, Script
from bench.trainers import PPO

TAKES = "half an hour, and at first as long again to set up"
SMALLEST = "--peers --workers 1 --envs-per-worker 1 --repeats 1 --seconds 0.3 --env CartPole-v1 --steps-per-update 200"

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


def set_up(key: str, folder: Path) -> str:
    """Return the Python that trainer ``key`` runs with, in a virtual environment that is made where there is none.

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
class Learned:
    """What a trainer's program prints after an update."""

    steps: int
    """Learned from since its start."""
    time: float
    """In seconds, of the clock that time.perf_counter reads in every process."""

    @classmethod
    def parse(cls, line: bytes) -> Learned | None:
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

    def reports(self) -> Iterator[Learned]:
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
            for report in filter(None, map(Learned.parse, lines)):
                deadline = time.monotonic() + START_S
                yield report

    def _last_words(self) -> str:
        return last_words(self._errors.read_text(errors="replace"))

    def cpu_s(self) -> float:
        """Return the CPU seconds of all processes so far."""
        processes = family(self._process.pid)
        self._seen.update(processes)
        return cpu_s(processes)

    def pss_mib(self) -> float:
        return sum(map(memory, family(self._process.pid))) / 2**20


def train(program: Program, seconds: float) -> dict[str, float]:
    """Return the figures of a run of about ``seconds`` once it is under way. Raises TrainerError."""
    reports = program.reports()
    first = next(reports)
    begin = next(report for report in reports if report.time - first.time >= min(WARM_UP_S, seconds))
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


def measure(
    key: str, python: str, layout: Layout, env: str, steps_per_update: int, seconds: float, ceiling: Ceiling
) -> dict[str, float]:
    """Return all figures of a run, and of the ceiling just before. Raises TrainerError."""
    players = [psutil.Process(pid) for pid in ceiling.pids]
    cpu = cpu_s(players)
    top = ceiling.measure(seconds / 2)
    top_cpu_s_per_step = (cpu_s(players) - cpu) / (top * seconds / 2)
    with Program(python, key, env, layout, steps_per_update) as program:
        row = train(program, seconds)
    return row | {
        "ceiling_steps_per_s": top,
        "ratio": row["steps_per_s"] / top,
        "cpu_efficiency": top_cpu_s_per_step / row["cpu_s_per_step"],
    }


# -------------------------------------------------------------------------- main


class Comparison:
    """Trials of trainers with several layouts, and repeats of each with its best one."""

    def __init__(self, env: str, steps_per_update: int, seconds: float, ceiling: Ceiling) -> None:
        self._work = (env, steps_per_update, seconds, ceiling)
        self.figures = Figures()

    def _attempt(self, key: str, python: str, layout: Layout) -> dict[str, float]:
        """Measure once; {} if that fails, with the reason among the remarks."""
        subject = TRAINERS[key].name
        try:
            row = measure(key, python, layout, *self._work)
        except TrainerError as error:
            self.figures.remarks[subject] = str(error)
            say(f"{subject}, {layout}: {error}")
            return {}
        told = f"{row['ratio']:.3f} of {row['ceiling_steps_per_s']:,.0f} steps/s"
        say(f"{subject}, {layout}: {told}, CPU efficiency {row['cpu_efficiency']:.2f}")
        return row

    def _best(self, key: str, python: str, layouts: Sequence[Layout]) -> Layout | None:
        """Try the layouts that a trainer can have, and return the fastest; a single one needs no trial."""
        layouts = [layout for layout in layouts if layout.envs_per_worker == 1 or TRAINERS[key].several]
        if len(layouts) == 1:
            return layouts[0]
        trials = {layout: row["ratio"] for layout in layouts if (row := self._attempt(key, python, layout))}
        return max(trials, key=trials.__getitem__) if trials else None

    def run(self, pythons: dict[str, str], layouts: Sequence[Layout], repeats: int) -> None:
        """Try each trainer with the layouts that it can have, and repeat its best one, in turns."""
        best = {key: self._best(key, python, layouts) for key, python in pythons.items()}
        for _ in range(repeats):
            for key, layout in best.items():
                if layout is not None and (row := self._attempt(key, pythons[key], layout)):
                    self._note(TRAINERS[key].name, layout, row)

    def _note(self, subject: str, layout: Layout, row: dict[str, float]) -> None:
        self.figures.remarks[subject] = f"{layout} environments"
        ceiling = ("ceiling", row["ceiling_steps_per_s"])
        self.figures.note(subject, "speed", row["steps_per_s"], "steps/s", ceiling=ceiling)
        self.figures.note(subject, "CPU efficiency", row["cpu_efficiency"])
        self.figures.note(subject, "first update", row["first_update_s"], "s")
        self.figures.note(subject, "memory", row["pss_mib"], "MiB")


def lead(figures: Figures) -> tuple[float, str] | None:
    """Return how many times as fast aiotrain is as the best other trainer, and which that is; None without either."""
    rates = {figure.subject: figure.ratio for figure in figures if figure.name == "speed"}
    known = {name: rate for name, rate in rates.items() if isinstance(rate, float)}
    ours = known.pop("aiotrain", None)
    if ours is None or not known:
        return None
    best = max(known, key=known.__getitem__)
    return ours / known[best], best


def main() -> int:
    cores = len(os.sched_getaffinity(0))
    others = [key for key in TRAINERS if key != "aiotrain"]
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument(
        "--env", default="aiotrain/Cage2-v0", help="a Gymnasium id, or module:factory, of discrete actions"
    )
    parser.add_argument("--peers", nargs="*", choices=others, default=others, help="none: aiotrain alone")
    parser.add_argument("--workers", type=int, nargs="+", default=[cores, 4 * cores], help="numbers to try")
    parser.add_argument("--envs-per-worker", type=int, nargs="+", default=[1, 8, 32], help="numbers to try with each")
    parser.add_argument("--steps-per-update", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run, half as many of each ceiling")
    parser.add_argument(
        "--venvs", type=Path, default=Path("~/.cache/aiotrain-peers"), metavar="DIR", help="of the virtual environments"
    )
    arguments = script.parse(parser)
    report = Report(script, arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    factory = factory_of(arguments.env)
    if not isinstance((actions := factory().action_space), Discrete):
        parser.error(f"--env {arguments.env} takes actions of {actions}, for which the programs have no policies")

    pythons, unready = {}, {}
    for key in ("aiotrain", *arguments.peers):
        try:
            pythons[key] = set_up(key, arguments.venvs.expanduser().absolute())
        except TrainerError as error:
            unready[TRAINERS[key].name] = str(error)
    layouts = [Layout(*both) for both in itertools.product(arguments.workers, arguments.envs_per_worker)]
    with Ceiling(factory, 1, PPO.hidden_sizes) as ceiling:
        comparison = Comparison(arguments.env, arguments.steps_per_update, arguments.seconds, ceiling)
        comparison.run(pythons, layouts, arguments.repeats)
    figures = comparison.figures
    figures.remarks |= unready
    report.finish(
        figures,
        f"{arguments.env}, {arguments.steps_per_update:,} steps an update",
        {"ppo": dataclasses.asdict(PPO), "trainers": {key: TRAINERS[key].requirement for key in pythons}},
    )
    if (ahead := lead(figures)) is not None:
        print(f"aiotrain ÷ {ahead[1]}: {ahead[0]:.2f}")
    return int(not figures.of("aiotrain", "speed"))


if __name__ == "__main__":
    sys.exit(main())
