"""What signals that end a program do here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, cast

from aiotrain.app.output import Output

if TYPE_CHECKING:
    from aiotrain.training.trainer import Trainer

__all__ = ["Interruption", "SignalsInterrupt"]

_ANSWER_S = 0.5  # for the event loop to act on a second signal, before the process ends without it


class SignalsInterrupt:
    """Raises KeyboardInterrupt within it on every signal that ends a program, as Ctrl-C does."""

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
    """Turns signals that end a program into the cancellation of the current task.

    A closed terminal (SIGHUP) is one of them, unless the program was started to outlive it, as by nohup.
    """

    def __init__(self, trainer: Trainer, output: Output) -> None:
        self.by: signal.Signals | None = None
        self._trainer = trainer
        self._output = output
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        if self._before[signal.SIGHUP] is signal.SIG_IGN:
            del self._before[signal.SIGHUP]
        else:
            # Python's resource tracker is no process of ours, but the whole group gets the signal: started now, it
            # inherits that this one is ignored, as it ignores the others by itself.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            resource_tracker.ensure_running()
        self._loop = asyncio.get_running_loop()
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._wakeup_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)  # first, lest one be lost
        for each in self._before:
            signal.signal(each, lambda *_: None)
            signal.siginterrupt(each, False)
        self._listening = threading.Thread(target=self._listen, args=(reading,), name="aiotrain-signals", daemon=True)
        self._listening.start()

    def _listen(self, reading: int) -> None:
        """Tell the loop of signals, in a thread of its own.

        While an environment of this process hangs, as with the collector sequential, the loop does not get its turn: so
        the second signal ends the process here if the loop has not done so.
        """
        first = None
        with open(reading, "rb", buffering=0) as pipe:
            while number := pipe.read(1):
                if number[0] not in self._before:
                    with contextlib.suppress(OSError):
                        os.write(self._wakeup_before, number)  # another's, which the loop may wait for
                    continue
                which = signal.Signals(number[0])
                if which == first == signal.SIGHUP:
                    continue  # of one closed terminal both the shell and the kernel may tell
                self._loop.call_soon_threadsafe(self._arrived, which)
                if first is None:
                    first = which
                else:
                    time.sleep(_ANSWER_S)
                    self._leave(which)

    def _arrived(self, which: signal.Signals) -> None:
        if self.by is not None:
            self._leave(which)
        self.by = which
        self._task.cancel()

    def _leave(self, which: int) -> None:
        try:
            self._trainer.abort()
            from aiotrain.app.console.screen import LEAVE

            if os.isatty(self._output.terminal):
                os.write(self._output.terminal, LEAVE.encode())
        finally:
            os._exit(128 + which)

    def forget(self) -> None:
        """Leave the signals to whoever had them before."""
        signal.set_wakeup_fd(self._wakeup_before)
        for each, handler in self._before.items():
            signal.signal(each, handler)
        os.close(self._writing)
        self._listening.join()
