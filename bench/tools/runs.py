"""Configurations and environments from the flags of the command line: the one place where scripts make them.

The flags stay the same where the Python API changes, and are what a user types.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from aiotrain.cage2 import CAGE2_ID, Cage2
from aiotrain.config import Config
from aiotrain.errors import ConfigError
from aiotrain.play.env_factory import EnvFactory

__all__ = ["ENDLESS", "config_of", "factory_of", "plays_cage2"]

ENDLESS = ("--total-episodes", "1000000000")
"""For runs that their measurement ends."""


def config_of(flags: Sequence[str], cage2: Sequence[str] = ()) -> Config:
    """Return the configuration that ``aiotrain`` would train with, without a folder unless the flags name one.

    ``cage2``: flags that go before the others where CAGE 2 is played. Ends the script on bad flags.
    """
    from aiotrain.app.parse_flags import parse_flags

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--env", default=CAGE2_ID)
    parser.add_argument("--run-dir")
    known, _ = parser.parse_known_args(flags)
    try:
        chosen = parse_flags([*(cage2 if known.env == CAGE2_ID else ()), *flags])
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    return dataclasses.replace(chosen.config, run_dir=known.run_dir)


def factory_of(env: str) -> EnvFactory:
    """Return the factory of an environment; CAGE 2 is played by csle-cyborg, without a workflow.

    It works where of aiotrain's dependencies only those of its environments are installed.
    """
    return Config(env=Cage2(simulator="cyborg", workflow="none") if env == CAGE2_ID else env).env_factory()


def plays_cage2(config: Config) -> bool:
    """Tell whether this is the built-in CAGE 2 environment."""
    return isinstance(config.env, Cage2)
