"""Playing episodes of Gymnasium environments into slots, all environments of a worker in one batch."""

from __future__ import annotations

import bdb
import itertools
import math
import multiprocessing
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
import numpy.typing as npt

from aiotrain.errors import EnvError
from aiotrain.play.inspection import (
    BREAKDOWNS,
    NUMBERS,
    InvalidValue,
    close_envs,
    mask_fault,
    metric_of,
    numbers_of,
    observation_fault,
)
from aiotrain.play.policy import NumpyPolicy, PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.transport.slot_ring import BROKEN_OFF, PLAYING, SEALED, Ring, RingLayout, metric_faults

__all__ = [
    "Assignment",
    "PlayResult",
    "Player",
    "episode_streams",
]

_NOISE_BLOCK = 128  # steps whose random numbers are drawn at once


@dataclass(frozen=True)
class Assignment:
    """What a worker is to play, and into which slots. Plain data."""

    worker: int
    envs: int
    run_seed: int
    spec: EnvSpec
    policy: PolicyShape
    ring_layout: RingLayout
    asks_for_metrics: bool = False
    """Whether the players tell which numbers in ``info`` are no metrics."""


class LostEpisode(NamedTuple):
    """An episode that was begun and cannot be finished."""

    episode: int
    reason: str
    """What happened, with worker, episode, seed and, where known, the step, the exit code or the traceback."""
    worker: int | None = None
    """The worker that played it."""
    seed: int | None = None
    """The seed that it was reset with."""
    step: int | None = None
    """The episode's last step that returned, from 1; 0 before the first; None where unknown."""
    invalid: bool = False
    """Whether the environment returned what no environment may (rather than raising)."""

    @property
    def where(self) -> dict[str, int | None]:
        """Return the fields of an AiotrainError about it."""
        return {"worker": self.worker, "episode": self.episode, "seed": self.seed, "step": self.step}


class PlayResult(NamedTuple):
    """What a task sends back beside the slots that it sealed."""

    unused: tuple[int, ...]
    """Episodes that were not begun, because earlier ones took their slots."""
    failures: tuple[LostEpisode, ...]
    cpu_s: float
    """CPU seconds of the task."""
    unnamed: tuple[str, ...] = ()
    """Numbers that ``info`` told at the end of an episode and that are no metrics, each told once."""


def episode_streams(run_seed: int, episode: int) -> tuple[int, np.random.Generator]:
    """Return the seed that ``episode`` is reset with, and the generator of its actions."""
    generator = np.random.default_rng((run_seed, episode))
    return int(generator.integers(2**31)), generator


class _Lane:
    """One environment of a worker and the episode that it is playing."""

    def __init__(self, env: gymnasium.Env[Any, Any], worker: int) -> None:
        self.env = env
        self.worker = worker
        self.episode = -1
        self.seed = 0
        self.fragment = 0
        self.steps_before = 0  # of the episode, in earlier slots
        self.return_before = 0.0
        self.bonus_before = 0.0
        self.observation: Any = None
        self.mask: Any = None
        self.generator: np.random.Generator
        self.noise: npt.NDArray[Any]
        self.noise_used = 0
        # of the slot that is being written
        self.slot = -1
        self.began_s = 0.0
        self.rows: npt.NDArray[Any]
        self.actions: list[Any] = []
        self.log_probs: list[float] = []
        self.rewards: list[float] = []
        self.bonuses: list[float] = []
        self.masks: list[Any] = []


class Player:
    """Plays tasks in ``envs``, all of which act in one batch. A broken one is replaced by what ``make`` makes.

    Where ``envs`` are more than ``assignment.envs``, they belong to several workers, the first of which is
    ``assignment.worker``.

    ``announce`` is told the environments and their actions before these are stepped one after the other.
    """

    def __init__(
        self,
        assignment: Assignment,
        ring: Ring,
        envs: list[Any],
        make: Callable[[], Any],
        announce: Callable[[list[Any], Sequence[Any]], None] = lambda envs, actions: None,
    ) -> None:
        self._assignment, self._spec, self._ring = assignment, assignment.spec, ring
        self._envs, self._make, self._announce = envs, make, announce
        self._dtype = np.dtype(self._spec.observation_dtype)
        self._one_hot = self._spec.observation_kind == "one_hot"
        self._policy = NumpyPolicy(assignment.policy)
        self.parameters = self._policy.parameters
        """To be overwritten in place, float32; `refresh` must follow."""
        self._version = -1
        self._untold = (math.nan,) * len(self._spec.metrics)
        self._known = {"bonus", "action_mask", *self._spec.metrics}
        self._unnamed: set[str] = set()
        self._idle = [_Lane(env, assignment.worker + place // assignment.envs) for place, env in enumerate(envs)]
        self._unfinished: deque[_Lane] = deque()
        """Lanes whose episode outgrew the slots of its task."""
        low, high = (
            np.array(bound, assignment.spec.action_dtype) for bound in (self._spec.action_low, self._spec.action_high)
        )
        self._clip = (low, high)

    def refresh(self, version: int) -> None:
        """Act with what was written to ``parameters``, which is this version of the policy."""
        self._policy.refresh()
        self._version = version

    @property
    def unfinished(self) -> int:
        """Episodes that outgrew the slots of their task."""
        return len(self._unfinished)

    def play(
        self, slots: Sequence[int], episodes: Sequence[int], options: Sequence[Mapping[str, Any]] = ()
    ) -> PlayResult:
        """Fill ``slots``, first going on with unfinished episodes, then beginning ``episodes`` in their order.

        ``options`` are what the environment's reset is given, for each of ``episodes``, or none at all.
        """
        cpu_began = time.process_time()
        free_slots, waiting = deque(slots), deque(itertools.zip_longest(episodes, options))
        active: list[_Lane] = []
        failures: list[LostEpisode] = []
        while True:
            while free_slots and (self._unfinished or (self._idle and waiting)):
                lane = self._unfinished.popleft() if self._unfinished else self._idle.pop()
                slot = free_slots.popleft()
                try:
                    if lane.episode < 0:
                        self._begin_episode(lane, slot, *waiting.popleft())
                    else:
                        self._go_on(lane, slot)
                except BREAKDOWNS as error:
                    failures.append(self._fail(lane, error))
                else:
                    active.append(lane)
            if not active:
                break
            active = self._step_until_one_leaves(active, failures)
        cpu_s, unnamed = time.process_time() - cpu_began, tuple(sorted(self._unnamed))
        self._known |= self._unnamed
        self._unnamed.clear()
        return PlayResult(tuple(episode for episode, _ in waiting), tuple(failures), cpu_s, unnamed)

    def _begin_episode(self, lane: _Lane, slot: int, episode: int, options: Mapping[str, Any] | None) -> None:
        lane.episode = episode
        lane.seed, lane.generator = episode_streams(self._assignment.run_seed, episode)
        lane.fragment = lane.steps_before = 0
        lane.return_before = lane.bonus_before = 0.0
        lane.noise, lane.noise_used = self._policy.noise(lane.generator, _NOISE_BLOCK), 0
        self._begin_slot(lane, slot)
        observation, info = lane.env.reset(seed=lane.seed, options=dict(options) if options else None)
        self._write_observation(lane, observation)
        self._take_mask(lane, info)

    def _go_on(self, lane: _Lane, slot: int) -> None:
        self._begin_slot(lane, slot)
        self._write_observation(lane, lane.observation)

    def _begin_slot(self, lane: _Lane, slot: int) -> None:
        lane.slot = slot
        lane.actions, lane.log_probs, lane.rewards, lane.bonuses, lane.masks = [], [], [], [], []
        lane.rows = self._ring.observations[slot]
        header = self._ring.headers[slot]
        header["episode"], header["seed"], header["worker"] = lane.episode, lane.seed, lane.worker
        lane.began_s = header["began_s"] = time.monotonic()
        header["state"] = PLAYING

    def _write_observation(self, lane: _Lane, observation: Any) -> None:
        """Put ``observation`` in the slot's next row. Its values are checked when the slot is full, its shape now."""
        if (
            np.shape(observation) != self._spec.observation_shape
            or (self._one_hot and not 0 <= observation - self._spec.observation_start < self._spec.inputs)
            or not np.can_cast(np.asarray(observation).dtype, self._dtype, "same_kind")
        ):
            raise InvalidValue(observation_fault(observation, self._spec))
        lane.rows[len(lane.rewards)] = observation

    def _take_mask(self, lane: _Lane, info: Mapping[str, Any]) -> None:
        """Note which actions ``info`` allows in the step that follows."""
        if fault := mask_fault(info, self._spec):
            raise InvalidValue(fault)
        if self._spec.has_action_mask:
            lane.mask = np.array(info["action_mask"], np.bool_)  # of its own: environments may write theirs anew

    def _step_until_one_leaves(self, active: list[_Lane], failures: list[LostEpisode]) -> list[_Lane]:
        """Step all ``active`` lanes together until at least one ends its slot; return those that go on."""
        while True:
            inputs, noise = self._inputs(active), self._noise(active)
            masks = np.array([lane.mask for lane in active]) if self._spec.has_action_mask else None
            actions, log_probs = self._policy.act(inputs, noise, masks)
            for_env = self._for_env(actions)
            self._announce([lane.env for lane in active], for_env)
            stay: list[_Lane] = []
            for lane, action, given, log_prob in zip(
                active, actions.tolist(), for_env, log_probs.tolist(), strict=True
            ):
                try:
                    goes_on = self._step(lane, action, given, log_prob)
                except BREAKDOWNS as error:
                    failures.append(self._fail(lane, error))
                    continue
                if goes_on:
                    stay.append(lane)
            if len(stay) < len(active):
                return stay

    def _inputs(self, active: list[_Lane]) -> npt.NDArray[np.float32]:
        rows = [lane.rows[len(lane.rewards)] for lane in active]
        return self._spec.encode(np.stack(rows) if len(rows) > 1 else rows[0][None])

    def _noise(self, active: list[_Lane]) -> npt.NDArray[Any]:
        drawn = []
        for lane in active:
            if lane.noise_used == _NOISE_BLOCK:
                lane.noise, lane.noise_used = self._policy.noise(lane.generator, _NOISE_BLOCK), 0
            drawn.append(lane.noise[lane.noise_used])
            lane.noise_used += 1
        return np.array(drawn)

    def _for_env(self, actions: npt.NDArray[Any]) -> Sequence[Any]:
        """Return the drawn ``actions`` as the environment takes them."""
        if self._spec.action_kind == "gaussian":
            return list(np.clip(actions, *self._clip).astype(self._spec.action_dtype, copy=False))
        if self._spec.action_start:
            actions = actions + self._spec.action_start
        given: list[Any] = actions.tolist()
        return given

    def _step(self, lane: _Lane, action: Any, given: Any, log_prob: float) -> bool:
        """Take one step of ``lane``; return whether it goes on in the same slot."""
        observation, reward, terminated, truncated, info = lane.env.step(given)
        lane.actions.append(action)
        lane.log_probs.append(log_prob)
        lane.rewards.append(reward)  # type: ignore[arg-type]  # turned into a float, or refused, with the rest
        self._write_observation(lane, observation)
        lane.bonuses.append(info.get("bonus", 0.0))
        lane.masks.append(lane.mask)
        if terminated or truncated:
            self._seal(lane, ended=True, terminated=bool(terminated), metrics=self._metrics(info))
            lane.episode = -1
            self._idle.append(lane)
            return False
        self._take_mask(lane, info)
        if len(lane.rewards) == self._assignment.ring_layout.steps:
            lane.observation = observation
            self._seal(lane, ended=False, terminated=False, metrics=self._untold)
            self._unfinished.append(lane)
            return False
        return True

    def _metrics(self, info: Mapping[str, Any]) -> tuple[float, ...]:
        """Return the episode's metrics from its last ``info``, NaN for those that it lacks."""
        if self._assignment.asks_for_metrics:
            numbers = {name for name, told in info.items() if isinstance(name, str) and isinstance(told, NUMBERS)}
            self._unnamed |= {name for name in numbers - self._known if not metric_faults([name])}
        return tuple(metric_of(name, info.get(name, math.nan)) for name in self._spec.metrics)

    def _seal(self, lane: _Lane, *, ended: bool, terminated: bool, metrics: tuple[float, ...]) -> None:
        """Write what the lane gathered to its slot, header last. Raises InvalidValue for NaN."""
        ring, slot, length = self._ring, lane.slot, len(lane.rewards)
        rewards, bonuses = (self._numbers(lane, what) for what in ("reward", "bonus"))
        self._refuse_nan(lane, {"reward": rewards, "bonus": bonuses})
        ring.actions[slot, :length] = lane.actions
        ring.log_probs[slot, :length] = lane.log_probs
        ring.rewards[slot, :length] = rewards
        ring.bonuses[slot, :length] = bonuses
        lane.bonus_before += sum(bonuses.tolist())
        if self._spec.has_action_mask:
            ring.masks[slot, :length] = lane.masks
        lane.steps_before += length
        lane.return_before += float(rewards.sum())
        ring.headers[slot] = (
            ended,
            terminated,
            lane.worker,
            length,
            lane.fragment,
            lane.episode,
            self._version,
            lane.seed,
            lane.steps_before,
            lane.return_before,
            lane.bonus_before,
            lane.began_s,
            *metrics,
            SEALED,
        )
        lane.fragment += 1

    def _numbers(self, lane: _Lane, what: Literal["reward", "bonus"]) -> npt.NDArray[np.float64]:
        """Return the rewards or bonuses of the slot, float64 ``[T]``. Raises InvalidValue for what is no number."""
        values = lane.rewards if what == "reward" else lane.bonuses
        try:
            return numbers_of(values, what)
        except (TypeError, ValueError, OverflowError):
            step = next((step for step, each in enumerate(values) if not isinstance(each, NUMBERS)), len(values) - 1)
            fault = f"a {what} of type {type(values[step]).__name__} where one number belongs"
        del lane.rewards[step + 1 :]  # so that the report names this step
        raise InvalidValue(fault)

    def _refuse_nan(self, lane: _Lane, numbers: Mapping[str, npt.NDArray[np.float64]]) -> None:
        for what, values in numbers.items():
            with np.errstate(over="ignore"):
                bad = ~np.isfinite(values.astype(np.float32))  # as which they are kept
            if bad.any():
                step = int(bad.argmax())
                del lane.rewards[step + 1 :]  # so that the report names this step
                raise InvalidValue(f"a {what} of {values[step]}")
        seen = lane.rows[: len(lane.rewards) + 1]
        if seen.dtype.kind == "f" and not np.isfinite(seen).all():
            step = int((~np.isfinite(seen)).reshape(len(seen), -1).any(axis=1).argmax())
            del lane.rewards[step:]
            raise InvalidValue(observation_fault(seen[step], self._spec))

    def _fail(self, lane: _Lane, error: BaseException) -> LostEpisode:
        """Report the episode as failed and give the lane a new environment."""
        if isinstance(error, bdb.BdbQuit) and multiprocessing.parent_process() is None:
            raise error  # in the main process: whoever debugs the environment wants no more of it
        invalid = isinstance(error, InvalidValue)
        step = lane.steps_before + len(lane.rewards)
        where = f"worker {lane.worker}, episode {lane.episode}, seed {lane.seed}, step {step}"
        if invalid:
            what = f"the environment returned {error}"
        elif isinstance(error, EnvError):  # of an environment in another process: it has the traceback from there
            what = str(error)
        else:
            what = f"the environment raised\n{traceback.format_exc()}"
        self._ring.headers["state"][lane.slot] = BROKEN_OFF
        report = f"{where}: {what}".rstrip()
        failure = LostEpisode(lane.episode, report, lane.worker, lane.seed, step, invalid)
        close_envs([lane.env])
        place = self._envs.index(lane.env)
        lane.env = self._envs[place] = self._make()
        lane.episode = -1
        self._idle.append(lane)
        return failure
