"""Specs, weights and trajectories for tests that need no environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from aiotrain.cage2.search.strategies import Search
from aiotrain.cage2.search.workflow_search import Training, WorkflowSearch
from aiotrain.cage2.workflows import ORDER_INDEX, Order
from aiotrain.play.policy import PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.transport.slot_ring import SEALED, Trajectories, header_dtype
from envs import Action, Observation, Toy


def spec_of(observation: Observation = "box", action: Action = "discrete") -> EnvSpec:
    return EnvSpec.of(Toy(observation, action), "toy")


def weights_for(shape: PolicyShape, seed: int = 0, deviation: float = 0.7) -> npt.NDArray[np.float32]:
    """A random vector of parameters: means about 0, scales about 1."""
    rng = np.random.default_rng(seed)
    vector = (deviation * rng.standard_normal(shape.size)).astype(np.float32)
    mean, scale = shape.split(vector)[:2]
    mean[...] = rng.normal(0, 0.1, shape.inputs)
    scale[...] = rng.uniform(0.5, 2, shape.inputs)
    return vector


def trajectories(
    spec: EnvSpec,
    lengths: Sequence[int],
    *,
    episodes: Sequence[int] | None = None,
    fragments: Sequence[int] | None = None,
    ended: Sequence[bool] | None = None,
    terminated: Sequence[bool] | None = None,
    versions: Sequence[int] | None = None,
    metrics: Sequence[str] = (),
    seed: int = 0,
) -> Trajectories:
    """Random trajectories of these ``lengths``; by default each is an episode that terminated. ``metrics`` are 0."""
    rng = np.random.default_rng(seed)
    count, steps = len(lengths), sum(lengths)
    headers = np.zeros(count, header_dtype(metrics))
    headers["length"] = headers["episode_steps"] = lengths
    headers["episode"] = range(count) if episodes is None else episodes
    headers["fragment"] = 0 if fragments is None else fragments
    headers["ended"] = True if ended is None else ended
    headers["terminated"] = True if terminated is None else terminated
    headers["version"] = 0 if versions is None else versions
    headers["state"] = SEALED
    masks = (rng.random((steps, spec.masked)) < 0.5).astype(np.int8)
    if spec.action_kind == "discrete":
        actions: npt.NDArray[Any] = rng.integers(0, spec.outputs, steps).astype(spec.ring_action_dtype)
    else:
        actions = rng.standard_normal((steps, spec.outputs)).astype(np.float32)
    if spec.has_action_mask:
        masks[np.arange(steps), actions] = 1
    return Trajectories(
        headers,
        _observations(spec, steps, rng),
        _observations(spec, count, rng),
        actions,
        np.log(rng.uniform(0.1, 0.9, steps)).astype(np.float32),
        rng.standard_normal(steps).astype(np.float32),
        np.zeros(steps, np.float32),
        masks,
    )


def _observations(spec: EnvSpec, count: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    shape = (count, *spec.observation_shape)
    match spec.observation_kind:
        case "bits":
            return rng.integers(0, 2, shape).astype(spec.observation_dtype)
        case "one_hot":
            return (rng.integers(0, spec.inputs, shape) + spec.observation_start).astype(spec.observation_dtype)
    return rng.standard_normal(shape).astype(spec.observation_dtype)


def scripted(orders: Sequence[Order]) -> type[Search]:
    """A search that proposes ``orders`` one after the other."""

    class Scripted(Search):
        def _choose(self, candidates: npt.NDArray[np.int64], generator: np.random.Generator) -> int:
            return ORDER_INDEX[orders[self.proposals]]

    return Scripted


def judged(
    compliance: float | Sequence[float], episodes: int = 10, value: float = -100.0, bonus: float = 5.0
) -> Trajectories:
    """Episodes of an order, all of this compliance, or one of each."""
    each = [compliance] * episodes if isinstance(compliance, float) else list(compliance)
    made = trajectories(spec_of(), [2] * len(each), metrics=("compliance",))
    made.headers["compliance"] = each
    made.headers["episode_return"] = value
    made.headers["episode_bonus"] = bonus
    return made


class Rounds:
    """Opens the batches of a search and has it learn what was played of them, as a trainer does."""

    def __init__(self, search: WorkflowSearch) -> None:
        self.search = search
        self.opened = self.learned = 0
        self.over: list[Any] = []

    def choose(self) -> list[Order]:
        """Let as many orders begin as there are places for."""
        orders = self.search.choose()
        self.search.begin()
        return orders

    def open(self) -> list[Order] | None:
        """The orders of the next batch's parts; None if no batch is to be opened now."""
        options = self.search.plan(self.opened)
        if options is None:
            return None
        self.opened += 1
        assert all(option.keys() == {"workflow"} for option in options), f"options besides the order: {options}"
        return [option["workflow"] for option in options]

    def learn(self, *parts: Trajectories) -> list[Order]:
        """Learn the oldest batch, with what was played of each of its parts. The orders whose trainings are over."""
        if self.learned == self.opened:
            assert self.open() is not None, "no order is being trained, but there is something to learn"
        numbers = np.repeat(np.arange(len(parts)), [len(part.headers) for part in parts])
        first = 0
        for part in parts:  # joining sorts by episode
            part.headers["episode"] = first + np.arange(len(part.headers))
            first += len(part.headers)
        headers = Trajectories.join(parts).headers if parts else np.empty(0, header_dtype(("compliance",)))
        over = self.search.learned(self.learned, headers, numbers)
        self.learned += 1
        self.over += over
        return [running.order for running in over]

    def finish(self, reason: str = "") -> Training:
        """Finish the training that was over first, or cut off the one that goes on."""
        (training,) = self.search.finish([self.over.pop(0) if self.over else self.search.running[0]], reason)
        return training
