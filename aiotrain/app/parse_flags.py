"""Flags to settings: each field of the settings' dataclasses is a flag, and its docstring the flag's help.

The settings of the chosen environment's domain are flags too.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from aiotrain.config import Config
from aiotrain.domains import DEFAULT_ENV, domain_of, domains, flags_of
from aiotrain.errors import ConfigError, documented
from aiotrain.runs.checkpoints import Checkpoint, load_checkpoint

__all__ = ["TrainFlags", "parse_flags"]


@dataclasses.dataclass(frozen=True)
class TrainFlags:
    """What the flags of a training ask for."""

    config: Config
    run_dir: Path
    checkpoint: Checkpoint | None
    override: bool
    plain: bool


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class _Arguments(Config):
    """The flags as tyro reads them."""

    # These are narrower than from Python. Their help is that of Config and its base.
    env: str = DEFAULT_ENV
    curriculum: str | None = None
    workers: Annotated[int, tyro.conf.arg(aliases=("--n-workers",))] = Config.workers
    plain: bool = False
    """One line per update instead of the live console. Without a terminal, and with the sequential collector, which
    leaves the terminal to breakpoints, this is so anyway."""
    resume: Path | None = None
    """Go on with the run in this folder, from its newest checkpoint (or from the one in this file)."""
    override: bool = False
    """Resume with settings changed that decide what is learned, which is refused otherwise."""

    def __post_init__(self) -> None:
        """Check nothing: tyro would word the error anew. Config checks once the domain's settings are put in."""


def parse_flags(arguments: Sequence[str], description: str = "") -> TrainFlags:
    """Return what ``arguments`` ask for. ``description`` stands at the top of the help.

    The defaults are those of the run to be resumed, else the domain's, else the general ones. Of a flag that is there
    twice, the last one counts. Raises CheckpointError or ConfigError; SystemExit for --help and for unknown flags.
    """
    env, resumed = _decisive(arguments)
    domain = domain_of(DEFAULT_ENV if env is None else env)
    checkpoint = None if resumed is None else load_checkpoint(resumed)
    defaults: dict[str, Any] = {}
    if checkpoint is not None:
        defaults = _settings(checkpoint.config) | ({} if env is None else {"env": env})
        if env is None or type(domain) is type(checkpoint.config.domain):
            domain = checkpoint.config.domain
    elif domain is not None and domain.ppo is not None:
        defaults["ppo"] = domain.ppo
    kind: Any = _Arguments
    group = "env"
    if domain is not None:
        defaults["env"], group = domain.env_id, type(domain).__name__  # which heads these flags in the help
        field = (group, type(domain), dataclasses.field(default=domain))
        kind = dataclasses.make_dataclass("_Arguments", [field], bases=(_Arguments,), frozen=True, kw_only=True)
    default = kind(**defaults)
    _refuse_flags_of_others(arguments, default, default.env if env is None else env)
    omit = (tyro.conf.OmitArgPrefixes,)
    chosen = tyro.cli(kind, prog="aiotrain", description=description, args=arguments, default=default, config=omit)
    run_dir = _new_run_dir(chosen.env) if chosen.run_dir is None else chosen.run_dir
    settings = _settings(chosen) | {"env": getattr(chosen, group), "run_dir": run_dir}
    return TrainFlags(Config(**settings), Path(run_dir), checkpoint, chosen.override, chosen.plain)


def _decisive(arguments: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the values of --env and --resume, on which the other flags depend; None for one that is not there."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--env", nargs="?")  # without a value, which tyro refuses in better words
    parser.add_argument("--resume", nargs="?")
    found, _ = parser.parse_known_args(arguments)
    return found.env, found.resume


def _settings(config: Config) -> dict[str, Any]:
    return {each.name: getattr(config, each.name) for each in dataclasses.fields(Config)}


def _refuse_flags_of_others(arguments: Sequence[str], own: _Arguments, env: str) -> None:
    """Raise ConfigError for a flag that is not among ``own``, those for ``env``, but is one of another domain."""
    given = {each.partition("=")[0].replace("_", "-") for each in arguments}
    given -= set(flags_of(own))
    for env_id, kind in domains().items():
        if strange := given.intersection(flags_of(kind())):
            flag = min(strange)
            raise ConfigError(
                f"{flag} is a setting of {env_id} and means nothing to {env}; leave it out, or choose --env {env_id}"
            )


def _new_run_dir(env: str) -> str:
    """Return a folder under runs/ that names the environment and the time."""
    short = re.sub(r"[^A-Za-z0-9.-]+", "-", env.split("/")[-1]).strip("-")
    return str(Path("runs") / f"{short}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
