"""The episode ring: who owns a slot, and that what comes out is what was written."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aiotrain.transport.slot_ring import BROKEN_OFF, FREE, LENT, PLAYING, SEALED, Ring, RingLayout
from aiotrain.transport.trajectories import Trajectories
from sample_data import spec_of, trajectories

SPEC = spec_of("box", "discrete")


def layout(slots: int = 6, steps: int = 4) -> RingLayout:
    return SPEC.ring_layout(slots, steps)


def write(ring: Ring, slot: int, length: int, mark: int) -> None:
    """What a worker does to a slot, with values that tell slot and step."""
    ring.observations[slot, : length + 1] = mark + np.arange(length + 1)[:, None]
    ring.actions[slot, :length] = np.arange(length) % 3
    ring.log_probs[slot, :length] = -mark
    ring.rewards[slot, :length] = mark + np.arange(length)
    header = ring.headers[slot]
    header["length"], header["episode"] = length, mark
    header["state"] = SEALED


class RingMachine(RuleBasedStateMachine):
    """Any order of lending, writing and taking back: slots are lent once, and come out as they were written."""

    @initialize()
    def make(self) -> None:
        self.ring = Ring.create(layout())
        self.lent: dict[int, tuple[int, int] | None] = {}
        self.mark = 0

    @rule(count=st.integers(0, 7))
    def lend(self, count: int) -> None:
        if count > self.ring.free_slots:
            with pytest.raises(ValueError, match="slots wanted"):
                self.ring.lend(count)
            return
        slots = self.ring.lend(count)
        assert len(set(slots)) == count
        assert not set(slots) & set(self.lent), "a slot is lent to two tasks"
        assert self.ring.sealed(slots) == [], "a slot that is just lent still holds an episode"
        self.lent.update(dict.fromkeys(slots))

    @rule(data=st.data(), length=st.integers(1, 4))
    def play(self, data: st.DataObject, length: int) -> None:
        if self.lent:
            slot = data.draw(st.sampled_from(sorted(self.lent)))
            self.mark += 10
            write(self.ring, slot, length, self.mark)
            self.lent[slot] = (length, self.mark)

    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        if not self.lent:
            return
        slots = data.draw(st.lists(st.sampled_from(sorted(self.lent)), unique=True))
        written = {slot: what for slot in slots if (what := self.lent[slot]) is not None}
        assert self.ring.sealed(slots) == list(written)
        got = self.ring.copy_out(list(written))
        self.ring.take_back(slots)
        for slot in slots:
            del self.lent[slot]
        self.ring.rewards[...] = np.nan  # what was copied out does not depend on the ring any more
        assert got.headers["length"].tolist() == [length for length, _ in written.values()]
        assert got.headers["episode"].tolist() == [mark for _, mark in written.values()]
        expected = [mark + step for length, mark in written.values() for step in range(length)]
        assert got.rewards.tolist() == expected
        assert got.observations[:, 0].tolist() == expected
        assert got.final_observations[:, 0].tolist() == [mark + length for length, mark in written.values()]
        for slot, what in self.lent.items():  # undo the damage to those that are still lent
            if what is not None:
                write(self.ring, slot, *what)

    @invariant()
    def slots_are_free_or_lent(self) -> None:
        if hasattr(self, "ring"):
            assert self.ring.free_slots + len(self.lent) == 6
            assert int((self.ring.headers["state"] == FREE).sum()) == self.ring.free_slots

    def teardown(self) -> None:
        if hasattr(self, "ring"):
            self.ring.close()


TestRingMachine = RingMachine.TestCase
TestRingMachine.settings = settings(max_examples=25, stateful_step_count=25, deadline=None, derandomize=True)


@pytest.mark.parametrize("state", [FREE, LENT, PLAYING, BROKEN_OFF])
def test_only_sealed_slots_can_be_read(state: int) -> None:
    ring = Ring.create(layout())
    try:
        slots = ring.lend(2)
        for slot in slots:
            write(ring, slot, 2, 1)
        ring.headers["state"][slots[1]] = state
        assert ring.sealed(slots) == slots[:1]
        with pytest.raises(ValueError, match=rf"slots \[{slots[1]}\] are not sealed"):
            ring.copy_out(slots)
    finally:
        ring.close()


def test_guest_sees_the_owners_slots() -> None:
    ring = Ring.create(layout())
    guest = Ring.attach(ring.name, layout())
    try:
        (slot,) = ring.lend(1)
        write(guest, slot, 3, 7)
        assert ring.copy_out([slot]).rewards.tolist() == [7, 8, 9]
    finally:
        guest.close()
        ring.close()


def test_bits_are_stored_as_bytes() -> None:
    bits = spec_of("bits", "discrete").ring_layout(2, 3)
    assert np.dtype(bits.observation_dtype).itemsize == 1
    assert np.dtype(bits.action_dtype).itemsize == 2


def test_masks_come_out_beside_the_actions() -> None:
    spec = dataclasses.replace(SPEC, has_action_mask=True)
    ring = Ring.private(spec.ring_layout(3, 4))
    slots = ring.lend(2)
    for slot, length in zip(slots, (4, 2), strict=True):
        write(ring, slot, length, 10 * slot)
        ring.masks[slot, :length] = np.eye(3)[np.arange(length) % 3]
    got = ring.copy_out(slots[::-1])
    assert got.masks.tolist() == np.eye(3)[[0, 1, 0, 1, 2, 0]].tolist()
    assert got.select(np.array([1])).masks.tolist() == np.eye(3)[[0, 1, 2, 0]].tolist()
    assert Ring.private(layout()).masks.size == 0, "memory for masks that nobody writes"


def same(a: Trajectories, b: Trajectories) -> bool:
    names = Trajectories.__dataclass_fields__
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def pieces(whole: Trajectories) -> list[Trajectories]:
    """The trajectories of ``whole``, one by one, cut by plain slicing."""
    ends = np.cumsum(whole.headers["length"])
    return [
        Trajectories(
            whole.headers[i : i + 1],
            whole.observations[end - length : end],
            whole.final_observations[i : i + 1],
            whole.actions[end - length : end],
            whole.log_probs[end - length : end],
            whole.rewards[end - length : end],
            whole.bonuses[end - length : end],
            whole.masks[end - length : end],
        )
        for i, (end, length) in enumerate(zip(ends, whole.headers["length"], strict=True))
    ]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.data())
def test_select_picks_whole_trajectories_in_the_order_asked_for(lengths: list[int], data: st.DataObject) -> None:
    whole = trajectories(SPEC, lengths)
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1)))
    got = whole.select(np.array(chosen, int))
    assert got.steps == sum(lengths[i] for i in chosen)
    for one, i in zip(pieces(got), chosen, strict=True):
        assert same(one, pieces(whole)[i])
    mask: npt.NDArray[np.bool_] = np.isin(np.arange(len(lengths)), chosen)
    assert same(whole.select(mask), whole.select(np.flatnonzero(mask)))


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(1, 5)), min_size=1, unique_by=lambda x: x[:2]),
    st.randoms(use_true_random=False),
)
def test_join_orders_by_episode_and_fragment(kinds: list[tuple[int, int, int]], random: object) -> None:
    kinds.sort()
    episodes, fragments, lengths = (list(column) for column in zip(*kinds, strict=True))
    whole = trajectories(SPEC, lengths, episodes=episodes, fragments=fragments)
    parts = pieces(whole)
    random.shuffle(parts)  # type: ignore[attr-defined]
    assert same(Trajectories.join(parts), whole)
