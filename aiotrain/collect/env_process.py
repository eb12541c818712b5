"""An environment in a process of its own, stepped from another one through a pipe: the environment's end."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

from aiotrain.play.factory import EnvFactory
from aiotrain.play.inspection import BREAKDOWNS

__all__ = ["Raised", "serve_env"]


class Raised(NamedTuple):
    """What an environment raised, with the traceback."""

    report: str


def serve_env(connection: Connection, factory: EnvFactory) -> None:
    """Make an environment, tell that it is made, and do what comes through ``connection``, until that is closed.

    Of an info dict, only what the trainer uses travels back: the rest may not even be picklable.
    """
    from aiotrain.collect.worker import initialize

    initialize()
    used = ("action_mask", "bonus", *factory.metrics)
    env: Any = None

    def make() -> None:
        nonlocal env
        env = factory()

    def do(name: str, args: Any, kwargs: Any) -> Any:
        if not name:
            return None
        *answer, info = getattr(env, name)(*args, **kwargs)
        return *answer, {key: info[key] for key in used if key in info}

    with contextlib.suppress(EOFError, OSError):  # whoever steps it has gone, or wants no more of it
        connection.send_bytes(_answer(make))
        while True:
            connection.send_bytes(_answer(do, *connection.recv()))
    with contextlib.suppress(Exception):
        if env is not None:
            env.close()


def _answer(call: Callable[..., Any], *args: Any) -> Any:
    """What ``call`` returns, or ``Raised``, pickled."""
    try:
        return ForkingPickler.dumps(call(*args))
    except BREAKDOWNS:
        return ForkingPickler.dumps(Raised(traceback.format_exc()))
