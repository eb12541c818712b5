"""A run whose disk is full: it goes on, says what is missing, and can be resumed."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aiotrain import CheckpointError, Trainer
from aiotrain.runs.checkpoints import load_checkpoint
from resuming import RUN, WITHIN_S, config, events, resume, rows
from saved_run import SavedRun, newest, saved


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, bool], None]:
    """Makes the disk full for files in a folder, or gives it room again."""
    fsync, write = os.fsync, os.write

    def set_full(folder: Path, is_full: bool) -> None:
        def refuse(descriptor: int) -> None:
            if is_full and str(folder) in os.readlink(f"/proc/self/fd/{descriptor}"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def full_fsync(descriptor: int) -> None:
            refuse(descriptor)
            fsync(descriptor)

        def full_write(descriptor: int, data: bytes) -> int:
            refuse(descriptor)
            return write(descriptor, data)

        monkeypatch.setattr("os.fsync", full_fsync)
        monkeypatch.setattr("os.write", full_write)

    return set_full


def test_a_run_goes_on_while_the_disk_is_full(tmp_path: Path, full: Callable[[Path, bool], None]) -> None:
    """Rows that could not be written come later."""
    folder = tmp_path / "run"

    async def fill_up() -> Trainer:
        async with Trainer(config(folder, checkpoint_every=1)) as trainer:
            await anext(trainer)
            full(folder, True)
            await anext(trainer)
            await anext(trainer)
            assert load_checkpoint(folder).update == 1
            assert len(rows(folder)) == 1
            full(folder, False)
            async for _ in trainer:
                pass
        return trainer

    status = asyncio.run(asyncio.wait_for(fill_up(), WITHIN_S)).status()
    assert status.phase == "finished"
    row, checkpoint, *others = status.warnings
    assert row.startswith(f"{folder / 'updates.csv'} cannot be written to now")
    assert checkpoint.startswith(f"update 2 could not be saved in {folder}: No space left on device. The last")
    assert all("could not be saved" in each for each in others)
    assert load_checkpoint(folder).update == 6
    assert [row["update"] for row in rows(folder)] == ["1", "2", "3", "4", "5", "6"]
    assert [e["event"] for e in events(folder)].count("warning") == len(status.warnings)


def test_what_cannot_be_saved_at_the_end_is_an_error(tmp_path: Path, full: Callable[[Path, bool], None]) -> None:
    async def fill_up() -> None:
        async with Trainer(config(tmp_path / "run", checkpoint_every=1)) as trainer:
            trainers.append(trainer)
            await anext(trainer)
            full(tmp_path / "run", True)

    trainers: list[Trainer] = []
    with pytest.raises(CheckpointError, match=r"No space left on device. The last checkpoint is .*000001"):
        asyncio.run(asyncio.wait_for(fill_up(), WITHIN_S))
    status = trainers[0].status()
    assert status.phase == "failed"
    assert "No space left on device" in (status.first_error or "")


SMALL_DISK = """
set -e
mount -t tmpfs -o size=600k none disk
{python} {run} --env CartPole-v1 --workers 1 --episodes-per-update 5 --total-episodes 30 --checkpoint-every 1 \\
    --keep-checkpoints 9 --deterministic --device cpu --run-dir disk/run >said.txt 2>&1 || echo $? >code.txt
cp -r disk/run .
"""


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0,
    reason="no namespaces to mount a small disk in",
)
def test_a_small_disk(tmp_path: Path) -> None:
    """The run goes on to its end, says what is missing, and can be resumed where there is room."""
    (tmp_path / "disk").mkdir()
    script = SMALL_DISK.format(python=sys.executable, run=RUN)
    subprocess.run(["unshare", "-rm", "sh", "-c", script], cwd=tmp_path, timeout=WITHIN_S, check=True)
    said = (tmp_path / "said.txt").read_text()
    assert (tmp_path / "code.txt").read_text() == "1\n", said
    assert "could not be saved in disk/run: No space left on device. The last checkpoint is disk/run" in said
    assert "learned=30" in said
    assert "Traceback" not in said
    assert 1 <= load_checkpoint(tmp_path / "run").update < 6
    resume(tmp_path / "run")
    assert [int(row["episodes"]) for row in rows(tmp_path / "run")] == [5, 10, 15, 20, 25, 30]


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Makes the disk refuse to keep what was written, or gives it room again."""

    def set_full(is_full: bool) -> None:
        def fails(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("os.fsync", fails) if is_full else monkeypatch.undo()

    return set_full


def test_the_last_good_checkpoint_is_left_and_named(tmp_path: Path, unsynced: Callable[[bool], None]) -> None:
    folder = saved(tmp_path / "run")
    run = SavedRun(folder, folder)
    before = sorted((folder / "checkpoints").iterdir())
    unsynced(True)
    run.learn(1)
    run.save()
    assert sorted((folder / "checkpoints").iterdir()) == before
    (warning,) = run.warnings
    assert warning == (
        f"update 4 could not be saved in {folder}: No space left on device. The last checkpoint is {newest(folder)}"
    )
    run.folder.save(run.updates, 0.0, is_whole=True)
    with pytest.raises(CheckpointError, match=r"weights.safetensors could not be saved .*No space left on device"):
        run.folder.close()
    unsynced(False)
    assert load_checkpoint(folder).update == 3


def test_once_there_is_room_again_all_is_well(tmp_path: Path, unsynced: Callable[[bool], None]) -> None:
    folder = saved(tmp_path / "run")
    run = SavedRun(folder, folder)
    unsynced(True)
    run.learn(1)
    run.save()
    unsynced(False)
    run.folder.save(run.updates, 0.0, is_whole=True)
    run.folder.close()
    assert load_checkpoint(folder).update == 4
