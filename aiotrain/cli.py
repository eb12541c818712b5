"""The command line: flags to a configuration, a run in an event loop, signals and exit codes; pictures of a run.

Exit codes: 0 the budget was used up; 1 the run failed; 2 it could not start as configured; 130 and 143 it was ended by
Ctrl-C and by SIGTERM. Torch and the trainer are imported once the flags are understood, so that --help is quick.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
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
from typing import TYPE_CHECKING, Annotated, Any

import tyro
import uvloop
from rich.console import Console

from aiotrain.cage2 import CAGE2_ID
from aiotrain.checkpoint import Checkpoint, load_checkpoint
from aiotrain.config import Config
from aiotrain.errors import AiotrainError, CheckpointError, ConfigError, EnvError, SharedMemoryError
from aiotrain.shm import human_bytes

if TYPE_CHECKING:
    from aiotrain.trainer import Trainer

__all__ = ["Arguments", "main"]

_FILES_PER_WORKER = 12  # pipes, locks and sentinel of an executor with one process, rounded up
_FILES_BESIDE = 200
_LAST_FRAME_S = 5.0


@dataclasses.dataclass(frozen=True)
class Arguments(Config):
    """Train an agent: worker processes play, PPO learns, a live console shows it.

    Without flags: a defender for CAGE Challenge 2, on 100 workers.

    aiotrain plot RUN draws pictures of a run (aiotrain plot --help).

    aiotrain --resume RUN goes on with a run, with its settings.
    """

    # The fields of Config that the command line sees otherwise than Python does.
    env: str = CAGE2_ID
    """Environment: a Gymnasium id, or module:factory."""
    workers: Annotated[int, tyro.conf.arg(aliases=("--n-workers",))] = Config.workers
    """Worker processes."""
    plain: bool = False
    """One line per update instead of the live console. Without a terminal, this is so anyway."""
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the flags in ``arguments`` say (default: those of the process), or plot. Returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    errors = Console(stderr=True, highlight=False, markup=False)
    errors.soft_wrap = not errors.is_terminal  # a terminal breaks lines between words, a log keeps them whole
    try:
        if arguments[:1] == ["plot"]:
            return _plot(tyro.cli(PlotArguments, prog="aiotrain plot", args=arguments[1:]).run)
        checkpoint = _checkpoint(arguments)
        default = Arguments(**({} if checkpoint is None else _settings(checkpoint.config)))
        chosen = tyro.cli(
            Arguments, prog="aiotrain", args=arguments, default=default, config=(tyro.conf.OmitArgPrefixes,)
        )
        if (here := os.getcwd()) not in sys.path:
            sys.path.insert(0, here)  # as python -m does: a module:factory may lie in the folder you start in
        config = chosen.config()
        _allow_open_files(config.workers)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_train(config, chosen.plain, checkpoint, chosen.override))
    except (CheckpointError, ConfigError, EnvError, SharedMemoryError) as error:
        errors.print(f"aiotrain: {error}", style="red")
        return 2
    except AiotrainError as error:
        errors.print(f"aiotrain: {error}", style="red")
        return 1
    except KeyboardInterrupt:  # before the run has taken over the signals, or after it has ended
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


def _new_run_dir(env: str) -> str:
    """A folder under runs/ that names the environment and the time."""
    short = re.sub(r"[^A-Za-z0-9.-]+", "-", env.split("/")[-1]).strip("-")
    return str(Path("runs") / f"{short}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")


def _allow_open_files(workers: int) -> None:
    """Raise the limit of open files as far as so many workers need. Raises ConfigError if that is too far."""
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
    from aiotrain.console import PlainLog, can_draw, show, summary
    from aiotrain.trainer import Trainer

    trainer = Trainer(config, checkpoint=checkpoint, override=override)
    interrupted = _Interruption(trainer)
    output = _Output(highlight=False)
    log = PlainLog(output)
    drawing = can_draw(output) and not plain
    if not drawing and config.env == CAGE2_ID and config.simulator == "compiled":
        output.print("loading the compiled engine; the first time on a machine, it is compiled, which takes longer")
    showing = asyncio.create_task(show(trainer.status, output)) if drawing else None
    started = False
    failed: AiotrainError | None = None
    try:
        async with trainer:
            started = True
            output.print(_start_lines(trainer), markup=False, soft_wrap=True)
            if not drawing:
                log.write(trainer.status())  # what there is to warn of, before the first update
            async for _ in trainer:
                if not drawing:
                    log.write(trainer.status())
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
    each = _count(config.envs_per_worker, "environment")
    slots = _count(status.slots, "slot")
    simulators = {"cyborg": "csle-cyborg itself", "compiled": "the compiled engine"}
    return "\n".join(
        (
            f"environment {status.environment}: {spec.inputs} inputs ({spec.observation_dtype}), {outputs}",
            *([f"simulator   {simulators[config.simulator]}"] if config.env == CAGE2_ID else []),
            f"workers     {_count(config.workers, 'process')} with {each} each",
            f"memory      {human_bytes(status.ring_bytes)} of shared memory reserved, for {slots}",
            f"learner     on {status.device}; files in {config.run_dir}",
            *([f"resumed     after {_count(status.updates, 'update')}"] if status.updates else []),
        )
    )


def _count(number: int, noun: str) -> str:
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


class _Output(Console):
    """Standard output. When whoever reads it has gone, it falls silent, and the run goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter's last flush fails


class _Interruption:
    """Turns signals that end a program into the cancellation of the task that makes it.

    A closed terminal (SIGHUP) is one of them, unless the program was started to outlive it, as by nohup.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.by: signal.Signals | None = None
        self._trainer = trainer
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._signals = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            self._signals.append(signal.SIGHUP)
            # Python's resource tracker is no process of ours, but the whole group gets the signal: started now, it
            # inherits that this one is ignored, as it ignores the others by itself.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            resource_tracker.ensure_running()
        for each in self._signals:
            asyncio.get_running_loop().add_signal_handler(each, self._arrived, each)

    def _arrived(self, which: signal.Signals) -> None:
        if self.by is not None:
            self._trainer.abort()
            from aiotrain.console.screen import LEAVE

            if os.isatty(1):
                os.write(1, LEAVE.encode())
            os._exit(128 + which)
        self.by = which
        self._task.cancel()

    def forget(self) -> None:
        """Leave the signals to their defaults again."""
        for each in self._signals:
            asyncio.get_running_loop().remove_signal_handler(each)
