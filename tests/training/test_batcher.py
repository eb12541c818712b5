"""Which episode belongs to which batch: pure bookkeeping, in any order of completion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aiotrain.collect.protocol import Launch, Outcome
from aiotrain.play.player import LostEpisode
from aiotrain.training.batcher import Batch
from batchers import SPEC, adds_up, batcher, cut_off, launches, outcome
from sample_data import trajectories


def test_launches_come_in_order_and_no_further_than_the_lag_allows() -> None:
    one = batcher(max_policy_lag=1)
    assert launches(one, 3) == [Launch(0, (0, 1, 2)), Launch(0, (3,)), Launch(1, (4, 5, 6)), Launch(1, (7,))]
    assert one.counts.in_flight == 8
    one.add(outcome(Launch(0, (0, 1, 2))))
    assert one.pop_batch() is None, "a batch is handed out with an episode missing"
    one.add(outcome(Launch(0, (3,))))
    assert one.wanted() == 0, "batch 2 may be played only with version 1"
    assert one.pop_batch() is not None
    assert one.wanted() == 0
    one.learned()
    assert launches(one, 9) == [Launch(2, (8, 9, 10, 11))]


def test_last_batch_may_be_short_and_ends_the_budget() -> None:
    one = batcher(total_episodes=6)
    sizes = []
    while not one.done:
        for launch in launches(one, 9):
            one.add(outcome(launch))
        batch = one.pop_batch()
        assert batch is not None
        sizes.append(len(batch.trajectories.headers))
        one.learned()
    assert sizes == [4, 2]
    assert one.wanted() == 0


def test_budget_in_steps_ends_counting_episodes() -> None:
    one = batcher(total_episodes=10**6, total_steps=30)
    while not one.done:
        for launch in launches(one, 9):
            one.add(outcome(launch))
        if one.pop_batch() is not None:
            one.learned()
    assert 30 <= one.counts.steps < 30 + 4 * 5


def test_unused_episodes_are_launched_next_and_in_order() -> None:
    one = batcher()
    launch, *_ = launches(one, 4)
    one.add(outcome(launch, unused=(1, 2, 3)))
    assert one.next_launch(9) == Launch(0, (1, 2, 3))
    assert one.counts.in_flight == 3
    assert one.counts.lost == 0


def test_lost_episode_is_tried_three_times_and_then_missing() -> None:
    one = batcher()
    (launch,) = launches(one, 4)
    assert one.add(outcome(launch, lost=(2,))) == []
    assert one.add(outcome(one.next_launch(9), lost=(2,))) == []
    assert one.pop_batch() is None
    assert one.add(outcome(one.next_launch(9), lost=(2,))) == [2]
    batch = one.pop_batch()
    assert batch is not None
    assert batch.trajectories.headers["episode"].tolist() == [0, 1, 3]
    one.learned()
    assert (one.counts.lost, one.counts.given_up, one.counts.learned) == (3, 1, 3)
    assert adds_up(one)


def test_finishing_clears_the_tries() -> None:
    one = batcher()
    (launch,) = launches(one, 4)
    one.add(outcome(launch, lost=(2,)))
    one.add(outcome(one.next_launch(9)))
    assert one._tries == {}


def test_batch_of_nothing_but_given_up_episodes_is_empty() -> None:
    one = batcher(episodes_per_update=2, total_episodes=4)
    (launch,) = launches(one, 2)
    for _ in range(2):
        one.add(outcome(launch, lost=(0, 1)))
        assert one.pop_batch() is None, "its episodes are tried again"
        (launch,) = launches(one, 2)
    assert one.add(outcome(launch, lost=(0, 1))) == [0, 1]
    empty = one.pop_batch()
    assert empty is not None, "whoever waits for the batch is never told"
    assert (empty.number, empty.trajectories, empty.parts.tolist()) == (0, None, [])
    assert one.wanted() == 0, "the next batch is opened before this one counts as learned"
    one.learned()
    (launch,) = launches(one, 2)
    one.add(outcome(launch))
    batch = one.pop_batch()
    assert batch is not None
    assert (batch.number, len(batch.parts)) == (1, 2)
    assert one.done


def test_fragments_of_one_episode_meet_in_its_batch() -> None:
    one = batcher(episodes_per_update=2, total_episodes=2)
    (launch,) = launches(one, 2)
    first = trajectories(SPEC, [3, 2], episodes=[0, 1], ended=[False, True], terminated=[False, True])
    one.add(Outcome(launch, first, (), ()))
    assert one.pop_batch() is None, "episode 0 has not ended"
    rest = trajectories(SPEC, [3, 1], episodes=[0, 0], fragments=[1, 2], ended=[False, True], terminated=[False, True])
    one.add(Outcome(Launch(-1, ()), rest, (), ()))
    batch = one.pop_batch()
    assert batch is not None
    assert batch.trajectories.headers[["episode", "fragment"]].tolist() == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert (one.counts.finished, one.counts.steps, one.counts.in_flight) == (2, 9, 0)


def test_fragments_of_a_lost_episode_are_thrown_away() -> None:
    """It is played again from its beginning, so they would be there twice."""
    one = batcher(episodes_per_update=2, total_episodes=2)
    (launch,) = launches(one, 2)
    first = trajectories(SPEC, [3, 2], episodes=[0, 1], ended=[False, True], terminated=[False, True])
    one.add(Outcome(launch, first, (), ()))
    one.add(Outcome(Launch(-1, ()), None, (), (LostEpisode(0, "killed"),)))
    again = one.next_launch(9)
    assert again == Launch(0, (0,))
    one.add(outcome(again))
    batch = one.pop_batch()
    assert batch is not None
    assert batch.trajectories.headers["episode"].tolist() == [0, 1]
    assert one.counts.steps == batch.trajectories.steps, "a budget in steps does not depend on who dies"


def test_counting_steps_an_episode_that_was_learned_from_is_not_played_again() -> None:
    one = batcher(steps_per_update=6, slot_steps=3, total_episodes=10**6)
    launch = one.next_launch(one.wanted())
    assert launch == Launch(0, (0, 1))
    one.add(Outcome(launch, cut_off([0, 1]), (), ()))
    assert one.pop_batch() is not None
    one.learned()
    launch = one.next_launch(one.wanted())
    assert launch == Launch(1, (2, 3)), "0 and 1 go on in the slots of these"
    assert one.add(Outcome(launch, None, (2, 3), (LostEpisode(0, "killed"), LostEpisode(1, "killed")))) == []
    assert [one.next_launch(one.wanted()), one.wanted()] == [Launch(1, (2, 3)), 0]
    assert (one.counts.lost, one.counts.given_up) == (2, 2)


def test_counting_steps_fragments_that_come_with_the_loss_of_their_episode_count_once() -> None:
    one = batcher(steps_per_update=6, slot_steps=3, total_episodes=10**6)
    launch = one.next_launch(one.wanted())
    one.add(Outcome(launch, cut_off([0]), (1,), (LostEpisode(0, "killed"),)))
    launch = one.next_launch(one.wanted())
    assert launch == Launch(0, (1,)), "the steps that are missing come from another"
    one.add(Outcome(launch, cut_off([1]), (), ()))
    batch = one.pop_batch()
    assert batch is not None
    assert batch.trajectories.headers[["episode", "fragment"]].tolist() == [(0, 0), (1, 0)]


def test_counting_steps_an_episode_lost_before_its_first_fragment_is_played_again() -> None:
    one = batcher(steps_per_update=6, slot_steps=3, total_episodes=10**6)
    launch = one.next_launch(one.wanted())
    one.add(Outcome(launch, None, (1,), (LostEpisode(0, "killed"),)))
    assert one.next_launch(9) == Launch(0, (0, 1)), "both belong to the batch as before"


# --------------------------------------------------------------------- options


def names(launch: Launch) -> tuple[str, ...]:
    """The orders of a launch's episodes."""
    return tuple(options["workflow"] for options in launch.options)


@pytest.mark.parametrize("steps_per_update", [None, 12])
def test_each_batch_is_played_with_the_options_it_was_opened_with(steps_per_update: int | None) -> None:
    """Also what comes back unbegun or lost."""
    one = batcher(
        steps_per_update=steps_per_update, max_policy_lag=1, plan=lambda number: [{"workflow": "abc"[number]}]
    )
    given = launches(one, 2)
    assert {(launch.batch, *names(launch)) for launch in given} == {(0, "a", "a"), (1, "b", "b")}
    for launch in reversed(given):
        one.add(outcome(launch, unused=launch.episodes[1:], lost=launch.episodes[:1]))
    again = launches(one, 9)
    assert {(launch.batch, name) for launch in again for name in names(launch)} == {(0, "a"), (1, "b")}


def test_no_batch_is_opened_while_there_is_no_plan() -> None:
    plan: dict[str, Any] | None = None
    one = batcher(max_policy_lag=1, plan=lambda _: None if plan is None else [plan])
    assert (one.wanted(), one.exhausted, one.done) == (0, False, False)
    plan = {"workflow": "a"}
    assert one.wanted() == 8
    plan = None
    (first, second) = launches(one, 4)
    for launch in (first, second):
        one.add(outcome(launch))
        assert one.pop_batch() is not None
        assert one.wanted() == 0
        one.learned()
    assert (one.wanted(), one.exhausted, one.done) == (0, False, False), "the budget is not used up"
    plan = {"workflow": "b"}
    assert launches(one, 9) == [Launch(2, (8, 9, 10, 11), (plan,) * 4)], "the episodes go on where they were"


def test_what_was_opened_is_played_to_its_end_whatever_the_plan() -> None:
    one = batcher(plan=lambda number: None if number else [{}])
    (launch,) = launches(one, 9)
    one.add(outcome(launch, unused=(2, 3), lost=(1,)))
    assert one.wanted() == 3
    one.add(outcome(one.next_launch(9)))
    assert one.pop_batch() is not None


# ----------------------------------------------------------------------- parts


def in_parts(*names: str) -> Any:
    """A plan by which every batch has these parts."""
    return lambda _: [{"workflow": name} for name in names]


@pytest.mark.parametrize(
    ("episodes", "parts", "blocks"),
    [
        (9, "abc", {"a": [0, 1, 2], "b": [3, 4, 5], "c": [6, 7, 8]}),
        (8, "abc", {"a": [0, 1, 2], "b": [3, 4, 5], "c": [6, 7]}),
        (4, "abc", {"a": [0, 1], "b": [2], "c": [3]}),
        (3, "abc", {"a": [0], "b": [1], "c": [2]}),
        (5, "a", {"a": [0, 1, 2, 3, 4]}),
    ],
)
@pytest.mark.parametrize("at_most", [1, 2, 9])
@pytest.mark.parametrize("counting", ["episodes", "steps"])
def test_parts_are_blocks_of_a_batch(
    episodes: int, parts: str, blocks: dict[str, list[int]], at_most: int, counting: str
) -> None:
    one = batcher(
        episodes_per_update=episodes,
        steps_per_update=10 * episodes if counting == "steps" else None,
        total_episodes=2 * episodes,
        plan=in_parts(*parts),
    )
    given: dict[str, list[int]] = {name: [] for name in parts}
    for launch in launches(one, at_most):
        assert len(launch.episodes) <= at_most
        for episode, name in zip(launch.episodes, names(launch), strict=True):
            given[name].append(episode)
    assert given == blocks


def test_options_are_asked_for_once_for_each_batch_by_its_number() -> None:
    asked = []

    def plan(number: int) -> list[dict[str, str]]:
        asked.append(number)
        return [{"workflow": f"{number} {part}"} for part in "ab"]

    one = batcher(max_policy_lag=1, plan=plan)
    given = {launch.episodes: names(launch) for launch in launches(one, 9)}
    assert given == {(0, 1, 2, 3): ("0 a", "0 a", "0 b", "0 b"), (4, 5, 6, 7): ("1 a", "1 a", "1 b", "1 b")}
    one.wanted()
    assert asked == [0, 1]


@pytest.mark.parametrize(("fate", "steps_per_update"), [("unused", None), ("lost", None), ("lost", 20)])
def test_what_comes_back_keeps_its_part(fate: str, steps_per_update: int | None) -> None:
    one = batcher(episodes_per_update=6, steps_per_update=steps_per_update, slot_steps=4, plan=in_parts("a", "b", "c"))
    part_of = {}
    given = launches(one, 2)
    for launch in given:
        part_of |= dict(zip(launch.episodes, names(launch), strict=True))
    assert len(set(part_of.values())) == 3
    for launch in reversed(given):
        one.add(outcome(launch, **{fate: launch.episodes}))
    again = launches(one, 9)
    assert {launch.batch for launch in again} == {0}
    returned = [pair for launch in again for pair in zip(launch.episodes, names(launch), strict=True)]
    assert dict(returned) == part_of


def test_episode_that_comes_back_twice_and_later_is_with_its_part_in_the_batch() -> None:
    one = batcher(episodes_per_update=6, total_episodes=6, plan=in_parts("a", "b", "c"))
    first, *others = launches(one, 2)
    for launch in others:
        one.add(outcome(launch))
    one.add(outcome(first, lost=(0,), unused=(1,)))
    again = one.next_launch(1)
    one.add(outcome(again, lost=again.episodes))
    assert one.pop_batch() is None
    for launch in launches(one, 9):
        assert set(names(launch)) == {"a"}
        one.add(outcome(launch))
    batch = one.pop_batch()
    assert batch is not None
    assert batch.trajectories is not None
    assert batch.trajectories.headers["episode"].tolist() == [0, 1, 2, 3, 4, 5]
    assert batch.parts.tolist() == [0, 0, 1, 1, 2, 2]


def test_part_whose_episodes_are_all_given_up_is_missing_and_shifts_no_other() -> None:
    one = batcher(episodes_per_update=6, total_episodes=6, plan=in_parts("a", "b", "c"))
    for _ in range(3):
        for launch in launches(one, 9):
            pairs = zip(launch.episodes, names(launch), strict=True)
            one.add(outcome(launch, lost=tuple(episode for episode, name in pairs if name == "b")))
    batch = one.pop_batch()
    assert batch is not None
    assert batch.parts.tolist() == [0, 0, 2, 2]


def test_a_batch_tells_the_headers_of_the_episodes_that_ended_in_it_with_their_parts() -> None:
    played = trajectories(
        SPEC, [3] * 4, episodes=[0, 0, 1, 2], fragments=[0, 1, 0, 0], ended=[False, True, False, True]
    )
    headers, parts = Batch(7, played, np.array([0, 0, 1, 2])).ended(())
    assert (headers["episode"].tolist(), parts.tolist()) == ([0, 2], [0, 2])
    headers, parts = Batch(8, None, np.empty(0, np.int64)).ended(("score",))
    assert (headers["score"].tolist(), parts.tolist()) == ([], [])
