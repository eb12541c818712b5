"""Whichever collector plays them, episodes are the same, bit for bit, and each comes whole."""

from __future__ import annotations

import asyncio
import functools
import itertools
from typing import Any

import numpy as np
import pytest
from contract import every, expected, player, training

from aiotrain.cage2 import Cage2
from aiotrain.collect.protocol import Launch
from aiotrain.errors import ConfigError
from aiotrain.play.policy import NumpyPolicy
from aiotrain.training.trainer import Trainer
from collector_harness import LIMITED, WITHIN_S, Play, assert_same_play
from envs import Action, Endless, Masked, Observation, Paid, Toy
from sample_data import weights_for

pytestmark = pytest.mark.usefixtures("one_ray")


@every
@pytest.mark.parametrize(
    ("observation", "action", "workers", "envs"),
    [("box", "discrete", 1, 1), ("bits", "shifted", 2, 3), ("one_hot", "gaussian", 3, 2)],
)
@pytest.mark.asyncio
async def test_episodes_are_the_same_whoever_plays_them(
    collector: str, observation: Observation, action: Action, workers: int, envs: int
) -> None:
    env = functools.partial(Toy, observation, action)
    async with player(env, collector, workers=workers, envs=envs) as one:
        await one.open()
        got = await one.play(14)
        status = one.collector.describe()
    assert got.headers["episode"].tolist() == list(range(14))
    assert_same_play(got, await expected(env, 14))
    one.assert_one_fate_each()
    assert one.lost == []
    assert sum(each.episodes for each in status.workers) == 14
    counted = np.bincount(got.headers["worker"][got.headers["ended"]], minlength=len(status.workers))
    assert counted.tolist() == [each.episodes for each in status.workers]
    assert one.warnings == []


@every
@pytest.mark.asyncio
async def test_action_masks_are_kept_by_all(collector: str) -> None:
    async with player(Masked, collector, workers=2, envs=2) as one:
        await one.open()
        got = await one.play(6)
    assert_same_play(got, await expected(Masked, 6))
    assert got.masks.shape == (got.steps, 5)
    assert (got.masks[np.arange(got.steps), got.actions] == 1).all()
    assert not got.masks.all()


@every
@pytest.mark.asyncio
async def test_each_episode_has_its_own_options(collector: str) -> None:
    async with player(Paid, collector, workers=2, envs=2) as one:
        await one.open()
        got = await one.play(8, [{"worth": float(episode)} for episode in range(8)])
    assert np.unique(got.rewards).tolist() == list(range(8))
    assert (got.headers["episode_return"] == got.headers["episode"] * got.headers["episode_steps"]).all()


@every
@pytest.mark.parametrize("simulator", ["compiled", "cyborg"])
@pytest.mark.asyncio
async def test_cage_2_is_the_same_whoever_plays_it(collector: str, simulator: str) -> None:
    """It tells an alignment, which becomes a bonus, and its compiled engine is played by compiled code where it can."""
    env, steps = Cage2(simulator=simulator, workflow="critical_first"), 60  # type: ignore[arg-type]
    async with player(env, collector, workers=1, envs=3, max_episode_steps=steps) as one:
        await one.open()
        got = await one.play(3)
    within = 1e-5 if simulator == "compiled" else 0.0
    assert_same_play(got, await expected(env, 3, max_episode_steps=steps), log_prob_within=within)
    assert np.isfinite(got.headers["compliance"]).any()
    assert got.bonuses.any()


@every
@pytest.mark.asyncio
async def test_a_training_comes_to_the_same_weights_whoever_plays(collector: str) -> None:
    """Without lag: with it, timing decides which version plays what."""
    here = await trained("sequential", envs_per_worker=1)
    there = await trained(collector, envs_per_worker=2)
    np.testing.assert_array_equal(here, there)


async def trained(collector: str, **settings: Any) -> Any:
    async with Trainer(training(Toy, collector, total_episodes=18, **settings)) as trainer:
        async with asyncio.timeout(WITHIN_S):
            updates = [update async for update in trainer]
        assert len(updates) == 3
        return trainer.result().weights


@every
@pytest.mark.asyncio
async def test_each_trajectory_has_the_version_that_played_it(collector: str) -> None:
    """Versions are published while it plays; the log-probabilities tell which one it was."""
    versions = itertools.count(1)
    async with player(functools.partial(Toy, shortest=20, longest=30), collector, workers=2) as one:
        await one.open(slot_steps=8)

        def publish() -> None:
            version = next(versions)
            one.collector.publish(weights_for(one.shape, version), version)

        got = await one.play(10, after=publish)
    policy = NumpyPolicy(one.shape)
    ends = np.cumsum(got.headers["length"])
    for header, end in zip(got.headers, ends, strict=True):
        rows = slice(end - header["length"], end)
        policy.parameters[:] = weights_for(one.shape, int(header["version"]))
        policy.refresh()
        head = policy.head(got.observations[rows])
        log_probs = head - np.log(np.exp(head).sum(axis=1, keepdims=True))
        chosen = log_probs[np.arange(len(head)), got.actions[rows]]
        np.testing.assert_allclose(chosen, got.log_probs[rows], atol=1e-5)
    assert len(np.unique(got.headers["version"])) > 1


@every
@pytest.mark.asyncio
async def test_long_episodes_come_as_fragments_in_their_order(collector: str) -> None:
    env = functools.partial(Toy, shortest=30, longest=60)
    async with player(env, collector, workers=2, envs=2) as one:
        await one.open(slot_steps=7)
        got = await one.play(8)
    ended = got.headers[got.headers["ended"]]
    assert ended["episode"].tolist() == list(range(8))
    for episode, steps in zip(ended["episode"], ended["episode_steps"], strict=True):
        own = got.headers[got.headers["episode"] == episode]
        assert own["fragment"].tolist() == list(range(len(own)))
        assert own["length"].sum() == steps
    whole = await expected(env, 8)
    np.testing.assert_array_equal(got.rewards, whole.rewards)
    np.testing.assert_array_equal(got.observations, whole.observations)


@every
@pytest.mark.asyncio
async def test_endless_environments_are_cut_or_refused(collector: str) -> None:
    async with Play(Endless, collector, envs=2) as one:
        if collector in LIMITED:
            with pytest.raises(ConfigError, match=r"Endless tells no time limit.*--max-episode-steps"):
                await one.open()
            return
        await one.open(slot_steps=5)
        fragments: list[tuple[int, int]] = []
        async with asyncio.timeout(WITHIN_S):
            while one.collector.room(2) < 2:
                await one.collector.outcomes()
            one.collector.submit(Launch(0, (0, 1)))
            while len(fragments) < 6:
                one.collector.submit_unfinished()
                for outcome in await one.collector.outcomes():
                    assert outcome.trajectories is not None
                    fragments += outcome.trajectories.headers[["episode", "fragment"]].tolist()
    assert sorted(fragments) == [(episode, fragment) for episode in (0, 1) for fragment in (0, 1, 2)]
