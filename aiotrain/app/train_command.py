"""Training: a run in an event loop that is shown while it goes on.

Torch and the trainer are imported once the flags are understood, so that --help is quick.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shlex
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from aiotrain.app.commands import HELP, further_commands
from aiotrain.app.console import DivertedOutput, PlainLog, can_draw, printable, show, summary
from aiotrain.app.console.guarded_panel import GuardedPanel
from aiotrain.app.output import Output
from aiotrain.app.parse_flags import TrainFlags, parse_flags
from aiotrain.app.signals import Interruption
from aiotrain.config import Config
from aiotrain.domains import DEFAULT_ENV, Panel, part_of
from aiotrain.errors import AiotrainError, ConfigError
from aiotrain.play.env_factory import named
from aiotrain.transport.segments import human_bytes

if TYPE_CHECKING:
    from aiotrain.training.trainer import Trainer

__all__ = ["train"]

_FILES_PER_WORKER = 12  # pipes, locks and sentinel of an executor with one process, rounded up
_FILES_BESIDE = 200
_LAST_FRAME_S = 5.0
_HELP: Final = f"""Train an agent: worker processes play, PPO learns, a live console shows it.

Without flags: {DEFAULT_ENV}, on {Config.workers} workers.

aiotrain --env ID --help tells the flags of another environment."""


def train(arguments: Sequence[str]) -> int:
    """Train as the flags in ``arguments`` say; return the exit code. Raises AiotrainError."""
    further = [f"aiotrain {name} is a command of a domain (aiotrain {name} --help)." for name in further_commands()]
    flags = parse_flags(arguments, "\n\n".join([_HELP, HELP, *further]))
    _allow_open_files(_processes(flags.config)[0])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_train(flags))


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


async def _train(flags: TrainFlags) -> int:
    """Train and show it. The first signal ends the run in order, a second one at once."""
    from aiotrain.training.trainer import Trainer

    panel, details = _panel(flags.config), _details(flags.config)
    trainer = Trainer(flags.config, checkpoint=flags.checkpoint, override=flags.override)
    trainer.status()  # refuses a title that cannot be shown
    output = Output()
    # A breakpoint in an environment of this process needs the terminal for itself.
    draws = can_draw(output) and not flags.plain and flags.config.collector != "sequential"
    shown = _drawn(trainer, output, panel, flags.run_dir) if draws else _logged(trainer, output, panel)
    started, failed = False, False
    async with shown as tell:
        interrupted = Interruption(trainer, output)
        try:
            async with trainer:
                started = True
                output.print(_start_lines(trainer, flags.run_dir, details), soft_wrap=True)
                tell()  # what there is to warn of, before the first update
                async for _ in trainer:
                    tell()
        except asyncio.CancelledError:
            if interrupted.by is None:
                raise
        except AiotrainError:
            if not started:
                raise
            failed = True
        finally:
            interrupted.forget()
            if started:
                tell()
    output.print(summary(trainer.status(), panel), end="", soft_wrap=True)  # with the error, if there was one
    if trainer.status().phase != "finished":
        output.print(_way_on(flags.run_dir), end="", soft_wrap=True)
    return 128 + interrupted.by if interrupted.by is not None else int(failed)


@contextlib.asynccontextmanager
async def _logged(trainer: Trainer, output: Output, panel: Panel | None) -> AsyncIterator[Callable[[], None]]:
    """Tell of a run in lines of text; what is yielded tells the news."""
    log = PlainLog(output, panel)
    if trainer.config.env_factory().compiled_player is not None:
        output.print("compiling the environment's player; the first time on a machine takes longer")
    yield lambda: log.write(trainer.status())


@contextlib.asynccontextmanager
async def _drawn(
    trainer: Trainer, output: Output, panel: Panel | None, run_dir: Path
) -> AsyncIterator[Callable[[], None]]:
    """Draw a run on the terminal, while what workers print goes to a file; what is yielded keeps that file small."""
    worker_log = run_dir / "workers.log"
    try:
        diverted = DivertedOutput(worker_log)
    except OSError as error:
        raise ConfigError(f"run-dir: {worker_log} cannot be written to: {error.strerror}") from error
    output.terminal = diverted.terminal
    showing = asyncio.create_task(show(trainer.status, output, panel))
    try:
        yield diverted.trim
    finally:
        await asyncio.wait([showing], timeout=_LAST_FRAME_S)
        showing.cancel()
        output.terminal = 1
        if diverted.close():
            output.print(f"what workers printed is in {printable(str(worker_log))}", soft_wrap=True)


def _panel(config: Config) -> Panel | None:
    """Return what shows the domain's curriculum in the console; None if another one trains, or there is no panel."""
    domain = config.domain
    if domain is None or (panel := domain.panel) is None or config.curriculum is not None:
        return None
    return part_of(domain, "panel", GuardedPanel, lambda: GuardedPanel(named(panel)()))


def _details(config: Config) -> Mapping[str, str]:
    """Return what the domain adds to the first lines of the log."""
    if (domain := config.domain) is None:
        return {}
    return part_of(domain, "details", Mapping[str, str], lambda: domain.details)


def _way_on(run_dir: Path) -> str:
    """Return how to go on with a run that has not come to its end, if there is a way."""
    resumable = (run_dir / "checkpoints").is_dir()
    return f"resume      by --resume {printable(shlex.quote(str(run_dir)))}\n" if resumable else ""


def _start_lines(trainer: Trainer, run_dir: Path, details: Mapping[str, str]) -> str:
    """Return what was set up, for the log: the environment, the processes, and the memory that is reserved."""
    config, spec, status = trainer.config, trainer.spec, trainer.status()
    outputs = f"{spec.outputs} {'actions' if spec.action_kind == 'discrete' else 'action dimensions'}"
    processes, envs = _processes(config)
    each = _count(envs, "environment")
    players = f"{_count(processes, 'process')} with {each} each" if processes else f"{each} in this process"
    reserved, slots = human_bytes(status.ring_bytes), _count(status.slots, "slot")
    return "\n".join(
        (
            f"environment {printable(status.environment)}: {spec.inputs} inputs ({spec.observation_dtype}), {outputs}",
            *(f"{label:<11} {printable(text)}" for label, text in details.items()),
            f"collector   {config.collector}: {players}",
            *([f"memory      {reserved} of shared memory reserved, for {slots}"] if status.slots else []),
            f"learner     on {status.device}; files in {printable(str(run_dir))}",
            *([f"resumed     after {_count(status.updates, 'update')}"] if status.updates else []),
        )
    )


def _processes(config: Config) -> tuple[int, int]:
    """Return how many processes play, and with how many environments each."""
    match config.collector:
        case "sequential":
            return 0, config.envs_per_worker
        case "synchronous":
            return config.workers * config.envs_per_worker, 1
    return config.workers, config.envs_per_worker


def _count(number: int, noun: str) -> str:
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"
