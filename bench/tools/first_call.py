"""What compiled code costs a new process: imports, and the first call with an empty and with a filled cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from bench.tools.figures import Figures
from bench.tools.progress import say

__all__ = ["note_first_call"]


def note_first_call(code: str, figures: Figures) -> None:
    """Run ``code`` in two new processes. It prints the seconds of its imports, and of the first call."""
    with tempfile.TemporaryDirectory(prefix="bench-") as cache:
        (_, cold_s), (import_s, cached_s) = (
            map(
                float,
                subprocess.run(
                    [sys.executable, "-c", code],
                    env=os.environ | {"NUMBA_CACHE_DIR": cache},
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout.split(),
            )
            for _ in range(2)
        )
    say(f"first call of a process: {cold_s:.1f} s, {cached_s:.2f} s from the cache")
    for name, seconds in (("imports", import_s), ("empty cache", cold_s), ("filled cache", cached_s)):
        figures.note("first call of a process", name, seconds, "s")
