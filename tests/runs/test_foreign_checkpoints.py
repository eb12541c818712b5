"""Checkpoints from strangers: whatever is in them, they are refused by an error of this package, or they work."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotrain import AiotrainError, CheckpointError
from aiotrain.runs.checkpoints import load_checkpoint
from saved_run import VALUES, SavedRun, closing, forge, newest, put_anywhere, saved, try_to_resume


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with checkpoints after updates 1 and 3."""
    return saved(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_a_forger_that_computes_checksums_is_read_too(folder: Path) -> None:
    """Else the tests below test nothing."""
    forge(folder, lambda state: state["ledger"].update(episodes=77))
    with closing(SavedRun(folder, folder)) as run:
        assert run.ledger.episodes == 77


def test_a_fault_of_our_own_is_no_fault_of_the_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_state_dict(self: Any, state: Any) -> None:
        self.no_such_attribute()

    monkeypatch.setattr("aiotrain.training.batcher.Batcher.load_state_dict", load_state_dict)
    with pytest.raises(AttributeError, match="no_such_attribute"):
        SavedRun(folder, folder)


@pytest.mark.parametrize("path", ["../../x", "/etc/passwd", "~/x"])
def test_no_path_leads_out_of_the_folder(path: str, folder: Path) -> None:
    forge(folder, lambda state: state["config"].update(run_dir=path))
    assert load_checkpoint(folder).config.run_dir == str(folder)
    forge(folder, lambda state: state["lines"].update({path: 1}))
    with pytest.raises(CheckpointError, match="does not fit"), closing(SavedRun(folder, folder)):
        pytest.fail("it was resumed")


@pytest.mark.parametrize("name", ["updates.csv", "events.jsonl"])
def test_links_in_the_folder_are_not_followed(name: str, folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n" * 9)
    (folder / name).unlink()
    (folder / name).symlink_to(victim)
    with pytest.raises(AiotrainError, match="cannot be written to"), closing(SavedRun(folder, folder)):
        pytest.fail("it is written to")
    assert victim.read_text() == "precious\n" * 9


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state.pop("batcher"), "'batcher' is missing"),
        (lambda state: state["batcher"].update(batches=-1), "-1 where a count belongs"),
        (lambda state: state["batcher"].update(batches=1e300), "where a count belongs"),
        (lambda state: state["batcher"].update(again=[1]), "what is left to be played"),
        (lambda state: state["batcher"].update(expected_steps=math.nan), "what is left to be played"),
        (lambda state: state["environment"].update(inputs=4), "environment is another than it was then, in inputs"),
        (lambda state: state["learner"]["network"].pop("actor.0.bias"), "actor.0.bias"),
        (lambda state: state["learner"]["optimizer"].update(exp_avg=np.zeros(3)), "shape of the parameters"),
        (lambda state: state["learner"]["return_moments"].update(mean=np.zeros(3)), "moments of shape"),
        (lambda state: state["learner"].update(generator=np.zeros(3, np.uint8)), "does not fit"),
        (lambda state: state.update(learner=[]), "learner is .*, where a mapping belongs"),
        (lambda state: state["curriculum"].update(level=7), "no mean return for each level"),
        (lambda state: state["curriculum"].pop("level"), "'level' is missing"),
        (lambda state: state["ledger"].update(last={}), "other metrics"),
        (lambda state: state["ledger"].update(elapsed_s=math.nan), "no time that a run takes"),
        (lambda state: state["lines"].update({"notes.txt": 1}), "no file that a run writes line by line"),
        (lambda state: state["ledger"].update(last=[1]), "does not fit"),
    ],
)
def test_states_that_do_not_fit_are_refused(
    change: Callable[[dict[str, Any]], None], reason: str, folder: Path
) -> None:
    forge(folder, change)
    with pytest.raises(CheckpointError, match=reason) as caught, closing(SavedRun(folder, folder)):
        pytest.fail("it was resumed")
    assert str(caught.value).startswith(str(newest(folder)))


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(surprise=1),
        lambda config: config.update(workers="many"),
        lambda config: config.update(ppo=[]),
        lambda config: config["ppo"].update(gamma=7),
        lambda config: config.update(env={"__reduce__": "os.system"}),
        lambda config: config.pop("env"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: Callable[[dict[str, Any]], None], folder: Path) -> None:
    forge(folder, lambda state: change(state["config"]))
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_checkpoint(folder)


@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bytes(whole: Path, tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[float, int]]) -> None:
    folder = shutil.copytree(whole, tmp_path_factory.mktemp("flipped") / "run")
    data = bytearray(newest(folder).read_bytes())
    for place, mask in flips:
        data[int(place * len(data))] ^= mask
    newest(folder).write_bytes(data)
    try_to_resume(folder)


@given(st.integers(0, 4000), st.integers(1, 255))
def test_flipped_bytes_in_the_header(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, place: int, mask: int
) -> None:
    folder = shutil.copytree(whole, tmp_path_factory.mktemp("flipped") / "run")
    data = bytearray(newest(folder).read_bytes())
    data[place] ^= mask
    newest(folder).write_bytes(data)
    try_to_resume(folder)


@given(st.floats(0, 1))
def test_truncated_anywhere(whole: Path, tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    folder = shutil.copytree(whole, tmp_path_factory.mktemp("truncated") / "run")
    os.truncate(newest(folder), int(share * newest(folder).stat().st_size))
    if share < 1:
        with pytest.raises(CheckpointError):
            load_checkpoint(newest(folder))


@given(st.integers(0, 10**6), VALUES)
def test_any_value_in_place_of_any_other(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, value: Any
) -> None:
    folder = shutil.copytree(whole, tmp_path_factory.mktemp("changed") / "run")
    with contextlib.suppress(CheckpointError):
        forge(folder, lambda state: put_anywhere(state, value, Random(seed)))
    try_to_resume(folder)
