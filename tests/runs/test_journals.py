"""What a run leaves behind."""

from __future__ import annotations

import asyncio
import csv
import errno
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import safe_open

from aiotrain import Config, ConfigError, PPOConfig, Trainer, train
from aiotrain.runs.journals import Journals
from aiotrain.runs.tensor_files import write_whole
from aiotrain.training.reports import columns_of
from envs import Toy

COLUMNS = columns_of(("success",))
VALUES = {name: place + 1 / 3 for place, name in enumerate(COLUMNS)}


def small(folder: Path, **changes: object) -> Config:
    settings = {"workers": 1, "total_episodes": 20, "episodes_per_update": 10, "device": "cpu"}
    settings |= {"max_episode_steps": 20, **changes}  # more than Toy plays: it leaves the run nothing to warn of
    return Config(env=Toy, run_dir=str(folder), ppo=PPOConfig(hidden_sizes=(8,)), **settings)  # type: ignore[arg-type]


def test_run_leaves_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    result = asyncio.run(train(small(folder)))
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints",
        "config.json",
        "events.jsonl",
        "updates.csv",
        "weights.safetensors",
    ]
    rows = list(csv.DictReader((folder / "updates.csv").read_text().splitlines()))
    assert [row["episodes"] for row in rows] == ["10", "20"]
    assert list(rows[0]) == [*columns_of(()), "curriculum"]
    assert json.loads((folder / "config.json").read_text())["total_episodes"] == 20
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "first_episode", "end"]
    with safe_open(folder / "weights.safetensors", "numpy") as file:
        shape = json.loads(file.metadata()["policy"])
        assert shape["hidden"] == [8]
        np.testing.assert_array_equal(file.get_tensor("actor.0.weight").T.ravel(), result.weights[6 : 6 + 3 * 8])


def test_cancelled_run_is_saved_and_says_so(tmp_path: Path) -> None:
    async def cancelled() -> None:
        async with Trainer(small(tmp_path / "run", total_episodes=10**6)) as trainer:
            async for _ in trainer:
                raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "first_episode", "interrupted", "end"]
    assert (tmp_path / "run" / "weights.safetensors").exists()


def test_no_run_is_written_over(tmp_path: Path) -> None:
    Journals(tmp_path, {}, COLUMNS).close()
    with pytest.raises(ConfigError, match="holds a run already"):
        Journals(tmp_path, {}, COLUMNS)


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="run-dir"):
        Journals(tmp_path / "file" / "run", {}, COLUMNS)


@pytest.mark.parametrize("file", ["config.json", "updates.csv"])
def test_full_disk_is_told_with_the_folder_which_can_be_tried_again(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(descriptor: int) -> None:
        if file in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr("os.fsync", fails)
        with pytest.raises(ConfigError) as caught:
            Journals(tmp_path, {}, COLUMNS)
    assert str(caught.value) == f"run-dir: {tmp_path} cannot be written to: No space left on device"
    Journals(tmp_path, {}, COLUMNS).close()


def test_rows_are_on_disk_at_once_and_short(tmp_path: Path) -> None:
    journals = Journals(tmp_path, {}, COLUMNS)
    journals.update(VALUES, "")
    (row,) = csv.DictReader((tmp_path / "updates.csv").read_text().splitlines())
    assert row["update"] == "0.333333"
    journals.close()
    journals.close()


def test_missing_tensorboard_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"aiotrain\[tensorboard\]"):
        Journals(tmp_path / "run", {}, COLUMNS, tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_tensorboard_that_cannot_write_ends_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, folder: str, purge_step: int | None) -> None:
            """As torch's SummaryWriter."""

        def add_scalar(self, name: str, value: float, step: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # what its thread ended by

        def close(self) -> None:
            self.add_scalar("", 0, 0)

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Full))
    warnings: list[str] = []
    journals = Journals(tmp_path, {}, COLUMNS, tensorboard=True, warn=warnings.append)
    journals.update(VALUES, "")
    journals.update(VALUES, "")
    journals.close()
    assert warnings == [f"the TensorBoard files in {tmp_path} end here: No space left on device"]
    assert len((tmp_path / "updates.csv").read_text().splitlines()) == 3


def test_a_metric_that_no_episode_told_leaves_an_empty_cell(tmp_path: Path) -> None:
    journals = Journals(tmp_path, {}, COLUMNS)
    journals.update({**VALUES, "success": None, "success_count": 0}, "level 3")
    journals.close()
    (row,) = csv.DictReader((tmp_path / "updates.csv").read_text().splitlines())
    assert (row["success"], row["success_count"], row["curriculum"]) == ("", "0", "level 3")


def test_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    write_whole(target, b"first")

    def fails(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        write_whole(target, b"second")
    assert target.read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
