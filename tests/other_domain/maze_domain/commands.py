"""Commands of the maze."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


def corridor(arguments: Sequence[str]) -> int:
    """Print the corridor of a run."""
    settings = json.loads((Path(arguments[0]) / "config.json").read_text())["env"]
    print("G" + "·" * (settings["length"] - 1))
    return 0


def replay(arguments: Sequence[str]) -> int:
    """Take the place of the general replay for runs in the maze."""
    print(f"a walk of {Path(arguments[0]).name}")
    return 3
