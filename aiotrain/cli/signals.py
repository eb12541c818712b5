"""What signals that end a program do here."""

from __future__ import annotations

import asyncio
import os
import signal
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

from aiotrain.cli.output import Output

if TYPE_CHECKING:
    from aiotrain.trainer import Trainer

__all__ = ["Interruption", "SignalsInterrupt"]


class SignalsInterrupt:
    """Within it, whatever signal ends a program interrupts it, as Ctrl-C does."""

    last: int = signal.SIGINT
    """The signal that came last."""

    def __enter__(self) -> None:
        signals = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signals.append(signal.SIGHUP)
        self._before = {each: signal.signal(each, self._interrupt) for each in signals}

    def _interrupt(self, which: int, frame: object) -> None:
        self.last = which
        raise KeyboardInterrupt

    def __exit__(self, *error: object) -> None:
        for each, before in self._before.items():
            signal.signal(each, before)


class Interruption:
    """Turns signals that end a program into the cancellation of the task that makes it.

    A closed terminal (SIGHUP) is one of them, unless the program was started to outlive it, as by nohup.
    """

    def __init__(self, trainer: Trainer, output: Output) -> None:
        self.by: signal.Signals | None = None
        self._trainer = trainer
        self._output = output
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        if self._before[signal.SIGHUP] is signal.SIG_IGN:
            del self._before[signal.SIGHUP]
        else:
            # Python's resource tracker is no process of ours, but the whole group gets the signal: started now, it
            # inherits that this one is ignored, as it ignores the others by itself.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            resource_tracker.ensure_running()
        for each in self._before:
            asyncio.get_running_loop().add_signal_handler(each, self._arrived, each)

    def _arrived(self, which: signal.Signals) -> None:
        if self.by is not None:
            self._trainer.abort()
            from aiotrain.console.screen import LEAVE

            if os.isatty(self._output.terminal):
                os.write(self._output.terminal, LEAVE.encode())
            os._exit(128 + which)
        self.by = which
        self._task.cancel()

    def forget(self) -> None:
        """Leave the signals to whoever had them before."""
        for each, handler in self._before.items():
            asyncio.get_running_loop().remove_signal_handler(each)
            signal.signal(each, handler)
