"""What disasters cost a training: every fault, at every moment at which it can come.

    python -m bench.disasters 2>/dev/null            # all of them; workers that crash say so there
    python -m bench.disasters --at step idle

A row is a run of 24 episodes on CartPole, with two workers. Reported are whether it came to its end, how often the
episode that was struck was tried, the account (attempts lost, episodes given up), the worker processes that were
replaced, and the seconds of the whole run. The exit code is 1 if one of them cost anything else than it must, which
tests/collect/test_disasters.py checks too, by this table.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import psutil

from aiotrain import Config, EnvError, InvalidStepError, PPOConfig, Trainer
from aiotrain.collect.protocol import WorkerState
from aiotrain.errors import AiotrainError
from aiotrain.play.env_factory import EnvFactory
from aiotrain.testing import Fault, cause, faulty
from aiotrain.training.status import Status
from aiotrain.transport.weights import Weights
from bench.tools.figures import Figures
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.script import Script

TAKES = "2 minutes"
SMALLEST = "--at step --faults raise kill"

ENV = "CartPole-v1"
EPISODES = 24
VICTIM = 4
"""The episode that is struck, where one is."""
WITHIN_S = 40.0
HANG_S = 1.0
"""Until a worker is taken for hung: longer than a healthy one may have to wait for a busy core."""
START_S = 2.0
"""Until a making that hangs is given up."""

RAISES = ("raise", "sys.exit", "memory")
ENDS = ("os._exit", "segfault", "kill")
HANGS = ("hang", "ignore sigterm")
RETURNED = ("unpicklable", "nan", "shape")
IN_A_START = ("first making", "first reset", "later making")
STRIKE_THE_VICTIM = ("reset", "step", "every try", "writing")
MOMENTS = {
    "first making": "as the first environment is made, before there is anything to train",
    "first reset": "in its first reset, and in every other",
    "later making": "as a worker makes another environment",
    "reset": "in the reset of an episode, once",
    "step": "in a step of it, once",
    "every try": "in a step of it, each time that it is tried",
    "writing": "as the worker writes the episode into its slot, once",
    "weights": "as a worker reads weights, once",
    "idle": "in all workers while they have nothing to do",
    "closing": "as environments are closed",
}
"""When disasters come."""


class Disaster(NamedTuple):
    """What happens, and when."""

    fault: Fault
    at: str

    def __str__(self) -> str:
        return f"{self.fault}, {self.at}"


class Cost(NamedTuple):
    """What a disaster comes to."""

    ends: type[AiotrainError] | None = None
    """What the run ends with, if it does not survive."""
    lost: int = 0
    """Attempts at episodes."""
    given_up: int = 0
    """Episodes."""
    replaced: int = 0
    """Worker processes that had begun to play."""


class End(NamedTuple):
    """What came of a run."""

    error: AiotrainError | None
    status: Status
    seconds: float

    @property
    def cost(self) -> Cost:
        """What it cost."""
        restarts = sum(worker.restarts for worker in self.status.workers)
        ends = None if self.error is None else type(self.error)
        return Cost(ends, self.status.episodes_lost, self.status.episodes_given_up, restarts)


def least_cost(fault: Fault, at: str) -> Cost | None:
    """What a fault must cost at a moment, and no more; None if it cannot come then."""
    of_the_process = int(fault not in RAISES)
    if fault in RETURNED and at not in ("first reset", "reset", "step"):
        return None
    match at:
        case _ if fault == "unpicklable":
            return Cost()
        case "first reset" if fault in RETURNED:
            return Cost(InvalidStepError)
        case _ if fault in RETURNED:
            return Cost(InvalidStepError, lost=1)
        case "first making" | "first reset":
            return Cost(EnvError)
        case "later making" | "closing":
            return Cost()
        case "every try":
            return Cost(lost=3, given_up=1, replaced=3 * of_the_process)
        case "weights":
            return Cost(replaced=1)
        case "idle":
            return Cost(replaced=2)
    return Cost(lost=1, replaced=of_the_process)


DISASTERS = [Disaster(fault, at) for at in MOMENTS for fault in get_args(Fault) if least_cost(fault, at) is not None]


def environment(disaster: Disaster, folder: Path) -> Callable[[], Any]:
    """A factory of environments that the disaster strikes; what is to happen once is remembered in ``folder``."""
    fault, at = disaster
    marks = str(folder)
    match at:
        case "first making":
            return faulty(ENV, fault, at="make")
        case "first reset":
            return faulty(ENV, fault, at="reset")
        case "reset" | "step":
            return faulty(ENV, fault, at=at, episodes=[VICTIM], marks=marks)
        case "every try":
            return faulty(ENV, fault, at="step", episodes=[VICTIM])
        case "writing":
            return faulty(ENV, fault, at="write", episodes=[VICTIM], marks=marks)
        case "closing":
            return faulty(ENV, fault, at="close")
    make = EnvFactory.of(ENV)

    def is_first(name: str) -> bool:
        try:
            Path(marks, name).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def make_with_fault() -> Any:
        if not is_first("made") and is_first("struck"):
            cause(fault)
        return make()

    def make_where_weights_strike() -> Any:
        pull = Weights.pull

        def struck(weights: Weights, into: Any, held: int, timeout_s: float = 10.0) -> int:
            version = pull(weights, into, held, timeout_s)
            if version == 1 and is_first("struck"):
                cause(fault)
            return version

        Weights.pull = struck  # type: ignore[method-assign]
        return make()

    def make_where_a_signal_strikes() -> Any:
        signal.signal(signal.SIGUSR1, lambda *_: cause(fault))
        return make()

    return {
        "later making": make_with_fault,
        "weights": make_where_weights_strike,
        "idle": make_where_a_signal_strikes,
    }[at]


async def strike_idle(trainer: Trainer, which: signal.Signals, *, ends: bool = True) -> None:
    """Send a signal to all workers while they wait, and see whether they end by it.

    At lag 0, once the first batch is played, they wait until it is learned: when somebody asks for it.
    """
    while not (
        (status := trainer.status()).episodes_finished >= trainer.config.episodes_per_update
        and {worker.state for worker in status.workers} == {WorkerState.WAITING}
    ):
        await asyncio.sleep(0.005)
    workers = [psutil.Process(child.pid) for child in multiprocessing.active_children()]
    while any(worker.status() != psutil.STATUS_SLEEPING for worker in workers):  # it may still be sending its answer
        await asyncio.sleep(0.005)
    for worker in workers:
        worker.send_signal(which)
    if ends:
        await asyncio.to_thread(psutil.wait_procs, workers, WITHIN_S)


async def endure(disaster: Disaster, folder: Path) -> End:
    """A whole run with the disaster. Raises TimeoutError if it does not end."""
    fault, at = disaster
    config = Config(
        env=environment(disaster, folder),
        workers=1 if at == "later making" else 2,  # the one that makes it is needed
        envs_per_worker=2 if at == "later making" else 1,
        total_episodes=EPISODES,
        episodes_per_update=6,
        max_policy_lag=0 if at in ("weights", "idle") else 1,
        episode_timeout_s=HANG_S if fault in HANGS else Config.episode_timeout_s,
        start_timeout_s=START_S if fault in HANGS and at in IN_A_START else Config.start_timeout_s,
        ppo=PPOConfig(hidden_sizes=(8,)),
        device="cpu",
    )
    trainer = Trainer(config)
    error: AiotrainError | None = None
    began = time.monotonic()
    async with asyncio.timeout(WITHIN_S):
        try:
            async with trainer:
                if at == "idle":
                    await strike_idle(trainer, signal.SIGUSR1, ends=fault not in HANGS)
                async for _ in trainer:
                    pass
        except AiotrainError as ended_by:
            error = ended_by
    return End(error, trainer.status(), time.monotonic() - began)


def note(disaster: Disaster, end: End, figures: Figures) -> bool:
    """Note what a disaster came to; return whether that is what it must."""
    cost, subject = end.cost, f"{disaster.at}: {disaster.fault}"
    figures.note(subject, "survived", end.error is None)
    if disaster.at in STRIKE_THE_VICTIM:
        figures.note(subject, "tries", cost.lost + (end.error is None and not cost.given_up))
    figures.note(subject, "attempts lost", cost.lost)
    figures.note(subject, "episodes lost", cost.given_up)
    figures.note(subject, "replaced", cost.replaced)
    figures.note(subject, "duration", end.seconds, "s")
    must = least_cost(*disaster)
    remarks = [] if end.error is None else [f"ends: {type(end.error).__name__}"]
    remarks += [] if cost == must else [f"costs {cost}, not {must}"]
    remarks += [] if end.status.adds_up else ["the account does not add up"]
    if remarks:
        figures.remarks[subject] = "; ".join(remarks)
    return cost == must and end.status.adds_up


def main() -> int:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--at", choices=MOMENTS, nargs="+", default=list(MOMENTS), help="only at these moments")
    parser.add_argument("--faults", choices=get_args(Fault), nargs="+", default=get_args(Fault), help="only these")
    arguments = script.parse(parser)
    report = Report(script, arguments)
    chosen = [each for each in DISASTERS if each.at in arguments.at and each.fault in arguments.faults]
    figures = Figures()
    wrong = 0
    for number, disaster in enumerate(chosen, 1):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            end = asyncio.run(endure(disaster, Path(folder)))
        wrong += not note(disaster, end, figures)
        say(f"{number} of {len(chosen)}, {disaster}: {end.seconds:.1f} s")
    report.finish(figures, f"{EPISODES} episodes of {ENV}")
    print(f"{len(chosen)} disasters, {wrong} that cost otherwise than they must")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
