"""Feeds the learner: launches what the batcher allows, and puts together what comes back, in a task of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from aiotrain.collect.protocol import Collector, Outcome
from aiotrain.errors import ConfigError, EnvError
from aiotrain.play.player import LostEpisode
from aiotrain.training.batcher import Batch, Batcher
from aiotrain.training.throughput import Throughput

__all__ = ["Feeder"]

_LAUNCHES_AT_ONCE = 2  # before other callbacks have their turn; each takes a few tenths of a millisecond
_HOPELESS_AT_FIRST = 3  # episodes given up before any has come to its end, after which the environment is to blame
_HOPELESS = 30  # episodes given up without a trajectory between them, after which it has broken for good


class Feeder:
    """Collects batches, from `begin` until the budget is used up or something ends it. Needs a running loop.

    ``warn`` is told which episodes are given up, ``began`` when the first one is finished, ``ended`` what has ended the
    feeder before its time.
    """

    def __init__(
        self,
        collector: Collector,
        batcher: Batcher,
        *,
        warn: Callable[[str], None],
        began: Callable[[], None],
        ended: Callable[[BaseException], None],
    ) -> None:
        self._collector, self._batcher = collector, batcher
        self._warn, self._began, self._ended = warn, began, ended
        self._batches: deque[Batch] = deque()
        self._begun = asyncio.Event()
        self._news = asyncio.Event()  # a batch is whole, or there will be no more
        self._launching: asyncio.Handle | None = None
        self._given_up_in_a_row = 0
        self._failure: Exception | None = None  # of a launch
        self.throughput = Throughput()
        self._task = asyncio.create_task(self._feed(), name="aiotrain feed")
        self._task.add_done_callback(self._task_ended)

    def begin(self) -> None:
        """Have episodes played from now on."""
        self._begun.set()

    async def next_batch(self) -> Batch | None:
        """Return the next whole batch; None when there will be none. Raises what ended the feeder but for `stop`."""
        while not self._batches:
            if self._task.done():
                if not self._task.cancelled():
                    self._task.result()
                return None
            self._news.clear()
            await self._news.wait()
        return self._batches.popleft()

    def learned(self) -> None:
        """Note that the batch taken last has become a new policy version, so that further ones may be played."""
        self._batcher.learned()
        self._launch_soon()

    @property
    def done(self) -> bool:
        """Whether the budget is used up, and every batch was taken."""
        return self._batcher.done and not self._batches

    async def stop(self) -> None:
        """Launch no more, and drop what comes back."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _feed(self) -> None:
        await self._begun.wait()
        while not self._batcher.done:
            self._launch_soon()
            finished_before = self._batcher.counts.finished
            for outcome in await self._outcomes():
                given_up = self._batcher.add(outcome)
                for episode in given_up:
                    self._give_up(next(lost for lost in outcome.lost if lost.episode == episode))
                if outcome.trajectories is not None:
                    self._given_up_in_a_row = 0
            if self._batcher.counts.finished and not finished_before:
                self._began()
            self.throughput.tick(self._batcher.counts.finished, self._batcher.counts.steps)
            while (batch := self._batcher.pop_batch()) is not None:
                self._batches.append(batch)
                self._news.set()

    async def _outcomes(self) -> Sequence[Outcome]:
        try:
            return await self._collector.outcomes()
        except asyncio.CancelledError:
            if self._failure is None:
                raise
            raise self._failure from self._failure.__cause__  # and not from the cancellation

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Tell what has ended the feeder at once, also if nobody iterates."""
        self._news.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._ended(error)

    def _launch_soon(self) -> None:
        """Have ``_launch`` called in the event loop's next round."""
        if self._launching is None and not self._is_over():
            self._launching = asyncio.get_running_loop().call_soon(self._launch)

    def _launch(self) -> None:
        """Hand out what may be played now, as far as there is room: a few launches now, the rest by and by.

        With 100 workers a new version sets off a hundred launches; all at once they would hold up the event loop.
        """
        self._launching = None
        if self._is_over():
            return
        try:
            if self._batcher.counts_episodes:
                self._collector.submit_unfinished()
            for _ in range(_LAUNCHES_AT_ONCE):
                wanted = self._batcher.wanted()
                if self._batcher.stalled:
                    raise ConfigError(
                        "curriculum: it plans no batch, and none is under way after which it could be asked again; "
                        "return None from plan only while an earlier batch is not learned yet"
                    )
                if not (room := self._collector.room(wanted)):
                    return
                self._collector.submit(self._batcher.next_launch(room))
        except Exception as error:  # the loop would log it, and the batch would never be whole
            self._failure = error
            self._task.cancel()
        else:
            self._launch_soon()

    def _is_over(self) -> bool:
        return self._task.done() or self._task.cancelling() > 0

    def _give_up(self, lost: LostEpisode) -> None:
        self._given_up_in_a_row += 1
        if self._given_up_in_a_row >= (_HOPELESS if self._batcher.counts.finished else _HOPELESS_AT_FIRST):
            raise EnvError(
                f"{self._given_up_in_a_row} episodes were given up, each tried several times, and none came back in "
                f"between. The last one: {lost.reason}",
                **lost.where,
            )
        self._warn(f"episode {lost.episode} is given up after several tries; the last one: {lost.reason}")
