"""An environment in a process of its own, stepped from another one through a pipe."""

from __future__ import annotations

import contextlib
import traceback
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import gymnasium

from aiotrain.errors import EnvError
from aiotrain.factory import EnvFactory
from aiotrain.worker.player import BREAKDOWNS

__all__ = ["RemoteEnv", "serve_env"]

_END_S = 1.0  # for the process to close its environment, and then for it to heed SIGTERM


class _Raised(NamedTuple):
    """What an environment raised, as text."""

    report: str


def serve_env(connection: Connection, factory: EnvFactory) -> None:
    """Make an environment and do what comes through ``connection``, until that is closed."""
    from aiotrain.worker import initialize

    initialize()
    env: Any = None
    try:
        while True:
            name, args, kwargs = connection.recv()
            try:
                if env is None:
                    env = factory()
                answer = getattr(env, name)(*args, **kwargs) if name else None
            except BREAKDOWNS:
                answer = _Raised(traceback.format_exc())
            connection.send(answer)
    except (EOFError, OSError):  # whoever steps it has gone, or wants no more of it
        if env is not None:
            env.close()


class RemoteEnv(gymnasium.Env[Any, Any]):
    """The end that is stepped: `send_step` to all environments, then `step` for the answer of each.

    Raises EnvError for what the environment raised, for the end of its process and after ``timeout_s`` without answer.
    """

    def __init__(self, process: BaseProcess, connection: Connection, timeout_s: float) -> None:
        self._process, self._connection, self._timeout_s = process, connection, timeout_s

    def send_step(self, action: Any) -> None:
        """Have the environment step while others do."""
        self._send("step", action)

    def step(self, action: Any) -> Any:
        """The answer to ``send_step``, which must have had the same action."""
        return self._receive()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """As in gymnasium.Env."""
        self._send("reset", seed=seed, options=options)
        return self._receive()

    def send_nothing(self) -> None:
        """Have the environment's process do nothing but answer, with ``receive_nothing``."""
        self._send("")

    def receive_nothing(self) -> None:
        """Wait for that answer."""
        self._receive()

    def hang_up(self) -> None:
        """Have the process close the environment and end."""
        self._connection.close()

    def close(self) -> None:
        """End the process, and wait for its end."""
        self.hang_up()
        for escalate in (self._process.terminate, self._process.kill):
            self._process.join(_END_S)
            if self._process.is_alive():
                escalate()
        self._process.join()

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()

    def _send(self, name: str, *args: Any, **kwargs: Any) -> None:
        with contextlib.suppress(OSError):  # the process has gone: receiving tells
            self._connection.send((name, args, kwargs))

    def _receive(self) -> Any:
        try:
            if not self._connection.poll(self._timeout_s):
                self.kill()
                raise EnvError(f"hung for {self._timeout_s:g} s and was killed")
            answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(1)
            raise EnvError(f"its process ended with exit code {self._process.exitcode}") from None
        if isinstance(answer, _Raised):
            raise EnvError(f"in its process:\n{answer.report}")
        return answer
