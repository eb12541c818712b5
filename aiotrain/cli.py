"""The command line: flags to a configuration, a run in an event loop, signals and exit codes; pictures and evaluations.

Exit codes: 0 the budget was used up; 1 the run failed; 2 it could not start as configured; 130 and 143 it was ended by
Ctrl-C and by SIGTERM. Torch and the trainer are imported once the flags are understood, so that --help is quick.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import bdb
import contextlib
import dataclasses
import json
import os
import re
import resource
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import tyro
import uvloop
from rich.console import Console, ConsoleDimensions

from aiotrain.cage2 import CAGE2_ID
from aiotrain.checkpoint import Checkpoint, load_checkpoint
from aiotrain.config import Config
from aiotrain.console import printable, printable_lines
from aiotrain.errors import AiotrainError, CheckpointError, ConfigError, EnvError, SharedMemoryError
from aiotrain.shm import human_bytes

if TYPE_CHECKING:
    from aiotrain.trainer import Trainer

__all__ = ["Arguments", "main", "run"]

_FILES_PER_WORKER = 12  # pipes, locks and sentinel of an executor with one process, rounded up
_FILES_BESIDE = 200
_LAST_FRAME_S = 5.0
_NOT_HOW = ("run", "protocol", "json")  # of EvaluateArguments: the rest goes to the function that evaluates
_LOG_WIDTH = 120  # columns of tables that go to no terminal


@dataclasses.dataclass(frozen=True)
class Arguments(Config):
    """Train an agent: worker processes play, PPO learns, a live console shows it.

    Without flags: a defender for CAGE Challenge 2, on 100 workers.

    aiotrain plot RUN draws pictures of a run (aiotrain plot --help).

    aiotrain evaluate RUN plays what it learned (aiotrain evaluate --help).

    aiotrain --resume RUN goes on with a run, with its settings.
    """

    # The fields of Config that the command line sees otherwise than Python does.
    env: str = CAGE2_ID
    """Environment: a Gymnasium id, or module:factory."""
    workers: Annotated[int, tyro.conf.arg(aliases=("--n-workers",))] = Config.workers
    """Worker processes."""
    plain: bool = False
    """One line per update instead of the live console. Without a terminal, and with the sequential collector, which
    leaves the terminal to breakpoints, this is so anyway."""
    resume: Path | None = None
    """Go on with the run in this folder, from its newest checkpoint (or from the one in this file)."""
    override: bool = False
    """Resume with settings changed that decide what is learned, which is refused otherwise."""

    def __post_init__(self) -> None:
        """Leave the checks to `config`: here, tyro would take their error for one of its own."""

    def config(self) -> Config:
        """The settings of the run, with a folder for it. Raises ConfigError."""
        return Config(**_settings(self) | {"run_dir": _new_run_dir(self.env) if self.run_dir is None else self.run_dir})


@dataclasses.dataclass(frozen=True)
class PlotArguments:
    """Draw a run's return, and a search's orders, into PNG files in its folder, while it goes on or afterwards."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""


@dataclasses.dataclass(frozen=True)
class EvaluateArguments:
    """Play episodes with the policy of a finished run: its mean return, and how sure that is.

    With --protocol cage2 as CAGE Challenge 2 was judged: 30, 50 and 100 steps against each of three red agents, by one
    agent that is not told which, beside the leaderboard's scores.
    """

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    """Folder of the run. Left out with --agent."""
    protocol: Literal["cage2"] | None = None
    """How to evaluate. Default: episodes of the environment that the run trained on."""
    agent: Literal["sleep", "random", "greedy-heuristic"] | None = None
    """Evaluate, with --protocol, an agent that learned nothing; greedy-heuristic is told what red holds."""
    episodes: int | None = None
    """Episodes to play. Default: 100, and with --protocol the official 1,000 in each of its nine cells."""
    greedy: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take the most probable action, as the leaderboard's winner does. Default: draw it, as training does, so that
    its returns can be compared."""
    workflow: str | None = None
    """The order that the policy is shown. Default: the run's; of a search, the best in workflows.csv."""
    seed: int = 0
    """Seed of all randomness; none repeats episodes of the training."""
    simulator: Literal["compiled", "cyborg"] | None = None
    """What plays CAGE 2. Default: with --protocol the compiled engine, else what the run trained on."""
    rules: Literal["main", "leaderboard"] = "main"
    """CAGE 2's rules: today's, or the older ones of the leaderboard, which only the compiled engine has."""
    env: str | None = None
    """Environment, where the run's cannot be found again: a Gymnasium id, or module:factory."""
    max_episode_steps: int | None = None
    """Truncate episodes after so many steps, where some never end. Default: as in training."""
    json: Path | None = None
    """File for the numbers. Default: evaluation.json in the run's folder."""


def run() -> NoReturn:
    """Be the program: ``main``, and an end with its exit code.

    After what is registered to be done at the end, Python itself would take a second to take torch apart.
    """
    code = main()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # whoever reads it has gone
            stream.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, plot or evaluate as ``arguments`` say (default: those of the process). Returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    errors = Console(stderr=True, highlight=False, markup=False, emoji=False)
    errors.soft_wrap = not errors.is_terminal  # a terminal breaks lines between words, a log keeps them whole
    try:
        if arguments[:1] == ["plot"]:
            return _plot(tyro.cli(PlotArguments, prog="aiotrain plot", args=arguments[1:]).run)
        if (here := os.getcwd()) not in sys.path:
            sys.path.insert(0, here)  # as python -m does: a module:factory may lie in the folder you start in
        if arguments[:1] == ["evaluate"]:
            return _evaluate(tyro.cli(EvaluateArguments, prog="aiotrain evaluate", args=arguments[1:]))
        checkpoint = _checkpoint(arguments)
        default = Arguments(**({} if checkpoint is None else _settings(checkpoint.config)))
        chosen = tyro.cli(
            Arguments, prog="aiotrain", args=arguments, default=default, config=(tyro.conf.OmitArgPrefixes,)
        )
        config = chosen.config()
        _allow_open_files(_processes(config)[0])
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_train(config, chosen.plain, checkpoint, chosen.override))
    except (CheckpointError, ConfigError, EnvError, SharedMemoryError) as error:
        errors.print(f"aiotrain: {printable_lines(str(error))}", style="red")
        return 2
    except AiotrainError as error:
        errors.print(f"aiotrain: {printable_lines(str(error))}", style="red")
        return 1
    # Before the run has taken over the signals, or after it, and nobody else has done so.
    except (KeyboardInterrupt, bdb.BdbQuit):
        return 128 + signal.SIGINT


def _settings(config: Config) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(Config)}


def _checkpoint(arguments: Sequence[str]) -> Checkpoint | None:
    """What is to be resumed, if anything is: its settings are the defaults of all other flags."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--resume")
    try:
        run = parser.parse_known_args(arguments)[0].resume
    except argparse.ArgumentError:  # which tyro tells better
        return None
    return None if run is None else load_checkpoint(run)


def _plot(run: Path) -> int:
    """Draw the pictures of a run, and say where they are."""
    from aiotrain.plot import plot_run

    for path in plot_run(run):
        print(path)
    return 0


def _evaluate(chosen: EvaluateArguments) -> int:
    """Evaluate, show what came of it, and write it down."""
    run = chosen.run
    if chosen.protocol is None and (run is None or chosen.agent is not None):
        raise ConfigError("evaluate: name the folder of a run, or both --protocol cage2 and an --agent")
    if chosen.protocol is not None and (chosen.env is not None or chosen.max_episode_steps is not None):
        raise ConfigError("evaluate: the protocol has an env and max-episode-steps of its own; leave these out, or it")
    from rich.progress import Progress

    from aiotrain.checkpoint import write_whole
    from aiotrain.console.scores import challenge_tables, evaluation_table
    from aiotrain.evaluation import evaluate, evaluate_cage2

    output = _Output(highlight=False)
    if not output.is_terminal:
        output.width = _LOG_WIDTH
    how = {name: value for name, value in vars(chosen).items() if name not in _NOT_HOW and value is not None}
    signals = _SignalsInterrupt()
    try:
        with signals, Progress(console=output, transient=True, disable=not output.is_terminal) as progress:
            bar = progress.add_task("playing", total=None)
            how["progress"] = lambda count, of: progress.update(bar, completed=count, total=of)
            if chosen.protocol is not None:
                challenge = evaluate_cage2(run, **how)
                table, numbers = challenge_tables(challenge), {**challenge.settings, **challenge.summary()}
            else:
                assert run is not None
                evaluation = evaluate(run, **how)
                table, numbers = evaluation_table(evaluation), {**evaluation.settings, **evaluation.summary()}
    except KeyboardInterrupt:
        return 128 + signals.last
    output.print(table)
    path = chosen.json or (None if run is None else run / "evaluation.json")
    if path is not None:
        try:
            write_whole(path, json.dumps(numbers, indent=2).encode() + b"\n")
        except OSError as error:
            raise ConfigError(f"json: {path} cannot be written: {error.strerror}") from error
        output.print(f"written to {path}", markup=False, soft_wrap=True)
    return 0


def _new_run_dir(env: str) -> str:
    """A folder under runs/ that names the environment and the time."""
    short = re.sub(r"[^A-Za-z0-9.-]+", "-", env.split("/")[-1]).strip("-")
    return str(Path("runs") / f"{short}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")


def _allow_open_files(workers: int) -> None:
    """Raise the limit of open files as far as so many processes need. Raises ConfigError if that is too far."""
    needed = workers * _FILES_PER_WORKER + _FILES_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(
            f"workers: {workers} workers need some {needed} open files, but the limit is {hard}. "
            f"Raise it (ulimit -n {needed}) or use fewer workers with more --envs-per-worker."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


async def _train(config: Config, plain: bool, checkpoint: Checkpoint | None, override: bool) -> int:
    """Train and show it. The first signal ends the run in order, a second one at once."""
    from aiotrain.console import DivertedOutput, PlainLog, can_draw, show, summary
    from aiotrain.trainer import Trainer

    trainer = Trainer(config, checkpoint=checkpoint, override=override)
    output = _Output(highlight=False, markup=False, emoji=False)
    log = PlainLog(output)
    # A breakpoint in an environment of this process needs the terminal for itself.
    drawing = can_draw(output) and not plain and config.collector != "sequential"
    diverted: DivertedOutput | None = None
    assert config.run_dir is not None, "Arguments.config names a folder for every run"
    worker_log = Path(config.run_dir, "workers.log")
    if drawing:
        with contextlib.suppress(OSError):  # the trainer says what is wrong with the folder
            diverted = DivertedOutput(worker_log)
            output.terminal = diverted.terminal
    interrupted = _Interruption(trainer, output)
    if not drawing and config.env == CAGE2_ID and config.simulator == "compiled":
        output.print("loading the compiled engine; the first time on a machine, it is compiled, which takes longer")
    showing = asyncio.create_task(show(trainer.status, output)) if drawing else None
    started = False
    failed: AiotrainError | None = None
    try:
        async with trainer:
            started = True
            output.print(_start_lines(trainer), soft_wrap=True)
            if not drawing:
                log.write(trainer.status())  # what there is to warn of, before the first update
            async for _ in trainer:
                if not drawing:
                    log.write(trainer.status())
                if diverted is not None:
                    diverted.trim()
    except asyncio.CancelledError:
        if interrupted.by is None:
            raise
    except AiotrainError as error:
        if not started:
            raise
        failed = error
    finally:
        interrupted.forget()
        if showing is not None:
            await asyncio.wait([showing], timeout=_LAST_FRAME_S)
            showing.cancel()
        elif started:
            log.write(trainer.status())
        if diverted is not None:
            output.terminal = 1
            if diverted.close():
                output.print(f"what workers printed is in {printable(str(worker_log))}", soft_wrap=True)
    output.print(summary(trainer.status()), end="", soft_wrap=True)  # with the error, if there was one
    if trainer.status().phase != "finished":
        output.print(_way_on(str(config.run_dir)), end="", markup=False, soft_wrap=True)
    return 128 + interrupted.by if interrupted.by is not None else 1 if failed else 0


def _way_on(run: str) -> str:
    """How to go on with a run that has not come to its end, if there is a way."""
    return f"resume      by --resume {shlex.quote(run)}\n" if Path(run, "checkpoints").is_dir() else ""


def _start_lines(trainer: Trainer) -> str:
    """What was set up, for the log: the environment, the processes, and the memory that is reserved."""
    config, spec, status = trainer.config, trainer.spec, trainer.status()
    outputs = f"{spec.outputs} {'actions' if spec.action_kind == 'discrete' else 'action dimensions'}"
    processes, envs = _processes(config)
    each = _count(envs, "environment")
    players = f"{_count(processes, 'process')} with {each} each" if processes else f"{each} in this process"
    reserved, slots = human_bytes(status.ring_bytes), _count(status.slots, "slot")
    simulators = {"cyborg": "csle-cyborg itself", "compiled": "the compiled engine"}
    return "\n".join(
        (
            f"environment {printable(status.environment)}: {spec.inputs} inputs ({spec.observation_dtype}), {outputs}",
            *([f"simulator   {simulators[config.simulator]}"] if config.env == CAGE2_ID else []),
            f"collector   {config.collector}: {players}",
            *([f"memory      {reserved} of shared memory reserved, for {slots}"] if status.slots else []),
            f"learner     on {status.device}; files in {printable(str(config.run_dir))}",
            *([f"resumed     after {_count(status.updates, 'update')}"] if status.updates else []),
        )
    )


def _processes(config: Config) -> tuple[int, int]:
    """How many processes play, and with how many environments each."""
    match config.collector:
        case "sequential":
            return 0, config.envs_per_worker
        case "synchronous":
            return config.workers * config.envs_per_worker, 1
    return config.workers, config.envs_per_worker


def _count(number: int, noun: str) -> str:
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


class _Output(Console):
    """Standard output. When whoever reads it has gone, it falls silent, and the run goes on."""

    terminal = 1
    """File descriptor of what it writes to."""

    @property  # type: ignore[misc]  # the one of the base class can be set
    def size(self) -> ConsoleDimensions:
        """Columns and lines, of this terminal rather than of those that the process was started with."""
        with contextlib.suppress(OSError):
            if all(size := os.get_terminal_size(self.terminal)):
                return ConsoleDimensions(*size)
        return super().size

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter's last flush fails


class _SignalsInterrupt:
    """Within it, whatever signal ends a program interrupts it, as Ctrl-C does."""

    last: int = signal.SIGINT
    """The signal that came last."""

    def __enter__(self) -> None:
        signals = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signals.append(signal.SIGHUP)
        self._before = {each: signal.signal(each, self._interrupt) for each in signals}

    def _interrupt(self, which: int, frame: object) -> None:
        self.last = which
        raise KeyboardInterrupt

    def __exit__(self, *error: object) -> None:
        for each, before in self._before.items():
            signal.signal(each, before)


class _Interruption:
    """Turns signals that end a program into the cancellation of the task that makes it.

    A closed terminal (SIGHUP) is one of them, unless the program was started to outlive it, as by nohup.
    """

    def __init__(self, trainer: Trainer, output: _Output) -> None:
        self.by: signal.Signals | None = None
        self._trainer = trainer
        self._output = output
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        if self._before[signal.SIGHUP] is signal.SIG_IGN:
            del self._before[signal.SIGHUP]
        else:
            # Python's resource tracker is no process of ours, but the whole group gets the signal: started now, it
            # inherits that this one is ignored, as it ignores the others by itself.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            resource_tracker.ensure_running()
        for each in self._before:
            asyncio.get_running_loop().add_signal_handler(each, self._arrived, each)

    def _arrived(self, which: signal.Signals) -> None:
        if self.by is not None:
            self._trainer.abort()
            from aiotrain.console.screen import LEAVE

            if os.isatty(self._output.terminal):
                os.write(self._output.terminal, LEAVE.encode())
            os._exit(128 + which)
        self.by = which
        self._task.cancel()

    def forget(self) -> None:
        """Leave the signals to whoever had them before."""
        for each, handler in self._before.items():
            asyncio.get_running_loop().remove_signal_handler(each)
            signal.signal(each, handler)
