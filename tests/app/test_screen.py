"""Output that is kept away from the frames."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aiotrain.app.console import DivertedOutput

DIVERTED = """
import os, sys
from pathlib import Path
from aiotrain.app.console import DivertedOutput
from aiotrain.app.console import screen
log = Path("run", "workers.log")
screen._LOG_BYTES = 20
output = DivertedOutput(log)
print("mine")
os.system("echo a child; echo its error >&2")
output.trim()
print(log.read_text().split("\\n"), os.isatty(output.terminal))
os.write(1, b"more")
output.trim()
print(log.read_text())
written = output.close()
print(written, os.path.exists(log.parent))
os.write(1, b"on standard output again")
print("on standard error again", file=sys.stderr)
"""


@pytest.mark.parametrize("old", [False, True])
def test_output_of_children_is_diverted_to_a_file_of_bounded_size(old: bool, tmp_path: Path) -> None:
    if old:
        (tmp_path / "run").mkdir()
    done = subprocess.run(
        [sys.executable, "-u", "-c", DIVERTED], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == [
        *("mine", "['a child', 'its error', ''] False", ""),
        *(f"False {old}", "on standard output again"),
    ]
    assert done.stderr == "on standard error again\n"


def test_output_is_diverted_to_no_link(tmp_path: Path) -> None:
    (tmp_path / "workers.log").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        DivertedOutput(tmp_path / "workers.log").close()
    assert not (tmp_path / "precious").exists()
