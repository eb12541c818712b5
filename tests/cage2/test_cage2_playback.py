"""Episodes of CAGE 2 to be watched: each is the first one of an evaluation, and its steps are told with the truth."""

from __future__ import annotations

import asyncio
import contextlib
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from aiotrain import Config, ConfigError, train
from aiotrain.cage2 import Cage2, SearchConfig, evaluate
from aiotrain.cage2.official.baselines import greedy_actions
from aiotrain.cage2.playback.episode import Cage2Playback, Cage2Setting, Cage2Step
from aiotrain.cage2.scenario import HOSTS, action_name
from aiotrain.cage2.workflows import NAMED_ORDERS, order_text
from finished_runs import write_run


def play(*args: Any, **settings: Any) -> tuple[Cage2Setting, list[Cage2Step]]:
    with contextlib.closing(Cage2Playback.open(*args, **settings)) as playback:
        return playback.setting, list(playback.play())


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("simulator", ["compiled", "cyborg"])
@pytest.mark.parametrize(
    "env",
    [
        Cage2(workflow="none"),
        Cage2(workflow="reverse", red_agent="RedMeanderAgent"),
        Cage2(workflow="none", observation="memory", actions="compact"),
    ],
)
def test_it_is_the_first_episode_of_an_evaluation(
    env: Cage2, simulator: Literal["compiled", "cyborg"], greedy: bool, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", env, bias=lambda output: math.sin(7 * output))
    how: dict[str, Any] = {"simulator": simulator, "greedy": greedy, "max_episode_steps": 40}
    for seed in range(3):
        evaluated = evaluate(run, episodes=2, seed=seed, **how)
        setting, steps = play(run, seed=seed, **how)
        assert [step.step for step in steps] == list(range(1, 41))
        assert steps[-1].episode_return == pytest.approx(evaluated.returns[0])
        assert steps[-1].episode_return == pytest.approx(sum(step.reward for step in steps))
        compliance = evaluated.metrics["compliance"][0] if env.workflow != "none" else math.nan
        np.testing.assert_equal(steps[-1].compliance, compliance)
        assert [step.ending for step in steps] == [""] * 39 + ["truncated"]
        assert setting.how == ("greedy" if greedy else "sampled")
        assert setting.order == ("" if env.workflow == "none" else order_text(NAMED_ORDERS["reverse"]))
        for step in steps:
            assert step.scene.red_agent == env.red_agent
            assert step.action == " ".join(filter(None, step.scene.blue[:2])), "the action told is not the one played"


@pytest.mark.parametrize("simulator", ["compiled", "cyborg"])
def test_agents_without_learning(simulator: Literal["compiled", "cyborg"]) -> None:
    how: dict[str, Any] = {"simulator": simulator, "max_episode_steps": 60, "red_agent": "RedMeanderAgent"}
    setting, steps = play(agent="sleep", **how)
    assert {step.action for step in steps} == {"Sleep"}
    assert (setting.player, setting.how, setting.order, steps[0].odds) == ("sleep", "", "", ())
    _, steps = play(agent="random", **how)
    assert len({step.action for step in steps}) > 40
    setting, steps = play(agent="greedy-heuristic", **how)
    actions = greedy_actions(NAMED_ORDERS["critical_first"])
    held = 1 << HOSTS.index("User0")
    for step in steps:
        assert step.action == action_name(actions[held]), "not what the heuristic does where red holds this"
        held = sum(1 << host for host, each in enumerate(step.scene.hosts) if each.access != "none")
    assert setting.order == order_text(NAMED_ORDERS["critical_first"])
    assert steps[-1].compliance == 1


def test_a_checkpoint_of_a_search_has_a_policy_for_any_order_or_says_that_it_has_not(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"collector": "sequential", "max_episode_steps": 5, "total_episodes": 40}
    for inherit in ("latest", "nearest"):
        folder = tmp_path / inherit
        search = SearchConfig(inherit=inherit, fixed_episodes=20, parallel_workflows=1)  # type: ignore[arg-type]
        config = Config(env=Cage2(search=search), run_dir=str(folder), episodes_per_update=20, **settings)
        asyncio.run(train(config))
        (last,) = (folder / "checkpoints").glob("update-*")
        if inherit == "latest":
            assert play(last, workflow="reverse")[0].order == order_text(NAMED_ORDERS["reverse"])
            assert play(last)[0].order == play(folder)[0].order
        else:
            with pytest.raises(ConfigError, match=r"has several policies, in weights-.* name the folder"):
                play(last)
