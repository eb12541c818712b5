"""A stream of random numbers per environment, for a simulator that draws from Python's global generator.

csle-cyborg draws by ``random.choice(…)`` or by names that its modules bound at import. `redirect` replaces
those names, once, by forwarders to whatever the current thread points at: by default the ``random`` module
itself, so that everybody else who drives csle-cyborg in this process sees what they always saw; within a
`Stream`, the generator of one environment.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from typing import Any


class _Source(threading.local):
    """What the forwarders draw from, per thread; an object with the names of the ``random`` module."""

    current: Any = random


_source = _Source()


def _forwarder(name: str) -> Callable[..., Any]:
    def draw(*args: Any, **kwargs: Any) -> Any:
        return getattr(_source.current, name)(*args, **kwargs)

    draw.__name__ = name
    return draw


class _ForwardingModule:
    """Stands in for ``random`` in a module that says ``import random``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(_source.current, name)
        except AttributeError:
            return getattr(random, name)  # names that a generator lacks, such as SystemRandom


_forwarding_module = _ForwardingModule()
# The functions of the module are methods of its hidden generator, each made once: identity finds them.
_forwarders = {
    id(getattr(random, name)): _forwarder(name)
    for name in random.__all__
    if getattr(getattr(random, name), "__self__", None) is not None
}
_redirected: set[str] = set()


def redirect(package: str) -> None:
    """Let all modules of ``package`` that are loaded by now draw through the forwarders; cheap to repeat."""
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
    """Whether a class and all its bases come from modules that draw through the forwarders."""
    return all(base.__module__ in _redirected or base is object for base in cls.__mro__)


class Stream:
    """The randomness of one environment: ``with stream:`` points the simulator's draws at ``generator``.

    With ``everywhere=True`` draws by any other module from Python's global generator come from the stream
    too, which a red agent from outside csle-cyborg needs: for the length of the block the global generator
    has the state of ``generator`` (some 35 µs a block, and no other thread should draw meanwhile).
    Not reentrant, but streams of different environments may nest.
    """

    def __init__(self, *, everywhere: bool = False) -> None:
        self.generator = random.Random()
        self._everywhere = everywhere
        self._outer: Any = None
        self._global_state: Any = None

    def __enter__(self) -> random.Random:
        """Point the draws at this stream; returns the object to draw from within the block."""
        self._outer = _source.current
        if self._everywhere:
            self._global_state = random.getstate()
            random.setstate(self.generator.getstate())
            _source.current = random
            return random  # type: ignore[return-value]  # the module has the methods of its generator
        _source.current = self.generator
        return self.generator

    def __exit__(self, *exc: object) -> None:
        """Point the draws back to where they went before."""
        if self._everywhere:
            self.generator.setstate(random.getstate())
            random.setstate(self._global_state)
        _source.current = self._outer
        self._outer = self._global_state = None
