"""Configurations and environments from the flags of the command line: the one place where scripts make them.

The flags stay the same where the Python API changes, and are what a user types.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from aiotrain.cage2 import CAGE2_ID
from aiotrain.config import Config
from aiotrain.play.factory import EnvFactory, make_factory

__all__ = ["ENDLESS", "config_of", "factory_of", "plays_cage2"]

ENDLESS = ("--total-episodes", "1000000000")
"""For runs that their measurement ends."""


def config_of(flags: Sequence[str]) -> Config:
    """Return the configuration that ``aiotrain`` would train with, without a folder. Ends the program on bad flags."""
    import tyro

    from aiotrain.app.main import Arguments

    chosen = tyro.cli(Arguments, prog="aiotrain", args=flags, config=(tyro.conf.OmitArgPrefixes,))
    return dataclasses.replace(chosen.config(), run_dir=chosen.run_dir)


def factory_of(env: str) -> EnvFactory:
    """Return the factory of an environment; CAGE 2 is played by csle-cyborg, without a workflow.

    Works where of aiotrain's dependencies only those of its environments are installed.
    """
    if env == CAGE2_ID:
        return make_factory(Config(env=env, simulator="cyborg", workflow="none"))
    return EnvFactory.of(env)


def plays_cage2(config: Config) -> bool:
    """Tell whether this is the built-in CAGE 2 environment."""
    return config.env == CAGE2_ID
