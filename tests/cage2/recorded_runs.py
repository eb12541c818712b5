"""Small runs of a search over orders, with every update as the learner saw it."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.numpy import load_file
from search_rounds import scripted

from aiotrain import Config, PPOConfig, train
from aiotrain.cage2 import Cage2, SearchConfig
from aiotrain.cage2.domain import Simulator
from aiotrain.cage2.search.strategies import SEARCHES
from aiotrain.cage2.workflows import NAMED_ORDERS, ONE_HOT, ORDERS, Order, order_text
from aiotrain.learn.ppo import Learner
from aiotrain.transport.slot_ring import Trajectories

WITHIN_S = 90
BITS = 52
A, B = NAMED_ORDERS["critical_first"], NAMED_ORDERS["reverse"]


ONE_BY_ONE = SearchConfig(parallel_workflows=1, max_episodes_per_workflow=24, patience=2)


def config(search: SearchConfig = ONE_BY_ONE, simulator: Simulator = "compiled", **changes: Any) -> Config:
    settings: dict[str, Any] = {
        "workers": 2,
        "total_episodes": 84,
        "episodes_per_update": 8,
        "ppo": PPOConfig(hidden_sizes=(8,), epochs=2, minibatch_size=256),
        "device": "cpu",
    }
    return Config(env=Cage2(simulator=simulator, workflow="search", search=search), **(settings | changes))


class Learned(NamedTuple):
    """An update as the learner saw it."""

    batch: Trajectories
    before: dict[str, Any]
    """State of the learner when it was given the batch."""
    after: dict[str, Any]
    log_probs: npt.NDArray[np.float32]
    """Of the batch's actions, by the policy as it was before."""

    @property
    def orders(self) -> list[str]:
        """The order that each trajectory was played under; all its observations must show the same."""
        batch = self.batch
        shown = np.split(batch.observations[:, BITS:], np.cumsum(batch.headers["length"])[:-1])
        orders = []
        for rows, last in zip(shown, batch.final_observations[:, BITS:], strict=True):
            assert (rows == last).all(), "an episode of several orders"
            (number,) = np.flatnonzero((last == ONE_HOT).all(axis=1))
            orders.append(order_text(ORDERS[number]))
        return orders


class Run(NamedTuple):
    """What a run left behind."""

    folder: Path
    learned: list[Learned]

    def rows(self, name: str) -> list[dict[str, str]]:
        with (self.folder / name).open(newline="") as file:
            return list(csv.DictReader(file))

    @property
    def trainings(self) -> list[dict[str, str]]:
        return self.rows("workflows.csv")

    @property
    def updates(self) -> list[dict[str, str]]:
        return self.rows("updates.csv")

    @property
    def first_updates(self) -> list[int]:
        """For each training, the number of its first update, from 0."""
        began = np.cumsum([0, *(int(training["episodes"]) for training in self.trainings)])[:-1].tolist()
        learned_before = [int(row["episodes"]) - int(row["batch_episodes"]) for row in self.updates]
        return [learned_before.index(episodes) for episodes in began]

    @property
    def weights(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        return {path.name: load_file(path) for path in sorted(self.folder.glob("*.safetensors"))}


def play(folder: Path, orders: Sequence[Order] = (), **changes: Any) -> Run:
    """Train into ``folder`` and record every update; a search proposes ``orders``, if there are any."""
    learned: list[Learned] = []
    update = Learner.update

    def recording(learner: Learner, batch: Trajectories, progress: float) -> dict[str, float]:
        before, log_probs = learner.snapshot(), log_probs_of(learner, batch)
        metrics = update(learner, batch, progress)
        learned.append(Learned(batch, before, learner.snapshot(), log_probs))
        return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "update", recording)
        if orders:
            patch.setitem(SEARCHES, "gp-ucb", scripted(orders))
        asyncio.run(asyncio.wait_for(train(config(run_dir=str(folder), **changes)), WITHIN_S))
    return Run(folder, learned)


@torch.no_grad()
def log_probs_of(learner: Learner, batch: Trajectories) -> npt.NDArray[np.float32]:
    logits = learner.network.actor(torch.from_numpy(batch.observations).float())
    actions = torch.from_numpy(batch.actions).long()
    return torch.log_softmax(logits, -1).gather(1, actions[:, None])[:, 0].numpy()


def assert_same(first: Any, second: Any) -> None:
    """Two states of a learner are equal to the bit."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    else:
        np.testing.assert_array_equal(first, second)


def names_of(run: Run) -> list[list[str]]:
    """The orders of each update, by its row."""
    return [row["curriculum"].split(";") for row in run.updates]
