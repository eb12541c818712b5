"""Checkpoints as files: what they hold, what is kept, and what is refused. No process is started here."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file

from aiotrain import CheckpointError, Config
from aiotrain.runs.checkpoints import Checkpoints, load_checkpoint
from saved_run import SavedRun, assert_equal, closing, newest, saved


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with checkpoints after updates 1 and 3."""
    return saved(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


# ---------------------------------------------------------------------- contents


def test_everything_is_there_again(tmp_path: Path) -> None:
    with closing(SavedRun(tmp_path / "run")) as run:
        run.learn(3)
        run.save()
        shutil.copytree(tmp_path / "run", tmp_path / "again")
        with closing(SavedRun(tmp_path / "again", tmp_path / "again")) as resumed:
            assert resumed.warnings == []
            resumed.assert_goes_on_as(run)


def test_a_learner_that_has_learned_nothing_is_saved_too(tmp_path: Path) -> None:
    with closing(SavedRun(tmp_path / "run")) as run:
        run.save()
    with closing(SavedRun(tmp_path / "run", tmp_path / "run")) as resumed:
        assert_equal(resumed.state(), run.state())


def test_all_files_are_text_or_safetensors(whole: Path) -> None:
    for path in (path for path in whole.rglob("*") if path.is_file()):
        if path.suffix == ".safetensors":
            assert load_file(path)
        else:
            assert path.suffix in (".csv", ".json", ".jsonl")
            assert path.read_text()


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for update, mean_return in enumerate([1.0, 5.0, 3.0, math.nan, 4.0], start=1):
        checkpoints.save(update, {"update": update, "config": Config(env="CartPole-v1").resolved()}, mean_return)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["best.safetensors", "update-000004.safetensors", "update-000005.safetensors"]
    assert load_checkpoint(tmp_path / "checkpoints" / "best.safetensors").update == 2
    assert load_checkpoint(tmp_path).update == 5


def test_going_on_from_an_older_one_forgets_the_later(folder: Path) -> None:
    older = folder / "checkpoints" / "update-000001.safetensors"
    (folder / "checkpoints" / ".update-000004.safetensors.77").write_bytes(b"half")
    with closing(SavedRun(folder, older)) as run:
        assert run.batcher.learned_batches == 0
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["best.safetensors", "update-000001.safetensors"]
    assert (folder / "updates.csv").read_text().count("\n") == 2


# --------------------------------------------------------------------- refusals


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def truncate_header(path: Path) -> None:
    os.truncate(path, 100)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def change_settings(path: Path) -> None:
    data = path.read_bytes()
    assert data.count(b'\\"episodes\\": ') > 0
    path.write_bytes(data.replace(b'\\"seed\\": 0', b'\\"seed\\": 1', 1))


def change_weights(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def older_version(path: Path) -> None:
    save_file({}, path, {"format": "aiotrain checkpoint 1"})


def newer_version(path: Path) -> None:
    save_file({}, path, {"format": "aiotrain checkpoint 3"})


def weights(path: Path) -> None:
    save_file({"actor.0.weight": np.zeros(3)}, path)


def text(path: Path) -> None:
    path.write_text("once upon a time there was a run\n" * 50)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def deep(path: Path) -> None:
    path.write_bytes(save({}, {"format": "aiotrain checkpoint 2", "state": "[" * 100_000, "sha256": ""}))


def huge(path: Path) -> None:
    os.truncate(path, 5 << 30)  # a hole, which takes no room


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "cut off"),
        (truncate_header, "no safetensors file, or it was cut off"),
        (empty, "no safetensors file"),
        (append, "something added"),
        (change_settings, "checksum is wrong: it was damaged or changed"),
        (change_weights, "checksum is wrong"),
        (older_version, "it was written by aiotrain 0.1: go on with that version"),
        (newer_version, "'aiotrain checkpoint 3'; this version of aiotrain reads 'aiotrain checkpoint 2'"),
        (weights, "no checkpoint, perhaps weights alone"),
        (text, "no safetensors file"),
        (link, "no link"),
        (fifo, "no such file"),
        (deep, "checksum is wrong"),
        (huge, "larger than 4 GiB"),
    ],
)
def test_what_is_no_good_checkpoint_is_refused_and_the_one_before_offered(
    damage: Callable[[Path], None], reason: str, folder: Path
) -> None:
    damage(newest(folder))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    said = str(caught.value)
    assert said.startswith(f"{newest(folder)} cannot be read as a checkpoint: ")
    assert reason in said
    older = folder / "checkpoints" / "update-000001.safetensors"
    assert said.endswith(f"The one before it is good: resume {older}")
    with closing(SavedRun(folder, older)) as run:
        assert len(run.ledger.returns) == 1


def test_where_no_other_one_is_good_that_is_told(folder: Path) -> None:
    for path in (folder / "checkpoints").iterdir():
        truncate(path)
    with pytest.raises(CheckpointError, match=r"cut off .* No other one is good"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nothing", "there is no "),
        (".", "holds no checkpoint"),
        ("file", "in the folder checkpoints of its run"),
    ],
)
def test_what_is_no_run_is_refused(source: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(tmp_path / source)
