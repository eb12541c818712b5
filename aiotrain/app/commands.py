"""The commands of the program besides training: the general ones, and those that domains bring."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from aiotrain.app.evaluate_command import evaluate
from aiotrain.app.export_command import export
from aiotrain.app.plot_command import plot
from aiotrain.app.replay_command import replay
from aiotrain.domains import DEFAULT_ENV, Domain, domain_of, domains, part_of
from aiotrain.errors import AiotrainError, ConfigError, unknown_name
from aiotrain.play.env_factory import named
from aiotrain.runs.load_run import read_config

__all__ = ["HELP", "command", "further_commands"]

Command = Callable[[Sequence[str]], int]
"""Carries out the arguments after its name, and returns the exit code."""

_GENERAL: Final[Mapping[str, Command]] = {"plot": plot, "evaluate": evaluate, "replay": replay, "export": export}
HELP: Final = """aiotrain plot RUN draws pictures of a run (aiotrain plot --help).

aiotrain evaluate RUN plays what it learned (aiotrain evaluate --help).

aiotrain replay RUN shows how (aiotrain replay --help).

aiotrain export RUN writes its policy to files (aiotrain export --help).

aiotrain --resume RUN goes on with a run, with its settings."""


def command(name: str, arguments: Sequence[str]) -> Command:
    """Return the command ``name``: of the domain of the run that ``arguments`` name, else the general one.

    Raises ConfigError if there is no such command.
    """
    domain = _domain_of_run(arguments)
    further = further_commands()
    if domain is None or name not in domain.verbs:
        if name in _GENERAL:
            return _GENERAL[name]
        if name not in further:
            known = [*further, *_GENERAL, *(() if domain is None else domain.verbs)]
            raise ConfigError(f"{unknown_name('command', name, list(dict.fromkeys(known)))} Training has flags alone.")
        domain = further[name]()
    verb = domain.verbs[name]
    found: Command = part_of(domain, f"verbs ({name})", Callable, lambda: named(verb))
    return found


def further_commands() -> dict[str, type[Domain]]:
    """Return the commands that only domains have, with the domain that has each."""
    return {name: kind for kind in domains().values() for name in kind.verbs if name not in _GENERAL}


def _domain_of_run(arguments: Sequence[str]) -> Domain | None:
    """Return the domain of the first argument that is a run's folder or a checkpoint.

    Without one that can be read, it is the default environment's, whose commands say what is wrong.
    """
    for each in arguments:
        if os.path.exists(each):
            with contextlib.suppress(AiotrainError):
                return read_config(Path(each)).domain
    return domain_of(DEFAULT_ENV)
