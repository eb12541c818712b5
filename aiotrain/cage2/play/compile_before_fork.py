"""Importing this compiles rollouts, or loads them from the cache. The forkserver does so once for all workers.

They share the compiled code, and what Python keeps about it, as pages that nobody writes to; a worker that compiled or
loaded it for itself would need some 40 MiB for that.
"""

import contextlib

from aiotrain.cage2.play.compiled_player import CompiledPlayer

with contextlib.suppress(Exception):  # the forkserver would end; the first worker tells what is wrong
    CompiledPlayer.compile()
