"""What a finished run on CAGE 2 is played by: the order that its policy is shown, and the file that holds it."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from aiotrain.cage2.search.strategies import GpUcb
from aiotrain.cage2.search.workflow_curriculum import TRAININGS, weights_file
from aiotrain.cage2.workflows import Order, order_text, parse_order
from aiotrain.errors import ConfigError
from aiotrain.runs.policy_files import WEIGHTS

if TYPE_CHECKING:
    from aiotrain.cage2.domain import Cage2

__all__ = ["order_of", "with_order"]


def with_order(settings: Cage2, run: Path, workflow: str | None = None) -> tuple[Cage2, str]:
    """Return the settings that show the policy of the run in the folder ``run`` an order, and the file it is in.

    ``workflow``: the order. Default: that of the run; of a search, the best in workflows.csv. Raises ConfigError.
    """
    if settings.workflow == "none":
        if workflow is not None:
            raise ConfigError(f"workflow: the policy of {run} was trained without any, and is shown none")
        return settings, WEIGHTS
    if workflow is not None:
        order = order_of(workflow)
    else:
        order = best_order(run, settings) if settings.searches else order_of(settings.workflow)
    has_own_policy = settings.searches and settings.search.inherit != "latest"
    shown = dataclasses.replace(settings, workflow=order_text(order))
    return shown, weights_file(order) if has_own_policy else WEIGHTS


def order_of(workflow: str) -> Order:
    """Return the order that ``workflow`` means. Raises ConfigError."""
    try:
        return parse_order(workflow)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def best_order(run: Path, settings: Cage2) -> Order:
    """Return the order that a search ranks first, from its workflows.csv. Raises ConfigError."""
    path = run / TRAININGS
    search = GpUcb()
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file, strict=True):
                if row["learned"] == "True":
                    complied = row["complied"] == "True" or settings.search.fixed_episodes is not None
                    search.observe(parse_order(row["workflow"]), float(row["value"]), complied)
    except FileNotFoundError:
        pass
    except (OSError, csv.Error, KeyError, TypeError, ValueError) as error:  # a row that lacks cells holds None
        raise ConfigError(
            f"{path} is damaged ({type(error).__name__}: {error}); name an order by workflow (--workflow)"
        ) from error
    if (best := search.best()) is None:
        raise ConfigError(
            f"{run} is a search in which no training of an order has ended; name one by workflow (--workflow)"
        )
    return best
