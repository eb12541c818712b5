"""Compiled rollouts in a worker: the same episodes as step by step, whatever else is in the task."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aiotrain.cage2 import CAGE2_ID
from aiotrain.cage2.play.compiled_player import CompiledPlayer
from aiotrain.cage2.scenario import RED_AGENTS
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.inspection import inspect_env
from aiotrain.play.player import Assignment, Player
from aiotrain.play.policy import PolicyShape
from aiotrain.transport.slot_ring import Ring, Trajectories
from sample_data import weights_for

STEPS, SLOTS = 150, 16  # more steps than Player draws random numbers for at once


class Stage:
    """A ring and weights for players that play against ``red_agent``."""

    def __init__(self, red_agent: str, workflow: str | None, **view: Any) -> None:
        factory = EnvFactory.of(
            CAGE2_ID,
            simulator="compiled",
            red_agent=red_agent,
            max_steps=STEPS,
            workflow=workflow,
            alignment_lambda=3.0,
            **view,
        )
        if workflow is not None:
            factory = dataclasses.replace(factory, metrics=("compliance",))
        self.factory = factory
        self.spec = inspect_env(self.factory)[1]
        shape, layout = PolicyShape.of(self.spec, (64, 64)), self.spec.ring_layout(SLOTS, STEPS)
        self.ring = Ring.private(layout)
        vector = weights_for(shape, deviation=0.2)
        mean, scale = shape.split(vector)[:2]
        mean[...], scale[...] = 0, 1
        self.weights, self.version = vector, 3
        self.assignment = Assignment(2, 1, 5, self.spec, shape, layout)

    def player(self, compiled: bool) -> Player | CompiledPlayer:
        made: Player | CompiledPlayer = (
            CompiledPlayer(self.assignment, self.ring, self.factory)
            if compiled
            else Player(self.assignment, self.ring, [self.factory()], self.factory)
        )
        return made

    def play(
        self, player: Player | CompiledPlayer, episodes: Sequence[int], options: Sequence[dict[str, str]] = ()
    ) -> Trajectories:
        slots = self.ring.lend(len(episodes))
        player.parameters[:] = self.weights
        player.refresh(self.version)
        result = player.play(slots, episodes, options)
        assert (result.unused, result.failures) == ((), ())
        played = self.ring.copy_out(slots)
        self.ring.take_back(slots)
        return played


PLAIN = [(agent, workflow, {}) for agent in RED_AGENTS for workflow in (None, "critical_first")]
VIEWS = [
    ("B_lineAgent", "critical_first", {"observation": "memory", "actions": "compact"}),
    ("RedMeanderAgent", None, {"observation": "memory", "actions": "compact"}),
    ("RedMeanderAgent", None, {"observation": "table", "actions": "compact"}),
    ("B_lineAgent", None, {"observation": "memory", "actions": "full"}),
    ("mixed", None, {"red_shares": (1, 1, 1)}),
    ("B_lineAgent", None, {"rules": "leaderboard"}),
]


@pytest.fixture(params=[*PLAIN, *VIEWS], ids=str)
def stage(request: pytest.FixtureRequest) -> Stage:
    red_agent, workflow, view = request.param
    return Stage(red_agent, workflow, **view)


def test_equal_to_playing_step_by_step(stage: Stage) -> None:
    episodes = (8, 3, 5)
    compiled, stepwise = (stage.play(stage.player(each), episodes) for each in (True, False))
    np.testing.assert_array_equal(compiled.observations, stepwise.observations)
    np.testing.assert_array_equal(compiled.final_observations, stepwise.final_observations)
    np.testing.assert_array_equal(compiled.actions, stepwise.actions)
    np.testing.assert_array_equal(compiled.masks, stepwise.masks)
    assert compiled.masks.shape[1] == (42 if stage.spec.has_action_mask else 0)
    np.testing.assert_array_equal(compiled.rewards, stepwise.rewards)
    np.testing.assert_allclose(compiled.bonuses, stepwise.bonuses, rtol=0, atol=1e-6)
    np.testing.assert_allclose(compiled.log_probs, stepwise.log_probs, rtol=0, atol=1e-5)
    for name in compiled.headers.dtype.names or ():
        if name == "began_s":
            continue
        np.testing.assert_allclose(compiled.headers[name], stepwise.headers[name], atol=1e-9, err_msg=name)


def test_an_episode_does_not_depend_on_its_company(stage: Stage) -> None:
    player = stage.player(compiled=True)
    together = stage.play(player, tuple(range(13)))
    for episode in (0, 6, 12):
        alone = stage.play(player, (episode,))
        same = together.select(np.array([episode]))
        for name in ("observations", "actions", "rewards", "log_probs"):
            np.testing.assert_array_equal(getattr(same, name), getattr(alone, name), err_msg=f"{name} of {episode}")


@pytest.mark.parametrize("stage", [PLAIN[1]], indirect=True)
def test_options_give_each_episode_its_order(stage: Stage) -> None:
    compiled, stepwise = stage.player(compiled=True), stage.player(compiled=False)
    own = stage.play(compiled, (2,))
    orders: list[dict[str, str]] = [{"workflow": name} for name in ("reverse", "critical_first", "balanced")]
    others = stage.play(compiled, (2, 3, 4), orders)
    assert (own.observations[0, 52:] != others.observations[0, 52:]).any()
    assert len(np.unique(others.observations[:, 52:], axis=0)) == 3
    expected = stage.play(stepwise, (2, 3, 4), orders)
    np.testing.assert_array_equal(others.observations, expected.observations)
    np.testing.assert_array_equal(others.headers["compliance"], expected.headers["compliance"])
    bonuses = others.headers["episode_bonus"]
    np.testing.assert_allclose(bonuses, 3.0 * others.headers["compliance"])
    assert bonuses.sum() == pytest.approx(float(others.bonuses.sum()), abs=1e-5)


def test_new_weights_are_played_with(stage: Stage) -> None:
    player = stage.player(compiled=True)
    before = stage.play(player, (1,))
    stage.weights, stage.version = weights_of_sleep(stage), 4
    after = stage.play(player, (1,))
    assert after.headers["version"].tolist() == [4]
    assert set(after.actions.tolist()) == {0}
    assert set(before.actions.tolist()) != {0}


def weights_of_sleep(stage: Stage) -> npt.NDArray[np.float32]:
    """A policy that always takes action 0."""
    shape = stage.assignment.policy
    vector = np.zeros(shape.size, np.float32)
    views = shape.split(vector)
    views[1][...] = 1
    views[-1][0] = 50
    return vector
