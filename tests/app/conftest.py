"""A folder to start the program in, what starts it there, and a second domain."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import RUN, Start, left_of

from aiotrain.domains import domains

HERE = Path(__file__).parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder to start in, with a module of environments."""
    folder = tmp_path / "here"
    folder.mkdir()
    shutil.copy(HERE / "tiny_envs.py", folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return folder


@pytest.fixture
def maze(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The id of a domain that is installed, in this process and in those that it starts: tests/other_domain."""
    announcement = tmp_path / "site" / "maze-1.0.dist-info"
    announcement.mkdir(parents=True)
    (announcement / "METADATA").write_text("Metadata-Version: 2.1\nName: maze\nVersion: 1.0\n")
    (announcement / "entry_points.txt").write_text("[aiotrain.domains]\nmaze = maze_domain.domain:Maze\n")
    for path in (HERE.parent / "other_domain", announcement.parent):
        monkeypatch.syspath_prepend(path)
        monkeypatch.setenv("PYTHONPATH", str(path), prepend=os.pathsep)
    domains.cache_clear()
    yield "maze/Corridor-v0"
    domains.cache_clear()


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts run.py with flags in `folder`. Afterwards its segments must be gone, and its processes with them."""
    started: list[subprocess.Popen[str]] = []

    def run(
        *flags: str, stdin: int | None = None, stdout: int = subprocess.PIPE, term: str = "dumb", columns: int = 80
    ) -> subprocess.Popen[str]:
        environ = {**os.environ, "COLUMNS": str(columns), "LINES": "24", "TERM": term, "PYTHONUTF8": "1"}
        environ.pop("PYTHONBREAKPOINT", None)  # which Ray sets in a process that has used it
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
