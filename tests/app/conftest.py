"""A folder to start the program in, and what starts it there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import RUN, Start, left_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder to start in, with a module of environments."""
    shutil.copy(Path(__file__).with_name("tiny_envs.py"), tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts run.py with flags in `folder`. Afterwards its segments must be gone, and its processes with them."""
    started: list[subprocess.Popen[str]] = []

    def run(
        *flags: str, stdin: int | None = None, stdout: int = subprocess.PIPE, term: str = "dumb"
    ) -> subprocess.Popen[str]:
        environ = {**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": term, "PYTHONUTF8": "1"}
        started.append(
            subprocess.Popen(
                [sys.executable, str(RUN), *flags],
                cwd=folder,
                env=environ,
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield run
    for process in started:
        ended = process.poll() is not None
        if not ended:
            process.kill()
        process.communicate()
        assert ended, "the command was still running"
        assert not list(Path("/dev/shm").glob(f"aiotrain-{process.pid}-*")), "shared memory was left behind"
        assert not left_of(process.pid), "processes were left behind"
