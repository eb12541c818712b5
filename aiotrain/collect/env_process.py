"""An environment in a process of its own, stepped from another one through a pipe: the environment's end."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

from aiotrain.collect.worker import initialize
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.inspection import BREAKDOWNS, close_envs

__all__ = ["Answer", "serve_env"]


class Answer(NamedTuple):
    """What an environment returned, or raised."""

    value: Any
    report: str
    """The traceback; empty if nothing was raised."""
    took_s: float
    """Seconds that the call took."""


def serve_env(connection: Connection, factory: EnvFactory) -> None:
    """Make an environment, tell that it is made, and do what comes through ``connection``, until that is closed.

    Of an info dict, only what the trainer uses travels back: the rest may not even be picklable.
    """
    initialize()
    used = ("action_mask", "bonus", *factory.metrics)
    made: list[Any] = []

    def make() -> None:
        made.append(factory())

    def do(name: str, args: Any, kwargs: Any) -> Any:
        *answer, info = getattr(made[0], name)(*args, **kwargs)
        return *answer, {key: info[key] for key in used if key in info}

    with contextlib.suppress(EOFError, OSError):  # whoever steps it has gone, or wants no more of it
        connection.send_bytes(_answer(make))
        while True:
            connection.send_bytes(_answer(do, *connection.recv()))
    close_envs(made)


def _answer(call: Callable[..., Any], *args: Any) -> Any:
    """Return the pickled Answer of ``call``."""
    began_s = time.monotonic()
    try:
        return ForkingPickler.dumps(Answer(call(*args), "", time.monotonic() - began_s))
    except BREAKDOWNS:
        return ForkingPickler.dumps(Answer(None, traceback.format_exc(), time.monotonic() - began_s))
