"""Checkpoints as files: what they hold, what is kept, and what is refused. No process is started here."""

from __future__ import annotations

import contextlib
import copy
import errno
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from aiotrain.cage2.search.policies import WorkflowPolicies
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save, save_file

from aiotrain import AiotrainError, CheckpointError, Config, PPOConfig
from aiotrain.cage2.search.workflow_search import WorkflowSearch
from aiotrain.config import SearchConfig
from aiotrain.learn.ppo import Learner
from aiotrain.play.policy import PolicyShape
from aiotrain.runs.checkpoints import Checkpoints, load_checkpoint
from aiotrain.runs.folder import RunFolder
from aiotrain.training.batcher import Batcher
from aiotrain.training.reports import Ledger
from making import Rounds, judged, spec_of, trajectories

SPEC = spec_of("box", "discrete")
SHAPE = PolicyShape.of(SPEC, (8,))
ACCOUNT = dict.fromkeys(("played", "waiting", "discarded", "lost", "given_up"), 0)
SEARCH = SearchConfig(parallel_workflows=1, inherit="nearest", max_episodes_per_workflow=10)


class Run:
    """The parts of a run that have a state, as the trainer puts them together, in a folder."""

    def __init__(self, folder: Path, checkpoint: Path | None = None) -> None:
        self.warnings: list[str] = []
        self.config = Config(
            env="CartPole-v1", run_dir=str(folder), ppo=PPOConfig(hidden_sizes=(8,)), workflow_search=SEARCH
        )
        self.learner = Learner(SPEC, SHAPE, self.config.ppo, seed=1, device=torch.device("cpu"))
        self.batcher = Batcher(
            episodes_per_update=10,
            steps_per_update=None,
            max_policy_lag=1,
            total_episodes=1000,
            total_steps=None,
            slot_steps=10,
        )
        self.ledger = Ledger()
        self.search = WorkflowSearch(SEARCH, 1, 10)
        self.policies = WorkflowPolicies(
            SEARCH, self.search, self.learner, chosen=lambda *_: None, ended=lambda _: None
        )
        self.folder = RunFolder(
            self.config,
            SPEC,
            SHAPE,
            learner=self.learner,
            batcher=self.batcher,
            ledger=self.ledger,
            workflows=self.policies,
            warn=self.warnings.append,
        )
        loaded = None if checkpoint is None else load_checkpoint(checkpoint)
        if loaded is not None:
            self.folder.restore(loaded)
        self.folder.open(loaded)

    def learn(self, updates: int = 3) -> None:
        """Learn from episodes that were never played, with an order for each update."""
        rounds = Rounds(self.search)
        for number in range(updates):
            self.policies.choose()
            self.search.begin()
            batch = trajectories(SPEC, [9, 4, 7], seed=number)
            metrics = self.learner.update(batch, 0.1) | ACCOUNT
            rounds.learn(judged(0.5, value=-10.0 * number))
            self.policies.end(rounds.over)
            rounds.over = []
            self.folder.update(self.ledger.add(batch, number + 1, metrics, collect_s=0.1, learn_s=0.2), ["an order"])
        self.policies.choose()
        self.search.begin()
        self.search.plan(updates)

    def save(self) -> None:
        self.folder.save_checkpoint(self.folder.state_dict())

    def state(self) -> dict[str, Any]:
        """Everything but the time, and the lines of files."""
        state = self.folder.state_dict() | {"learner": self.learner.state_dict(), "lines": None}
        return state | {"ledger": {k: v for k, v in state["ledger"].items() if k not in ("elapsed_s", "trained_s")}}


@contextlib.contextmanager
def closing(run: Run) -> Any:
    try:
        yield run
    finally:
        with contextlib.suppress(CheckpointError):
            run.folder.close()


def assert_equal(one: Any, other: Any) -> None:
    np.testing.assert_equal(json_like(one), json_like(other))


def json_like(value: Any) -> Any:
    """``value`` with lists in place of tuples; arrays keep their dtype."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, dict):
        return {str(key): json_like(each) for key, each in value.items()}
    return [json_like(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with checkpoints after updates 1 and 3."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with closing(Run(folder)) as run:
        run.learn(1)
        run.save()
        run.learn(2)
        run.save()
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def newest(folder: Path) -> Path:
    return folder / "checkpoints" / "update-000003.safetensors"


# ---------------------------------------------------------------------- contents


def test_everything_is_there_again(whole: Path, tmp_path: Path) -> None:
    with closing(Run(tmp_path / "run")) as run:
        run.learn(3)
        run.save()
        with contextlib.suppress(CheckpointError):
            run.folder.close()
        with closing(Run(tmp_path / "run", tmp_path / "run")) as resumed:
            assert_equal(resumed.state(), run.state())
            assert resumed.warnings == []
            assert resumed.ledger.last == run.ledger.last
            status, status_before = resumed.search.status(), run.search.status()
            assert status is not None
            assert status_before is not None
            assert str(status.running) == str(status_before.running)
            assert [each.mean for each in status.best] == [each.mean for each in status_before.best]
            batch = trajectories(SPEC, [5, 6], seed=9)
            assert resumed.learner.update(batch, 0.5) == run.learner.update(batch, 0.5)
            np.testing.assert_array_equal(resumed.learner.parameters(), run.learner.parameters())
            np.testing.assert_equal(resumed.search.search.propose(), run.search.search.propose())


def test_a_learner_that_has_learned_nothing_is_saved_too(tmp_path: Path) -> None:
    with closing(Run(tmp_path / "run")) as run:
        run.save()
    with closing(Run(tmp_path / "run", tmp_path / "run")) as resumed:
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
        checkpoints.save(update, {"update": update, "config": Config().resolved()}, mean_return)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["best.safetensors", "update-000004.safetensors", "update-000005.safetensors"]
    assert load_checkpoint(tmp_path / "checkpoints" / "best.safetensors").update == 2
    assert load_checkpoint(tmp_path).update == 5


def test_going_on_from_an_older_one_forgets_the_later(folder: Path) -> None:
    older = folder / "checkpoints" / "update-000001.safetensors"
    (folder / "checkpoints" / ".update-000004.safetensors.77").write_bytes(b"half")
    with closing(Run(folder, older)) as run:
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


def forge(path: Path) -> None:
    data = path.read_bytes()
    assert data.count(b'\\"episodes\\": ') > 0
    path.write_bytes(data.replace(b'\\"seed\\": 0', b'\\"seed\\": 1', 1))


def forge_weights(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def other_version(path: Path) -> None:
    save_file({}, path, {"format": "aiotrain checkpoint 2"})


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
    path.write_bytes(save({}, {"format": "aiotrain checkpoint 1", "state": "[" * 100_000, "sha256": ""}))


def huge(path: Path) -> None:
    os.truncate(path, 5 << 30)  # a hole, which takes no room


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "cut off"),
        (truncate_header, "cut off in its header"),
        (empty, "no safetensors file"),
        (append, "something added"),
        (forge, "checksum is wrong: it was damaged or changed"),
        (forge_weights, "checksum is wrong"),
        (other_version, "'aiotrain checkpoint 2'; this version of aiotrain reads 'aiotrain checkpoint 1'"),
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
    with closing(Run(folder, older)) as run:
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


# ------------------------------------------------------------------- foreign runs


def resign(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the newest checkpoint's state, as somebody would who can compute checksums."""
    state = copy.deepcopy(dict(load_checkpoint(folder).state))
    change(state)
    Checkpoints(folder, keep=9).save(3, state, math.nan)


def test_a_forger_that_computes_checksums_is_read_too(folder: Path) -> None:
    """Else the tests below test nothing."""
    resign(folder, lambda state: state["ledger"].update(episodes=77))
    with closing(Run(folder, folder)) as run:
        assert run.ledger.episodes == 77


@pytest.mark.parametrize("path", ["../../x", "/etc/passwd", "~/x"])
def test_no_path_leads_out_of_the_folder(path: str, folder: Path) -> None:
    resign(folder, lambda state: state["config"].update(run_dir=path))
    assert load_checkpoint(folder).config.run_dir == str(folder)
    resign(folder, lambda state: state["workflows"]["policies"].update({path: {}}))
    with pytest.raises(CheckpointError, match="does not fit"), closing(Run(folder, folder)):
        pytest.fail("it was resumed")


@pytest.mark.parametrize("name", ["updates.csv", "events.jsonl"])
def test_links_in_the_folder_are_not_followed(name: str, folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n" * 9)
    (folder / name).unlink()
    (folder / name).symlink_to(victim)
    with pytest.raises(AiotrainError, match="cannot be written to"), closing(Run(folder, folder)):
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
        (lambda state: state["ledger"].update(last={}), "other metrics"),
        (lambda state: state["ledger"].update(elapsed_s=math.nan), "no time that a run takes"),
        (lambda state: state["lines"].pop("events.jsonl"), "'events.jsonl' is missing"),
        (lambda state: state["workflows"]["policies"].clear(), "the policy of .* is missing"),
        (lambda state: state["workflows"]["running"].extend(state["workflows"]["running"]), "orders in training"),
        (lambda state: state["workflows"]["search"]["observations"][0].update(value=math.inf), "has no return"),
    ],
)
def test_states_that_do_not_fit_are_refused(
    change: Callable[[dict[str, Any]], None], reason: str, folder: Path
) -> None:
    resign(folder, change)
    with pytest.raises(CheckpointError, match=reason) as caught, closing(Run(folder, folder)):
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
    ],
)
def test_settings_that_cannot_be_are_refused(change: Callable[[dict[str, Any]], None], folder: Path) -> None:
    resign(folder, lambda state: change(state["config"]))
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_checkpoint(folder)


# ------------------------------------------------------------------------- fuzzing


def try_to_resume(folder: Path) -> None:
    """It may be refused by an error of this package, or work; nothing else may come of it."""
    with contextlib.suppress(CheckpointError), closing(Run(folder, newest(folder))) as run:
        run.batcher.wanted()
        run.search.status()
        run.learner.update(trajectories(SPEC, [5, 6]), 0.5)


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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)
ARRAYS = st.sampled_from([np.zeros(()), np.zeros(3), np.ones((2, 2), np.float32), np.zeros(0, np.int64)])


@given(st.integers(0, 10**6), JSON | ARRAYS)
def test_any_value_in_place_of_any_other(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, value: Any
) -> None:
    folder = shutil.copytree(whole, tmp_path_factory.mktemp("changed") / "run")
    random = Random(seed)

    def change(state: Any) -> None:
        keys: list[Any] = list(state) if isinstance(state, dict) else list(range(len(state)))
        key = random.choice(keys)
        inner = state[key]
        if isinstance(inner, dict | list) and inner and random.random() < 0.9:
            change(inner)
        else:
            state[key] = value

    with contextlib.suppress(CheckpointError):
        resign(folder, change)
    try_to_resume(folder)


# ------------------------------------------------------------------------ full disk


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Makes the disk full, or gives it room again."""

    def set_full(is_full: bool) -> None:
        def fails(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("os.fsync", fails) if is_full else monkeypatch.undo()

    return set_full


def test_full_disk_leaves_the_last_good_checkpoint_and_says_so(folder: Path, full: Callable[[bool], None]) -> None:
    run = Run(folder, folder)
    before = sorted((folder / "checkpoints").iterdir())
    full(True)
    run.learn(1)
    run.save()
    assert sorted((folder / "checkpoints").iterdir()) == before
    (warning,) = run.warnings
    assert warning == (
        f"update 4 could not be saved in {folder}: No space left on device. The last checkpoint is {newest(folder)}"
    )
    run.folder.save(is_whole=True)
    with pytest.raises(CheckpointError, match=r"the weights could not be saved .*No space left on device"):
        run.folder.close()
    full(False)
    assert load_checkpoint(folder).update == 3


def test_once_there_is_room_again_all_is_well(folder: Path, full: Callable[[bool], None]) -> None:
    run = Run(folder, folder)
    full(True)
    run.learn(1)
    run.save()
    full(False)
    run.folder.save(is_whole=True)
    run.folder.close()
    assert load_checkpoint(folder).update == 4
