"""A stream of random numbers for each environment, although csle-cyborg draws from Python's global generator.

csle-cyborg draws through ``random.choice(…)``, or through names that its modules bound at import. `redirect` replaces
these names, once, by forwarders to the current source of the thread. By default the source is the ``random`` module, so
that other users of csle-cyborg in this process notice nothing. Within a `RandomStream`, it is the generator of one
environment.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from typing import Any


class _Source(threading.local):
    """What the forwarders of a thread draw from: an object with the names of the ``random`` module."""

    current: Any = random


_source = _Source()


def _forwarder(name: str) -> Callable[..., Any]:
    def draw(*args: Any, **kwargs: Any) -> Any:
        return getattr(_source.current, name)(*args, **kwargs)

    draw.__name__ = name
    return draw


class _ForwardingModule:
    """Replaces ``random`` in a module that says ``import random``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(_source.current, name)
        except AttributeError:
            return getattr(random, name)  # names that a generator lacks, such as SystemRandom


_forwarding_module = _ForwardingModule()
# The functions of ``random`` are methods of its hidden generator. Each is bound once, so that identity finds it.
_forwarders = {
    id(getattr(random, name)): _forwarder(name)
    for name in random.__all__
    if getattr(getattr(random, name), "__self__", None) is not None
}
_redirected: set[str] = set()


def redirect(package: str) -> None:
    """Let all loaded modules of ``package`` draw through the forwarders. Repeated calls are cheap."""
    for name, module in list(sys.modules.items()):
        if name in _redirected or not (name == package or name.startswith(f"{package}.")):
            continue
        for key, value in list(vars(module).items()):
            if value is random:
                setattr(module, key, _forwarding_module)
            elif id(value) in _forwarders:
                setattr(module, key, _forwarders[id(value)])
        _redirected.add(name)


def is_redirected(cls: type) -> bool:
    """Return whether a class and all its bases come from modules that draw through the forwarders."""
    return all(base.__module__ in _redirected or base is object for base in cls.__mro__)


class RandomStream:
    """The randomness of one environment: within ``with stream:``, the simulator draws from ``generator``.

    With ``everywhere=True``, all other modules draw from the stream too, as a red agent from outside csle-cyborg needs.
    The global generator then has the state of ``generator`` within the block. This costs some 35 µs, and no other
    thread should draw meanwhile.
    A stream is not reentrant, but streams of different environments may nest.
    """

    def __init__(self, *, everywhere: bool = False) -> None:
        self.generator = random.Random()
        self._everywhere = everywhere
        self._outer: Any = None
        self._global_state: Any = None

    def __enter__(self) -> random.Random:
        """Direct the draws to this stream. Return the object to draw from within the block."""
        self._outer = _source.current
        if self._everywhere:
            self._global_state = random.getstate()
            random.setstate(self.generator.getstate())
            _source.current = random
            return random  # type: ignore[return-value]  # the module has the same functions as its generator
        _source.current = self.generator
        return self.generator

    def __exit__(self, *exc: object) -> None:
        """Direct the draws to the source before this block."""
        if self._everywhere:
            self.generator.setstate(random.getstate())
            random.setstate(self._global_state)
        _source.current = self._outer
        self._outer = self._global_state = None
