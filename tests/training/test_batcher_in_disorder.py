"""Batches of episodes that end in any order, are lost, and are resumed: by properties."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, deque
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aiotrain.collect.protocol import Launch, Outcome
from aiotrain.play.player import LostEpisode
from aiotrain.training.batcher import Batch, Batcher
from aiotrain.transport.slot_ring import Trajectories, header_dtype
from batchers import SEEDS, SPEC, adds_up, batcher, cut_off, launches, length_of, outcome, played
from sample_data import trajectories

# ---------------------------------------------------------------- random order


def headers_of(batch: Batch) -> Any:
    return np.empty(0, header_dtype()) if batch.trajectories is None else batch.trajectories.headers


class World:
    """Plays launches in a random order, with random losses and unused episodes, and learns when it can."""

    def __init__(self, batcher: Batcher, seed: int, trouble: bool) -> None:
        self.batcher, self.random, self.trouble = batcher, Random(seed), trouble
        self.version = 0
        self.out: list[tuple[Launch, int]] = []
        self.given_up: list[int] = []
        self.batches: list[Batch] = []
        self.lags: list[int] = []
        self.options: dict[int, Any] = {}

    def run(self) -> None:
        for _ in range(500):
            if self.batcher.done:
                return
            self.one_turn()
        raise AssertionError(f"no end is in sight: {self.batcher.counts}")

    def one_turn(self) -> None:
        while self.batcher.wanted():
            launch = self.batcher.next_launch(self.random.randint(1, 5))
            self.out.append((launch, self.version))
            self.options |= dict(zip(launch.episodes, launch.options, strict=False))
        if self.out:
            launch, version = self.out.pop(self.random.randrange(len(self.out)))
            fates = ["played"] * 4 + ["unused", "lost"] * self.trouble
            fate = {episode: self.random.choice(fates) for episode in launch.episodes}
            unused, lost = (
                tuple(episode for episode in launch.episodes if fate[episode] == name) for name in ("unused", "lost")
            )
            self.given_up += self.batcher.add(outcome(launch, unused, lost, version))
        if self.random.random() < 0.5 and (batch := self.batcher.pop_batch()) is not None:
            self.lags += (self.version - headers_of(batch)["version"]).tolist()
            self.batches.append(batch)
            self.batcher.learned()
            self.version = batch.number + 1
        assert adds_up(self.batcher), f"{self.batcher.counts}"


@given(SEEDS, st.integers(0, 3), st.integers(1, 5), st.integers(5, 14))
def test_every_episode_is_in_its_batch_once(seed: int, lag: int, per_update: int, total: int) -> None:
    one = batcher(episodes_per_update=per_update, max_policy_lag=lag, total_episodes=total)
    world = World(one, seed, trouble=True)
    world.run()
    for batch in world.batches:
        episodes = headers_of(batch)["episode"]
        first = batch.number * per_update
        expected = [e for e in range(first, min(first + per_update, total)) if e not in world.given_up]
        assert episodes.tolist() == expected
    learned = [e for batch in world.batches for e in headers_of(batch)["episode"].tolist()]
    assert sorted(learned + world.given_up) == list(range(total))
    assert all(0 <= each <= lag for each in world.lags), f"lags {sorted(set(world.lags))} with {lag} allowed"
    counts = one.counts
    assert (counts.learned, counts.given_up, counts.in_flight) == (len(learned), len(world.given_up), 0)
    assert counts.finished == counts.learned


@given(SEEDS, st.integers(0, 2), st.integers(1, 4), st.sampled_from([None, 15]))
def test_parts_tell_the_options_that_each_trajectory_was_played_with(
    seed: int, lag: int, parts: int, steps_per_update: int | None
) -> None:
    plans: dict[int, list[Any]] = {}

    def plan(number: int) -> list[Any]:
        plans[number] = [(number, part) for part in range(parts)]
        return plans[number]

    one = batcher(
        episodes_per_update=5,
        steps_per_update=steps_per_update,
        max_policy_lag=lag,
        total_episodes=10**6 if steps_per_update else 23,
        total_steps=60 if steps_per_update else None,
        plan=plan,
    )
    world = World(one, seed, trouble=True)
    world.run()
    for batch in world.batches:
        episodes = headers_of(batch)["episode"].tolist()
        assert len(batch.parts) == len(episodes)
        told = [plans[batch.number][part] for part in batch.parts]
        assert told == [world.options[episode] for episode in episodes]


COUNTED = st.sampled_from([{}, {"steps_per_update": 20, "total_steps": 80, "total_episodes": 10**6}])


def assert_same(batches: Sequence[Batch], others: Sequence[Batch]) -> None:
    for a, b in zip(batches, others, strict=True):
        assert a.number == b.number
        for name in Trajectories.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(a.trajectories, name), getattr(b.trajectories, name))


@given(SEEDS, SEEDS, COUNTED)
def test_at_lag_0_batches_do_not_depend_on_who_is_fast_or_lost(
    seed: int, another: int, counted: dict[str, Any]
) -> None:
    worlds = [World(batcher(**counted), each, trouble=True) for each in (seed, another)]
    for world in worlds:
        world.run()
        assume(not world.given_up)
    assert_same(worlds[0].batches, worlds[1].batches)


# --------------------------------------------------------------------- resuming


def resumed(world: World, seed: int, **settings: Any) -> World:
    """A world that goes on from what the other one has learned."""
    one = batcher(**settings)
    one.load_state_dict(json.loads(json.dumps(world.batcher.state_dict())))
    following = World(one, seed, trouble=world.trouble)
    following.version = one.learned_batches
    return following


@given(SEEDS, st.integers(0, 60), COUNTED)
def test_at_lag_0_resuming_changes_no_batch(seed: int, turns: int, counted: dict[str, Any]) -> None:
    whole, begun = (World(batcher(**counted), seed, trouble=False) for _ in range(2))
    whole.run()
    for _ in range(turns):
        if not begun.batcher.done:
            begun.one_turn()
    following = resumed(begun, seed + 1, **counted)
    following.run()
    assert_same(whole.batches, begun.batches + following.batches)
    counts = following.batcher.counts
    assert adds_up(following.batcher)
    assert dataclasses.replace(counts, played=counts.played - counts.discarded, discarded=0) == whole.batcher.counts


@given(SEEDS, st.integers(0, 60), st.integers(0, 3), st.integers(0, 3), COUNTED)
def test_what_is_under_way_is_played_again_and_counts_once(
    seed: int, turns: int, lag: int, lag_afterwards: int, counted: dict[str, Any]
) -> None:
    begun = World(batcher(max_policy_lag=lag, **counted), seed, trouble=True)
    for _ in range(turns):
        if not begun.batcher.done:
            begun.one_turn()
    following = resumed(begun, seed + 1, max_policy_lag=lag_afterwards, **counted)
    following.run()
    batches = begun.batches + following.batches
    assert [batch.number for batch in batches] == list(range(len(batches)))
    learned = Counter(e for batch in batches for e in headers_of(batch)["episode"].tolist())
    assert set(learned.values()) == {1}
    counts = following.batcher.counts
    assert (counts.finished, counts.learned, counts.in_flight) == (len(learned), len(learned), 0)
    assert counts.steps == sum(length_of(episode) for episode in learned)
    given_up = {*begun.given_up, *following.given_up}
    if not counted:
        assert {*learned, *given_up} == set(range(12))


class Fleet:
    """Workers that play in slots of two steps, break episodes off and die, and a run that is stopped and resumed.

    It keeps an account of its own.
    """

    workers = 3
    slot_steps = 2

    def __init__(self, seed: int, **settings: Any) -> None:
        self.settings = {"slot_steps": self.slot_steps, **settings}
        self.random = Random(seed)
        self.ended = self.lost = self.learned = self.discarded = 0
        self.resumes = 0
        self.batcher = batcher(**self.settings)
        self.begin()

    def begin(self) -> None:
        self.queues: list[deque[Launch]] = [deque() for _ in range(self.workers)]
        self.unfinished: list[dict[int, int]] = [{} for _ in range(self.workers)]  # for each episode, fragments so far
        self.popped: deque[Batch] = deque()

    def run(self) -> None:
        for _ in range(5_000):
            if self.batcher.done and not self.popped:
                return
            self.one_turn()
            self.check()
        raise AssertionError(f"no end is in sight: {self.batcher.counts}")

    def check(self) -> None:
        counts = self.batcher.counts
        assert adds_up(self.batcher), f"{counts}"
        terms = (counts.played, counts.learned, counts.discarded, counts.lost)
        assert terms == (self.ended + self.lost, self.learned, self.discarded, self.lost)
        assert counts.waiting == self.ended - self.learned - self.discarded

    def one_turn(self) -> None:
        match self.random.choices(["launch", "play", "pop", "learn", "resume"], [6, 9, 3, 3, 0.3])[0]:
            case "launch" if self.batcher.wanted():
                self.random.choice(self.queues).append(self.batcher.next_launch(self.random.randint(1, 4)))
            case "play":
                self.play(self.random.randrange(self.workers))
            case "pop" if (batch := self.batcher.pop_batch()) is not None:
                self.popped.append(batch)
            case "learn" if self.popped:
                self.learned += int(headers_of(self.popped.popleft())["ended"].sum())
                self.batcher.learned()
            case "resume" if self.resumes < 3:
                self.resumes += 1
                self.discarded = self.ended - self.learned
                state = json.loads(json.dumps(self.batcher.state_dict()))
                self.batcher = batcher(**self.settings)
                self.batcher.load_state_dict(state)
                self.begin()

    def play(self, worker: int) -> None:
        queue, unfinished = self.queues[worker], self.unfinished[worker]
        if not queue and (not unfinished or not self.batcher.counts_episodes):
            return
        launch = queue.popleft() if queue else Launch(-1, ())
        slots = len(launch.episodes) or len(unfinished)
        todo = deque([*unfinished, *launch.episodes])
        parts, lost = [], []
        while todo and slots:
            episode, slots = todo.popleft(), slots - 1
            fate = self.random.choices(["played", "breaks", "dies"], [12, 1, 1])[0]
            if fate != "played":
                lost.append(episode)
                if fate == "dies":  # with all that waits in it, and what is queued was not begun
                    lost += [each for each in unfinished if each not in lost]
                    todo = deque(each for each in todo if each not in unfinished)
                    break
                unfinished.pop(episode, None)
                continue
            fragment = unfinished.pop(episode, 0)
            left = length_of(episode) - fragment * self.slot_steps
            ends = left <= self.slot_steps
            length, ended = min(left, self.slot_steps), [ends]
            parts.append(
                trajectories(SPEC, [length], episodes=[episode], fragments=[fragment], ended=ended, terminated=ended)
            )
            self.ended += ends
            if not ends:
                unfinished[episode] = fragment + 1
        if lost and fate == "dies":
            unfinished.clear()
            for waiting in queue:
                self.take(Outcome(waiting, None, waiting.episodes, ()))
            queue.clear()
        self.lost += len(lost)
        unused = tuple(each for each in launch.episodes if each in todo)
        self.take(
            Outcome(
                launch,
                Trajectories.join(parts) if parts else None,
                unused,
                tuple(LostEpisode(each, "it broke") for each in lost),
            )
        )

    def take(self, outcome: Outcome) -> None:
        self.batcher.add(outcome)


@given(SEEDS, st.integers(0, 3), COUNTED)
def test_the_account_is_exact_at_every_moment(seed: int, lag: int, counted: dict[str, Any]) -> None:
    """Whatever is late, broken off, dies in the middle of an episode, or is stopped and resumed."""
    fleet = Fleet(seed, max_policy_lag=lag, **counted)
    fleet.run()
    counts = fleet.batcher.counts
    assert counts.waiting == 0
    if not counted:
        assert counts.learned + counts.given_up == 12, "each episode of the budget is learned once, or given up"


def test_what_a_collector_delivers_twice_leaves_the_account_open() -> None:
    one = batcher()
    (launch,) = launches(one, 4)
    one.add(outcome(launch))
    assert adds_up(one)
    one.add(Outcome(Launch(-1, ()), played([2]), (), ()))
    assert not adds_up(one)


def test_episode_of_which_fragments_are_learned_is_not_played_again() -> None:
    """Its beginning would count twice."""
    settings = {"steps_per_update": 6, "slot_steps": 3, "total_episodes": 10**6}
    one = batcher(**settings)
    launch = one.next_launch(one.wanted())
    one.add(Outcome(launch, cut_off([0, 1]), (), ()))
    assert one.pop_batch() is not None
    one.learned()
    two = batcher(**settings)
    two.load_state_dict(one.state_dict())
    assert two.next_launch(two.wanted()).episodes == (2, 3)
    assert two.counts.given_up == 2


def test_longer_budget_goes_on_after_a_last_batch_that_was_not_full() -> None:
    world = World(batcher(total_episodes=10), 0, trouble=False)
    world.run()
    following = resumed(world, 1, total_episodes=20)
    following.run()
    episodes = [headers_of(batch)["episode"].tolist() for batch in world.batches + following.batches]
    assert [e for batch in episodes for e in batch] == list(range(20))
    assert [len(batch) for batch in episodes] == [4, 4, 2, 4, 4, 2]


@given(SEEDS, st.integers(0, 2), st.integers(1, 30))
def test_batches_counted_in_steps_are_full(seed: int, lag: int, steps: int) -> None:
    one = batcher(steps_per_update=steps, max_policy_lag=lag, total_episodes=10**6, total_steps=steps * 4)
    world = World(one, seed, trouble=True)
    world.run()
    assert [batch.number for batch in world.batches] == list(range(len(world.batches)))
    assert one.counts.steps >= steps * 4, "the budget is not used up"
    for batch in world.batches:
        assert batch.trajectories is not None
        assert batch.trajectories.steps >= steps
    assert all(0 <= each <= lag for each in world.lags)
    learned = Counter(e for batch in world.batches for e in headers_of(batch)["episode"].tolist())
    assert not [episode for episode, times in learned.items() if times > 1], "an episode is learned twice"


def test_rounds_are_planned_by_what_trajectories_turned_out_to_hold() -> None:
    one = batcher(steps_per_update=100, slot_steps=50, total_episodes=10**6)
    (launch,) = launches(one, 99)
    assert len(launch.episodes) == 2, "two slots of 50 steps should make 100"
    one.add(Outcome(launch, trajectories(SPEC, [10, 10], episodes=launch.episodes), (), ()))
    assert one.pop_batch() is None
    assert one.wanted() == 8, "80 steps are missing, a trajectory held 10"


@pytest.mark.parametrize("steps_per_update", [None, 20])
def test_accounting_is_exact(steps_per_update: int | None) -> None:
    one = batcher(steps_per_update=steps_per_update, max_policy_lag=1)
    first, *others = launches(one, 2)
    one.add(outcome(first, unused=first.episodes[1:]))
    assert one.counts.finished == 1
    assert one.counts.steps == length_of(first.episodes[0])
    assert one.counts.in_flight == sum(len(launch.episodes) for launch in others)
