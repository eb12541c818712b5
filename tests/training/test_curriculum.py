"""Curricula of a user's own: what they are asked and told, how they are named, saved and restored."""

from __future__ import annotations

import asyncio
import csv
import functools
import json
from pathlib import Path
from typing import Any

import curricula
import numpy as np
import pytest
from curricula import Broken, Empty, Noting, Pausing, Planning, Raising, Recording, Reusing, Schooling
from safetensors.numpy import load_file
from small_runs import WITHIN_S, config, run, updates_of

from aiotrain import CheckpointError, Config, ConfigError, CurriculumError, Trainer, Update, train
from envs import Toy, toy


def paid(folder: Path | None = None, **changes: Any) -> Config:
    settings = {"curriculum": "curricula:Raising", "max_policy_lag": 0, "max_episode_steps": 20, **changes}
    return config("envs:Paid", run_dir=None if folder is None else str(folder), **settings)


@pytest.mark.parametrize(
    "curriculum", [Raising, "curricula:Raising", functools.partial(Raising)], ids=["class", "name", "callable"]
)
@pytest.mark.parametrize("collector", ["shared_memory", "sequential", "process_per_episode"])
def test_options_reach_the_resets_and_headers_come_back_with_their_parts(curriculum: Any, collector: str) -> None:
    updates, _ = run(updates_of(paid(curriculum=curriculum, collector=collector)))
    for update in updates:
        unpaid, raised = update.returns[:5], update.returns[5:]
        assert set(unpaid) == {0.0}
        assert {value % update.update for value in raised} == {0.0}, "paid another time than planned"
        assert min(raised) >= 3 * update.update


def test_the_trainer_goes_through_the_methods_in_their_order() -> None:
    run(train(config(curriculum=Recording, max_policy_lag=0, total_episodes=20)))
    assert Recording.calls == [
        *[("advance", True), "published", ("plan", 0)],
        *[("learned", 0, 10), ("advance", True), "published", ("plan", 1)],
        *[("learned", 1, 10), ("advance", False), "published"],
        ("end", "budget"),
    ]


def test_the_end_of_a_run_that_is_left_early_is_told_as_such() -> None:
    async def leave() -> None:
        async with Trainer(config(curriculum=Recording)) as trainer:
            await anext(trainer)

    run(leave())
    assert Recording.calls[-1] == ("end", "stopped")
    assert Recording.calls.count(("end", "stopped")) == 1


def test_with_lag_the_next_batch_is_planned_before_the_first_is_learned() -> None:
    run(train(config(curriculum=Recording, max_policy_lag=1)))
    assert Recording.calls[:4] == [("advance", True), "published", ("plan", 0), ("plan", 1)]


def test_label_and_status_are_told(tmp_path: Path) -> None:
    async def statuses() -> list[Any]:
        async with Trainer(paid(tmp_path / "run")) as trainer:
            return [trainer.status().curriculum async for _ in trainer]

    assert run(statuses()) == [2.0, 3.0, 4.0]
    with (tmp_path / "run" / "updates.csv").open(newline="") as file:
        assert [row["curriculum"] for row in csv.DictReader(file)] == ["batch 0", "batch 1", "batch 2"]


def test_what_it_notes_is_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = run(train(config(curriculum=Noting, run_dir=str(folder))))
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [each["batch"] for each in events if each["event"] == "level"] == [0, 1, 2]
    assert (folder / "levels.csv").read_text().split() == ["batch,episodes", "0,10", "1,10", "2,10"]
    saved = [load_file(folder / f"weights-{batch}.safetensors")["actor.0.weight"] for batch in range(3)]
    assert not np.array_equal(saved[0], saved[1])
    np.testing.assert_array_equal(saved[2], load_file(folder / "weights.safetensors")["actor.0.weight"])
    assert result.updates == 3


def test_without_a_folder_it_may_note_all_the_same() -> None:
    assert run(train(config(curriculum=Noting))).updates == 3


# --------------------------------------------------------------------- planning


def test_no_plan_means_to_wait_for_the_next_update() -> None:
    updates, result = run(updates_of(config(curriculum=Pausing, max_policy_lag=2)))
    assert (result.episodes, [update.policy_lag for update in updates]) == (30, [0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("planned", "words"),
    [
        (None, "it plans no batch, and none is under way after which it could be asked again"),
        ([], r"Planning.plan\(0\) returned \[\]; return a list of one or more mappings"),
        ({"worth": 1.0}, r"Planning.plan\(0\) returned {'worth': 1.0}; return a list"),
        ([1.0], r"Planning.plan\(0\) returned \[1.0\]; return a list"),
        (5, r"Planning.plan\(0\) returned 5; return a list"),
        ([{}] * 11, r"Planning.plan\(0\) returned 11 options for a batch of 10 episodes, so that some would never"),
    ],
    ids=str,
)
def test_what_is_no_plan_ends_the_run_with_a_message(planned: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Planning, "planned", planned)
    with pytest.raises(ConfigError, match=f"^curriculum: {words}"):
        run(train(config(curriculum=Planning)))


def test_options_that_change_later_do_not_change_what_was_planned() -> None:
    updates, _ = run(updates_of(paid(curriculum=Reusing, max_policy_lag=1)))
    assert set(updates[0].returns) == {0.0}, "batch 0 was reset with the options of batch 1"
    assert min(updates[1].returns) > 0


@pytest.mark.parametrize("where", ["plan", "learned", "advance", "published", "label", "end", "state_dict"])
def test_an_error_in_a_curriculum_ends_the_run(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Broken, "where", where)
    with pytest.raises(
        CurriculumError, match=f"^curriculum: Broken.{where} raised ZeroDivisionError: in {where}$"
    ) as caught:
        run(train(config(curriculum=Broken, run_dir=str(tmp_path / "run"))))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "end"


# ----------------------------------------------------------------------- naming


@pytest.mark.parametrize(
    ("curriculum", "words"),
    [
        ("nowhere:Harder", "nowhere:Harder cannot be imported (No module named 'nowhere'); name it as module:Class"),
        ("curricula:Harder", "curricula:Harder cannot be imported (module 'curricula' has no attribute 'Harder')"),
        ("Harder", "Harder cannot be imported"),
        ("curricula", "curricula cannot be imported"),
    ],
)
def test_a_name_that_cannot_be_imported_is_refused_before_anything_starts(curriculum: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Trainer(config(curriculum=curriculum))
    assert str(caught.value).startswith(f"curriculum: {words}")


@pytest.mark.parametrize(
    ("curriculum", "words"),
    [
        ("curricula:not_callable", "curricula:not_callable gives 5"),
        ("curricula:not_a_curriculum", "curricula:not_a_curriculum gives 'level 1'"),
        (Toy, "gives <envs.Toy"),
    ],
    ids=str,
)
def test_what_is_no_curriculum_is_refused(curriculum: Any, words: str) -> None:
    if curriculum is Toy:
        curriculum = lambda run: Toy()  # noqa: E731
    with pytest.raises(ConfigError, match=f"{words}.*derive it from aiotrain.Curriculum"):
        run(train(config(curriculum=curriculum)))


def test_a_curriculum_of_a_domain_is_used_whatever_its_truth_value() -> None:
    async def status() -> Any:
        async with Trainer(config(Schooling(curriculum_class=Empty))) as trainer:
            return trainer.status().curriculum

    assert run(status()) == "empty"


def test_what_is_no_curriculum_of_a_domain_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"curriculum: tests/Schooling-v0 gives <envs.Toy.*derive it from aiotrain.Curr"
    ):
        run(train(config(Schooling(curriculum_class=Toy))))


def test_neither_name_nor_class_is_of_a_wrong_type() -> None:
    with pytest.raises(ConfigError, match="curriculum must be of type str"):
        config(curriculum=5)


# ------------------------------------------------------------------ checkpoints


def resumed(folder: Path, **changes: Any) -> tuple[list[Update], Any]:
    async def go_on() -> tuple[list[Update], Any]:
        async with Trainer.resume(folder, **changes) as trainer:
            return [update async for update in trainer], trainer.result()

    return asyncio.run(asyncio.wait_for(go_on(), WITHIN_S))


def some(settings: Config, updates: int) -> None:
    async def begin() -> None:
        async with Trainer(settings) as trainer:
            for _ in range(updates):
                await anext(trainer)

    run(begin())


@pytest.mark.parametrize("updates", [1, 2])
def test_a_resumed_run_goes_on_with_the_curriculum_as_it_was(updates: int, tmp_path: Path) -> None:
    settings = paid(tmp_path / "run", total_episodes=60)
    some(settings, updates)
    after, result = resumed(tmp_path / "run")
    whole, expected = run(updates_of(paid(total_episodes=60)))
    assert [update.returns for update in after] == [update.returns for update in whole[updates:]]
    np.testing.assert_array_equal(result.weights, expected.weights)


def test_another_curriculum_is_another_run(tmp_path: Path) -> None:
    some(paid(tmp_path / "run"), 1)
    with pytest.raises(ConfigError, match="curriculum was curricula:Raising, and is now None"):
        Trainer.resume(tmp_path / "run", curriculum=None)


def test_a_class_is_restored_by_its_name_where_it_has_one(tmp_path: Path) -> None:
    some(paid(tmp_path / "run", curriculum=Raising), 1)
    after, _ = resumed(tmp_path / "run")
    assert [update.update for update in after] == [2, 3]


def test_a_curriculum_without_a_name_is_given_again(tmp_path: Path) -> None:
    def unnamed(run: Any) -> Raising:
        return Raising(run)

    some(paid(tmp_path / "run", curriculum=unnamed), 1)
    with pytest.raises(ConfigError, match=r"curriculum: .*unnamed cannot be imported .*; name it as module:Class"):
        Trainer.resume(tmp_path / "run")
    after, _ = resumed(tmp_path / "run", curriculum=unnamed)
    assert [update.update for update in after] == [2, 3]


@pytest.mark.parametrize("state", [{}, {"worth": "much"}], ids=str)
def test_a_state_that_does_not_fit_is_a_fault_of_the_checkpoint(
    state: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curricula.Raising, "state_dict", lambda _: state)
    some(paid(tmp_path / "run"), 1)
    with pytest.raises(CheckpointError, match=r"does not fit|cannot be resumed"):
        resumed(tmp_path / "run")


def test_any_error_in_restoring_names_the_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some(paid(tmp_path / "run"), 1)
    monkeypatch.setattr(Raising, "load_state_dict", lambda _, state: [][0])
    with pytest.raises(CheckpointError, match=r"does not fit: .*Raising.load_state_dict raised IndexError"):
        resumed(tmp_path / "run")


def test_an_error_in_making_a_curriculum_is_named() -> None:
    with pytest.raises(CurriculumError, match=r"^curriculum: making it raised TypeError: "):
        run(train(config(curriculum=lambda: None)))


def test_a_state_of_numpy_scalars_and_arrays_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Raising, "state_dict", lambda self: {"worth": np.float64(self.worth), "more": np.arange(3)})
    some(paid(tmp_path / "run"), 1)
    after, _ = resumed(tmp_path / "run")
    assert [max(update.returns) % update.update for update in after] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"levels": [{1, 2}]}, r"cannot be saved: levels/0 is \{1, 2\}, where a plain value or an array belongs"),
        ({"name": b"a"}, "cannot be saved: name is b'a'"),
        ({"more": np.array([None])}, "cannot be saved: more is array"),
        ({"more": np.array(["a"])}, "cannot be saved: more is array"),
        ({1: 2}, "cannot be saved: it has the key 1, where text belongs"),
        ([1], r"returned \[1\], which is no mapping"),
        (None, "returned None, which is no mapping"),
    ],
    ids=str,
)
@pytest.mark.parametrize("checkpoint_every", [1, 100])
def test_a_state_that_cannot_be_saved_costs_the_checkpoint_and_not_the_weights(
    state: Any, words: str, checkpoint_every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Raising, "state_dict", lambda _: state)
    settings = paid(tmp_path / "run", checkpoint_every=checkpoint_every, collector="sequential")
    with pytest.raises(CurriculumError, match=f"^curriculum: Raising.state_dict {words}.*No checkpoint can be saved"):
        run(train(settings))
    assert (tmp_path / "run" / "weights.safetensors").exists()


def test_a_plain_run_has_a_curriculum_without_options(tmp_path: Path) -> None:
    async def status() -> Any:
        async with Trainer(config(toy, run_dir=str(tmp_path / "run"))) as trainer:
            await anext(trainer)
            return trainer.status().curriculum

    assert run(status()) is None
    assert (tmp_path / "run" / "updates.csv").read_text().splitlines()[1].endswith(",")
