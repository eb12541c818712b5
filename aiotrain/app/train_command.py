"""Training: flags to a configuration, and a run in an event loop that is shown while it goes on.

Torch and the trainer are imported once the flags are understood, so that --help is quick.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import os
import re
import resource
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
import uvloop

from aiotrain.app.console import printable
from aiotrain.app.output import Output
from aiotrain.app.signals import Interruption
from aiotrain.config import Config
from aiotrain.domains import DEFAULT_ENV, Domain, Panel, domain_of, domains
from aiotrain.errors import AiotrainError, ConfigError
from aiotrain.play.factory import named
from aiotrain.runs.checkpoints import Checkpoint, load_checkpoint
from aiotrain.transport.segments import human_bytes

if TYPE_CHECKING:
    from aiotrain.training.trainer import Trainer

__all__ = ["Arguments", "train"]

_FILES_PER_WORKER = 12  # pipes, locks and sentinel of an executor with one process, rounded up
_FILES_BESIDE = 200
_LAST_FRAME_S = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(Config):
    """Train an agent: worker processes play, PPO learns, a live console shows it.

    Without flags: a defender for CAGE Challenge 2, on 100 workers.

    aiotrain plot RUN draws pictures of a run (aiotrain plot --help).

    aiotrain evaluate RUN plays what it learned (aiotrain evaluate --help).

    aiotrain replay RUN shows how (aiotrain replay --help).

    aiotrain export RUN writes its policy to files (aiotrain export --help).

    aiotrain --resume RUN goes on with a run, with its settings.
    """

    # The fields of Config that the command line sees otherwise than Python does.
    env: str = DEFAULT_ENV
    """Environment: a Gymnasium id, or module:factory."""
    curriculum: str | None = None
    """With which options episodes are reset: module:Class of an aiotrain.Curriculum. Default: the environment's own."""
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
        """Return the settings of the run, with a folder for it. Raises ConfigError."""
        run_dir = _new_run_dir(self.env) if self.run_dir is None else self.run_dir
        return Config(**_settings(self) | {"env": getattr(self, "domain_settings", self.env), "run_dir": run_dir})


def train(arguments: Sequence[str]) -> int:
    """Train as the flags in ``arguments`` say; return the exit code. Raises AiotrainError."""
    checkpoint = _checkpoint(arguments)
    default = _defaults(arguments, checkpoint)
    chosen = tyro.cli(
        type(default), prog="aiotrain", args=arguments, default=default, config=(tyro.conf.OmitArgPrefixes,)
    )
    config = chosen.config()
    _allow_open_files(_processes(config)[0])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_train(config, chosen.plain, checkpoint, chosen.override))


def _settings(config: Config) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(Config)}


def _defaults(arguments: Sequence[str], checkpoint: Checkpoint | None) -> Arguments:
    """Return the defaults of all flags: the run's to be resumed, or the domain's; its settings are flags as well.

    Raises ConfigError for a flag of another domain.
    """
    env = _flag(arguments, "--env")
    domain = domain_of(DEFAULT_ENV if env is None else env)
    settings: dict[str, Any] = {} if checkpoint is None else _settings(checkpoint.config)
    if checkpoint is not None and (env is None or domain_of(env) == checkpoint.config.domain):
        domain = checkpoint.config.domain
    for kind in domains().values():
        if kind is not type(domain) and (strange := _flags(kind) & {each.partition("=")[0] for each in arguments}):
            raise ConfigError(
                f"{min(strange)} is a setting of {kind.env_id} and means nothing to another env"
                + (f" such as {env}" if env is not None else "")
                + "; leave one of the two out"
            )
    if domain is None:
        return Arguments(**settings)
    settings["env"] = domain.env_id
    if checkpoint is None and domain.ppo is not None:
        settings["ppo"] = domain.ppo
    fields = [("domain_settings", type(domain), dataclasses.field(default=domain))]
    arguments_of = dataclasses.make_dataclass("Arguments", fields, bases=(Arguments,), frozen=True, kw_only=True)
    arguments_of.__doc__ = Arguments.__doc__
    made: Arguments = arguments_of(**settings)
    return made


def _flags(kind: type[Domain]) -> set[str]:
    """Return the flags of a domain's settings."""
    flags = set()
    for each in dataclasses.fields(kind):
        default = each.default_factory() if callable(each.default_factory) else each.default
        inner = dataclasses.fields(default) if dataclasses.is_dataclass(default) else (each,)
        flags |= {f"--{field.name.replace('_', '-')}" for field in inner}
    return flags


def _checkpoint(arguments: Sequence[str]) -> Checkpoint | None:
    """Return what is to be resumed, if anything is: its settings are the defaults of all other flags."""
    run = _flag(arguments, "--resume")
    return None if run is None else load_checkpoint(run)


def _flag(arguments: Sequence[str], name: str) -> str | None:
    """Return the value of a flag that decides about the others; None if it is not there."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(name, dest="value")
    try:
        value: str | None = parser.parse_known_args(arguments)[0].value
    except argparse.ArgumentError:  # which tyro tells better
        return None
    return value


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
    from aiotrain.app.console import DivertedOutput, PlainLog, can_draw, show, summary
    from aiotrain.training.trainer import Trainer

    trainer = Trainer(config, checkpoint=checkpoint, override=override)
    output = Output()
    panel = _panel(config)
    log = PlainLog(output, panel)
    # A breakpoint in an environment of this process needs the terminal for itself.
    drawing = can_draw(output) and not plain and config.collector != "sequential"
    diverted: DivertedOutput | None = None
    assert config.run_dir is not None, "Arguments.config names a folder for every run"
    worker_log = Path(config.run_dir, "workers.log")
    if drawing:
        with contextlib.suppress(OSError):  # the trainer says what is wrong with the folder
            diverted = DivertedOutput(worker_log)
            output.terminal = diverted.terminal
    interrupted = Interruption(trainer, output)
    if not drawing and config.env_factory().compiled_player is not None:
        output.print("compiling the environment's player; the first time on a machine takes longer")
    showing = asyncio.create_task(show(trainer.status, output, panel)) if drawing else None
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
    output.print(summary(trainer.status(), panel), end="", soft_wrap=True)  # with the error, if there was one
    if trainer.status().phase != "finished":
        output.print(_way_on(config.run_dir), end="", soft_wrap=True)
    return 128 + interrupted.by if interrupted.by is not None else 1 if failed else 0


def _panel(config: Config) -> Panel | None:
    """Return what shows the domain's curriculum in the console; None if another one trains, or there is no panel."""
    if config.domain is None or config.domain.panel is None or config.curriculum is not None:
        return None
    panel: Panel = named(config.domain.panel)()
    return panel


def _way_on(run: str) -> str:
    """How to go on with a run that has not come to its end, if there is a way."""
    return f"resume      by --resume {printable(shlex.quote(run))}\n" if Path(run, "checkpoints").is_dir() else ""


def _start_lines(trainer: Trainer) -> str:
    """What was set up, for the log: the environment, the processes, and the memory that is reserved."""
    config, spec, status = trainer.config, trainer.spec, trainer.status()
    outputs = f"{spec.outputs} {'actions' if spec.action_kind == 'discrete' else 'action dimensions'}"
    processes, envs = _processes(config)
    each = _count(envs, "environment")
    players = f"{_count(processes, 'process')} with {each} each" if processes else f"{each} in this process"
    reserved, slots = human_bytes(status.ring_bytes), _count(status.slots, "slot")
    details = {} if config.domain is None else config.domain.details
    return "\n".join(
        (
            f"environment {printable(status.environment)}: {spec.inputs} inputs ({spec.observation_dtype}), {outputs}",
            *(f"{label:<11} {printable(text)}" for label, text in details.items()),
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
