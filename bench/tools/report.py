"""What a script ends with: tables, and JSON of the same shape for all scripts."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from bench.tools.figures import Figures
from bench.tools.script import ROOT, Script

__all__ = ["Report"]

PACKAGES = ("csle-cyborg", "gymnasium", "numba", "numpy", "ray", "rich", "scikit-learn", "scipy", "torch", "uvloop")


class Report:
    """Says when a measurement was made, of what and on what; made before it, finished after it."""

    def __init__(self, script: Script, arguments: Namespace) -> None:
        self._file: Path | None = arguments.json
        self._console = Console(width=None if sys.stdout.isatty() else 180, highlight=False)
        self._began = time.monotonic()
        commit = _git("rev-parse", "HEAD")
        self._head = {
            "what": script.summary,
            "command": shlex.join(["python", "-m", f"bench.{script.name}", *sys.argv[1:]]),
            "commit": commit,
            "dirty": None if commit is None else bool(_git("status", "--porcelain")),
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "packages": _packages(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }

    def finish(self, figures: Figures, title: str, details: Any = None) -> None:
        """Print the tables, and write the JSON where it was asked for.

        ``details``: what is no figure but worth keeping, such as curves, as plain values.
        """
        for table in figures.tables(title):
            self.print(table)
        self.write([figure.row() for figure in figures], figures.remarks, details)

    def print(self, what: RenderableType) -> None:
        """Print a table or a line on standard output, which is wide where it is no terminal."""
        self._console.print(what)

    def write(self, results: list[dict[str, Any]], remarks: dict[str, str], details: Any = None) -> None:
        """Write the JSON where it was asked for."""
        if self._file is not None:
            report = self._head | {
                "seconds": round(time.monotonic() - self._began, 1),
                "results": results,
                "remarks": remarks,
                "details": details,
            }
            self._file.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")


def _git(*arguments: str) -> str | None:
    """What git says of the project; None where it is no checkout."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu() -> str:
    """The model of the CPU."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _packages() -> dict[str, str]:
    """The versions of the packages that matter for speed, as far as they are installed."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
