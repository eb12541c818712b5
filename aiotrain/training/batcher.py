"""Which episode belongs to which batch, when it may be played, and when a batch is whole.

Plain bookkeeping without processes or clocks. Every episode is bound to a batch before it is played, and batch b may be
played while the learner's version is at least b - max_policy_lag. So the policy lag is bounded without throwing
anything away, batches do not favour episodes that finish early, and at lag 0 they are the same however many workers
play.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from aiotrain.collect.protocol import Launch, Outcome
from aiotrain.runs.checkpoints import natural
from aiotrain.transport.slot_ring import header_dtype
from aiotrain.transport.trajectories import Trajectories

__all__ = ["Batch", "Batcher", "Counts"]

Options = Mapping[str, Any]
_TRIES = 3  # of an episode that is lost with its worker or environment, before it is given up


@dataclass(frozen=True)
class Batch:
    """What one update learns from."""

    number: int
    trajectories: Trajectories | None
    """None if all its episodes were given up."""
    parts: npt.NDArray[np.int64]
    """``[M]``: for each trajectory, which of the options that were planned for the batch it was played with."""

    def ended(self, metrics: Sequence[str]) -> tuple[npt.NDArray[np.void], npt.NDArray[np.int64]]:
        """Return the headers ``[E]`` of the episodes that ended in the batch, and the part of each."""
        if self.trajectories is None:
            return np.empty(0, header_dtype(metrics)), self.parts
        has_ended = self.trajectories.headers["ended"]
        return self.trajectories.headers[has_ended], self.parts[has_ended]


@dataclass
class Counts:
    """The account of a run, over all its resumes. Each term is counted where it happens, none from the others:

    played = finished + discarded + lost, and finished = learned + waiting.
    """

    played: int = 0
    """Attempts at episodes that came to an end. Those cut off by the end of the run do not count."""
    finished: int = 0
    """Episodes played to their end and kept."""
    steps: int = 0
    """Steps in all delivered trajectories but the discarded ones."""
    learned: int = 0
    """Episodes that a policy version has learned from."""
    waiting: int = 0
    """Finished episodes in batches that are not learned yet."""
    discarded: int = 0
    """Episodes that were finished and not learned when the run ended, before it was resumed; they are played again."""
    lost: int = 0
    """Attempts that began and were lost; most episodes are tried again."""
    given_up: int = 0
    """Lost episodes that are not tried again: lost too often, or some of their fragments count already."""
    in_flight: int = 0
    """Trajectories being played or queued."""

    def account(self) -> dict[str, int]:
        """Return where all went that was played, beside what was learned: the group account of an Update."""
        return {name: getattr(self, name) for name in ("played", "waiting", "discarded", "lost", "given_up")}


@dataclass
class _OpenBatch:
    """A batch that is being gathered."""

    number: int
    options: Sequence[Options]
    expected_steps: float  # of a trajectory, when it was opened
    part: dict[int, int] = field(default_factory=dict)  # for each episode, with which of the options it is played
    to_launch: deque[int] = field(default_factory=deque)
    out: set[int] = field(default_factory=set)  # counting episodes: those not yet settled
    in_flight: int = 0  # counting steps: trajectories that are out
    parts: list[Trajectories] = field(default_factory=list)
    ended: int = 0  # episodes that have their end in these

    def take(self, part: Trajectories) -> None:
        self.parts.append(part)
        self.ended += int(part.headers["ended"].sum())

    def drop(self, episode: int) -> None:
        parts, self.parts, self.ended = self.parts, [], 0
        for part in parts:
            self.take(part.select(part.headers["episode"] != episode))

    @property
    def steps(self) -> int:
        return sum(part.steps for part in self.parts)

    @property
    def trajectories(self) -> int:
        return sum(len(part.headers) for part in self.parts)


class Batcher:
    """Hands out episodes to play and puts together what comes back.

    Batches are counted in episodes, or in steps. Counting episodes, batch b consists of the episodes from
    b * episodes_per_update on. Counting steps, as many trajectories are launched as should fill it, and when all are
    back, as many more as are missing: so a batch depends on what was played and not on who was fast.

    ``plan`` is asked before batch number so-and-so is opened: with which options its episodes are reset, a part of the
    batch with each, or None for not now.

    A lost episode is played again from its beginning, up to three times in all. Counting episodes, fragments that came
    back before are discarded for it. Counting steps they may be learned already, and played again from the same seed
    they would count twice: so they count once, the episode ends there, and fresh ones bring the steps that are missing.
    """

    def __init__(
        self,
        *,
        episodes_per_update: int,
        steps_per_update: int | None,
        max_policy_lag: int,
        total_episodes: int,
        total_steps: int | None,
        slot_steps: int,
        plan: Callable[[int], Sequence[Options] | None] = lambda _: ({},),
    ) -> None:
        self._episodes_per_update = episodes_per_update
        self._steps_per_update = steps_per_update
        self._max_policy_lag = max_policy_lag
        self._total_episodes = total_episodes
        self._total_steps = total_steps
        self._plan = plan
        self._expected_steps: float = slot_steps  # of a trajectory
        self._batches: deque[_OpenBatch] = deque()
        self._popped: deque[_OpenBatch] = deque()  # and not learned yet
        self._first_batch, self._first_episode = 0, 0  # with which everything, or what was resumed, begins
        self._next_batch = 0
        self.learned_batches = 0
        """Batches that have become policy versions."""
        self._next_episode = 0
        self._returned: deque[int] = deque()  # counting steps: episodes that came back unbegun
        self._tries: dict[int, int] = {}
        self._cut: set[int] = set()  # counting steps: episodes of which fragments came back, and not yet the end
        self._given_up: set[int] = set()  # episodes of batches that are not learned yet
        self._playing: set[int] = set()  # episodes handed out, until they come to an end or back unbegun
        self.counts = Counts()

    # ------------------------------------------------------------- handing out

    def wanted(self) -> int:
        """Return how many trajectories may be played now; open the batches that may be opened."""
        while self._next_batch <= self.learned_batches + self._max_policy_lag and not self.exhausted:
            options = self._plan(self._next_batch)
            if options is None:
                break
            batch = _OpenBatch(self._next_batch, options, self._expected_steps)
            self._next_batch += 1
            self._batches.append(batch)
            if self._steps_per_update is None:
                self._add_episodes(batch, self._episodes_per_update)
                batch.out.update(batch.to_launch)
            else:
                self._add_round(batch, self._steps_per_update)
        return sum(len(batch.to_launch) for batch in self._batches)

    def next_launch(self, at_most: int) -> Launch:
        """Return the next episodes to play, oldest batch first; `wanted` must have returned more than 0."""
        batch = next(batch for batch in self._batches if batch.to_launch)
        episodes = tuple(batch.to_launch.popleft() for _ in range(min(at_most, len(batch.to_launch))))
        batch.in_flight += len(episodes)
        self.counts.in_flight += len(episodes)
        self._playing.update(episodes)
        options = tuple(batch.options[batch.part[episode]] for episode in episodes)
        return Launch(batch.number, episodes, options if any(options) else ())

    @property
    def stalled(self) -> bool:
        """Whether nothing is under way and nothing was planned, though the budget is not used up."""
        return not self._under_way() and not self.exhausted

    @property
    def exhausted(self) -> bool:
        """Whether the budget is used up, so that no further batch will be opened."""
        if self._next_episode >= self._total_episodes and not self._returned:
            return True
        planned_steps = self._next_batch * (self._steps_per_update or 0)
        return self._total_steps is not None and max(planned_steps, self.counts.steps) >= self._total_steps

    def _fresh_episodes(self, count: int) -> list[int]:
        fresh = [self._returned.popleft() for _ in range(min(count, len(self._returned)))]
        end = min(self._next_episode + count - len(fresh), self._total_episodes)
        fresh += range(self._next_episode, end)
        self._next_episode = end
        return fresh

    def _add_episodes(self, batch: _OpenBatch, count: int) -> None:
        fresh = self._fresh_episodes(count)
        batch.part |= {episode: len(batch.options) * place // len(fresh) for place, episode in enumerate(fresh)}
        batch.to_launch.extend(fresh)

    def _add_round(self, batch: _OpenBatch, missing_steps: int) -> None:
        self._add_episodes(batch, math.ceil(missing_steps / self._expected_steps))

    # --------------------------------------------------------------- taking in

    def add(self, outcome: Outcome) -> list[int]:
        """Take in what became of a launch. Returns episodes that are given up, because they were lost too often."""
        self.counts.in_flight -= len(outcome.launch.episodes)
        self.counts.lost += len(outcome.lost)
        ended: list[int] = []
        if outcome.trajectories is not None:
            episodes, has_ended = (outcome.trajectories.headers[name] for name in ("episode", "ended"))
            ended = episodes[has_ended].tolist()
            self.counts.steps += outcome.trajectories.steps
            self.counts.finished += len(ended)
            kept = ended if self.counts_episodes else episodes.tolist()  # will not be played again
            self._cut = self._cut.union(kept).difference(ended)
            for episode in kept:
                self._tries.pop(episode, None)
        self._playing.difference_update(outcome.unused)
        for episode in (*ended, *(lost.episode for lost in outcome.lost)):
            if episode in self._playing:  # what was not handed out, or ends a second time, leaves the account open
                self._playing.remove(episode)
                self.counts.played += 1
        cut_short = {lost.episode for lost in outcome.lost} & self._cut
        again: list[int] = []
        given_up: list[int] = []
        for episode in (lost.episode for lost in outcome.lost if lost.episode not in cut_short):
            (again if self._may_retry(episode) else given_up).append(episode)
        self._cut -= cut_short
        self._given_up.update(given_up, cut_short)
        self.counts.given_up += len(given_up) + len(cut_short)
        if self._steps_per_update is None:
            self._add_counting_episodes(outcome, again, given_up)
        else:
            self._add_counting_steps(outcome, again, self._steps_per_update)
        self._count_waiting()
        return given_up

    def _count_waiting(self) -> None:
        self.counts.waiting = sum(batch.ended for batch in self._under_way())

    def _may_retry(self, episode: int) -> bool:
        tries = self._tries[episode] = self._tries.get(episode, 0) + 1
        if tries == _TRIES:
            del self._tries[episode]
        return tries < _TRIES

    def _add_counting_episodes(self, outcome: Outcome, again: Sequence[int], given_up: Sequence[int]) -> None:
        """Put each trajectory into the batch of its episode, whichever launch it came with."""
        if outcome.trajectories is not None:
            headers = outcome.trajectories.headers
            numbers = self._number(headers["episode"])
            homes = set(numbers.tolist())
            for number in homes:
                part = outcome.trajectories if len(homes) == 1 else outcome.trajectories.select(numbers == number)
                self._find(number).take(part)
            for episode in headers["episode"][headers["ended"]].tolist():
                self._home(episode).out.discard(episode)
        for episode in reversed(outcome.unused):
            self._home(episode).to_launch.appendleft(episode)
        for episode in given_up:
            self._home(episode).out.discard(episode)
        for episode in again:  # from its beginning, so what there is of it would be there twice
            home = self._home(episode)
            before = home.steps
            home.drop(episode)
            self.counts.steps -= before - home.steps  # else a budget in steps would depend on who dies
            home.to_launch.appendleft(episode)

    def _add_counting_steps(self, outcome: Outcome, again: Sequence[int], steps_per_update: int) -> None:
        batch = self._find(outcome.launch.batch)
        count = len(outcome.launch.episodes)
        batch.in_flight -= count
        if outcome.trajectories is not None:
            batch.take(outcome.trajectories)
            count -= len(outcome.trajectories.headers)
        # Where nothing took their places, but a worker died, they are as much part of the batch as before: what is
        # played must not depend on who dies.
        unplayed = max(0, count - len(outcome.lost))
        batch.to_launch.extendleft(sorted([*again, *outcome.unused[:unplayed]], reverse=True))
        self._returned.extend(outcome.unused[unplayed:])
        if batch.in_flight or batch.to_launch:
            return
        if batch.trajectories:
            self._expected_steps = batch.steps / batch.trajectories
        if batch.steps < steps_per_update:
            self._add_round(batch, steps_per_update - batch.steps)

    def _find(self, number: int) -> _OpenBatch:
        return self._batches[number - self._batches[0].number]

    def _home(self, episode: int) -> _OpenBatch:
        return self._find(self._number(episode))

    def _number(self, episode: Any) -> Any:
        """Counting episodes: the number of the batch that an episode, or each of an array, belongs to."""
        return self._first_batch + (episode - self._first_episode) // self._episodes_per_update

    # ---------------------------------------------------------------- batches

    def pop_batch(self) -> Batch | None:
        """Return the next batch in order, if it is whole. `learned` must follow once it is learned from."""
        if not self._batches or not self._is_whole(self._batches[0]):
            return None
        batch = self._batches.popleft()
        self._popped.append(batch)
        if not batch.trajectories:
            return Batch(batch.number, None, np.empty(0, np.int64))
        trajectories = Trajectories.join(batch.parts)
        batch.parts = [trajectories]
        # Fragments of an episode that an earlier batch began are in no part of this one: they count to the first.
        parts = [batch.part.get(episode, 0) for episode in trajectories.headers["episode"].tolist()]
        return Batch(batch.number, trajectories, np.array(parts, np.int64))

    def _is_whole(self, batch: _OpenBatch) -> bool:
        waits_for = batch.out if self.counts_episodes else batch.in_flight
        return not batch.to_launch and not waits_for

    def learned(self) -> None:
        """Note that the batch popped first has become a new policy version."""
        self.learned_batches += 1
        learned = self._popped.popleft()
        self.counts.learned += learned.ended
        self._given_up.difference_update(learned.part)
        for part in learned.parts:
            for episode in part.headers["episode"].tolist():  # it may have begun in a batch that is not learned yet
                for batch in self._under_way():
                    batch.part.pop(episode, None)
        self._count_waiting()

    @property
    def counts_episodes(self) -> bool:
        """Whether batches are counted in episodes, not in steps."""
        return self._steps_per_update is None

    @property
    def done(self) -> bool:
        """Whether the budget is used up and every batch was popped."""
        return not self._batches and self.exhausted

    # ----------------------------------------------------------------- checkpoints

    def _under_way(self) -> list[_OpenBatch]:
        """Return the batches that are not learned yet."""
        return [*self._popped, *self._batches]

    def state_dict(self) -> dict[str, Any]:
        """Return what is learned, as plain data for JSON. What is under way will be played again.

        Counting steps, an episode of which fragments are learned counts with these; it is given up.
        """
        under_way = self._under_way()
        again = list(dict.fromkeys([episode for batch in under_way for episode in batch.part] + list(self._returned)))
        given_up = self.counts.given_up + len(self._cut.difference(again)) - len(self._given_up.intersection(again))
        next_episode = self._next_episode
        if self.counts_episodes:
            next_episode, again = min(again, default=next_episode), []
        return {
            "batches": self.learned_batches,
            "next_episode": next_episode,
            "again": again,
            "expected_steps": under_way[0].expected_steps if under_way else self._expected_steps,
            "played": self.counts.played,
            "finished": self.counts.finished - self.counts.waiting,
            "steps": self.counts.steps - sum(batch.steps for batch in under_way),
            "learned": self.counts.learned,
            "discarded": self.counts.discarded + self.counts.waiting,
            "lost": self.counts.lost,
            "given_up": given_up,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave, before anything is handed out. Raises KeyError or ValueError."""
        again = [natural(episode) for episode in state["again"]]
        expected_steps = float(state["expected_steps"])
        if not 1 <= expected_steps < math.inf or (again and self.counts_episodes):
            raise ValueError("it does not tell what is left to be played")
        self.learned_batches = self._next_batch = self._first_batch = natural(state["batches"])
        self._next_episode = self._first_episode = natural(state["next_episode"])
        self._returned, self._expected_steps = deque(again), expected_steps
        for name in ("played", "finished", "steps", "learned", "discarded", "lost", "given_up"):
            setattr(self.counts, name, natural(state[name]))
