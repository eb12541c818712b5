"""The parts of a run that are saved, as a trainer puts them together, without anybody who plays."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from aiotrain import CheckpointError, Config, Curriculum, PPOConfig, RunServices
from aiotrain.learn.ppo import Learner
from aiotrain.play.policy import PolicyShape
from aiotrain.runs.checkpoints import Checkpoints, load_checkpoint
from aiotrain.runs.folder import RunFolder, restore
from aiotrain.training.batcher import Batcher
from aiotrain.training.reports import Ledger, columns_of
from aiotrain.transport.trajectories import Trajectories
from sample_data import spec_of, trajectories

SPEC = dataclasses.replace(spec_of("box", "discrete"), metrics=("compliance",))
SHAPE = PolicyShape.of(SPEC, (8,))
ACCOUNT = dict.fromkeys(("played", "waiting", "discarded", "lost", "given_up"), 0)


class Levels(Curriculum):
    """Goes up a level with each update, and remembers the mean return of each."""

    def __init__(self, run: RunServices) -> None:
        super().__init__(run)
        self.level, self.means = 0, np.zeros(0)

    def plan(self, batch: int) -> Sequence[Mapping[str, Any]]:
        return [{"level": self.level}]

    def label(self, batch: int) -> str:
        return f"level {self.level}"

    def learned(self, batch: int, episodes: Any, parts: Any) -> None:
        self.level += 1
        self.means = np.append(self.means, episodes["episode_return"].mean())

    def state_dict(self) -> dict[str, Any]:
        return {"level": self.level, "means": self.means}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if len(state["means"]) != state["level"]:
            raise ValueError("there is no mean return for each level")
        self.level, self.means = state["level"], np.asarray(state["means"], np.float64)


class SavedRun:
    """A run in a folder, new or resumed."""

    def __init__(
        self,
        folder: Path,
        checkpoint: Path | None = None,
        make: Callable[[RunServices], Curriculum] = Levels,
    ) -> None:
        self.warnings: list[str] = []
        self.config = Config(env="CartPole-v1", run_dir=str(folder), ppo=PPOConfig(hidden_sizes=(8,)))
        self.learner = Learner(SPEC, SHAPE, self.config.ppo, seed=1, device=torch.device("cpu"))
        self.batcher = Batcher(
            episodes_per_update=10,
            steps_per_update=None,
            max_policy_lag=1,
            total_episodes=1000,
            total_steps=None,
            slot_steps=10,
        )
        self.ledger = Ledger(SPEC.metrics)
        services = RunServices(
            self.learner,
            event=lambda kind, **details: None,
            row=lambda name, values: self.folder.row(name, values),
            save_policy=lambda name: None,
        )
        self.curriculum = make(services)
        parts: dict[str, Any] = {"batcher": self.batcher, "ledger": self.ledger, "curriculum": self.curriculum}
        warn = self.warnings.append
        resumed = None
        if checkpoint is not None:
            resumed = restore(load_checkpoint(checkpoint), self.config, SPEC, self.learner, parts, warn)
        self.folder = RunFolder(
            folder,
            self.config,
            SPEC,
            columns=columns_of(SPEC.metrics),
            learner=self.learner,
            parts=parts,
            resumed=resumed,
            warn=warn,
        )
        self._advance()

    def _advance(self) -> None:
        self.curriculum.advance(has_more=True)
        self.curriculum.published()
        self.curriculum.plan(self.updates)

    @property
    def updates(self) -> int:
        return len(self.ledger.returns)

    def learn(self, updates: int = 3) -> None:
        """Learn from episodes that were never played."""
        for _ in range(updates):
            number = self.updates
            batch = _batch(number)
            label = self.curriculum.label(number)
            losses = self.learner.update(batch, 0.1)
            self.curriculum.learned(number, batch.headers, np.zeros(len(batch.headers), np.int64))
            update = self.ledger.add(batch, number + 1, losses=losses, account=ACCOUNT, collect_s=0.1, learn_s=0.2)
            self.folder.update(update.row(SPEC.metrics), label)
            self._advance()

    def save(self) -> None:
        self.folder.save_checkpoint(self.folder.state_dict(), self.updates, self.ledger.recent_return())

    def state(self) -> dict[str, Any]:
        """Everything but the time, and the lines of files."""
        state = self.folder.state_dict() | {"learner": self.learner.state_dict(), "lines": None}
        return state | {"ledger": {k: v for k, v in state["ledger"].items() if k not in ("elapsed_s", "trained_s")}}

    def assert_goes_on_as(self, other: SavedRun) -> None:
        """Compare all that is saved but for the folder, and the next update."""
        ours, theirs = ({**each.state(), "config": None} for each in (self, other))
        assert_equal(ours, theirs)
        assert self.ledger.last == other.ledger.last
        for each in (self, other):
            each.learn(1)
        np.testing.assert_array_equal(self.learner.parameters(), other.learner.parameters())
        assert_equal(self.curriculum.state_dict(), other.curriculum.state_dict())


def _batch(number: int) -> Trajectories:
    batch = trajectories(SPEC, [9, 4, 7], metrics=SPEC.metrics, seed=number)
    batch.headers["compliance"] = 0.5
    batch.headers["episode_return"] = -10.0 * number
    return batch


@contextlib.contextmanager
def closing(run: SavedRun) -> Iterator[SavedRun]:
    try:
        yield run
    finally:
        with contextlib.suppress(CheckpointError):
            run.folder.close()


def assert_equal(one: Any, other: Any) -> None:
    np.testing.assert_equal(_json_like(one), _json_like(other))


def _json_like(value: Any) -> Any:
    """``value`` with lists in place of tuples; arrays keep their dtype."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, dict):
        return {str(key): _json_like(each) for key, each in value.items()}
    return [_json_like(each) for each in value] if isinstance(value, list | tuple) else value


def newest(folder: Path) -> Path:
    """The newest of the checkpoints that `saved` makes."""
    return folder / "checkpoints" / "update-000003.safetensors"


def saved(folder: Path, make: Callable[[RunServices], Curriculum] = Levels) -> Path:
    """Leave a run with checkpoints after updates 1 and 3 in ``folder``."""
    with closing(SavedRun(folder, make=make)) as run:
        run.learn(1)
        run.save()
        run.learn(2)
        run.save()
    return folder


def forge(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the newest checkpoint's state, as somebody would who can compute checksums."""
    state = copy.deepcopy(dict(load_checkpoint(folder).state))
    change(state)
    Checkpoints(folder, keep=9).save(3, state, math.nan)


def try_to_resume(folder: Path, make: Callable[[RunServices], Curriculum] = Levels) -> None:
    """It may be refused by an error of this package, or work; nothing else may come of it."""
    with contextlib.suppress(CheckpointError), closing(SavedRun(folder, newest(folder), make)) as run:
        run.batcher.wanted()
        run.curriculum.status()
        run.learner.update(_batch(9), 0.5)


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
) | st.sampled_from([np.zeros(()), np.zeros(3), np.ones((2, 2), np.float32), np.zeros(0, np.int64)])
"""What may stand in place of something else in a forged state."""


def put_anywhere(state: Any, value: Any, random: Random) -> None:
    """Put ``value`` in place of any other in a nested state."""
    key = random.choice(list(state) if isinstance(state, dict) else list(range(len(state))))
    inner = state[key]
    if isinstance(inner, dict | list) and inner and random.random() < 0.9:
        put_anywhere(inner, value, random)
    else:
        state[key] = value
