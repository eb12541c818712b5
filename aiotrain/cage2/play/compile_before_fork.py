"""Compiles rollouts when it is imported, or loads them from the cache. The forkserver imports it once for all workers.

Workers then share the pages of the compiled code and of Python's data about it. A worker that compiled or loaded the
code itself would need some 40 MiB for it.
"""

import contextlib

from aiotrain.cage2.play.compiled_player import CompiledPlayer

with contextlib.suppress(Exception):  # an error would end the forkserver; the first worker reports it
    CompiledPlayer.compile()
