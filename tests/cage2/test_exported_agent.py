"""Exported agents of CAGE 2: they remember what the environment would have told, and play as they were trained."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unmodified_challenge import UnmodifiedChallenge

import aiotrain
from aiotrain import Config, ConfigError
from aiotrain.cage2 import Cage2, SearchConfig, export
from aiotrain.cage2.blue_view import BEGUN, COMPACT_ACTIONS, NUM_INPUTS
from aiotrain.cage2.scenario import NUM_ACTIONS, RED_AGENTS
from aiotrain.cage2.simulators.blue_observer import BlueObserver
from aiotrain.cage2.workflows import ORDERS, order_text
from exported_agents import answers, load_agent, play, write_run

REMEMBERING = Cage2(workflow="none", observation="memory", actions="compact")
VIEWS = [("table", "full"), ("memory", "compact"), ("memory", "full"), ("table", "compact")]


@pytest.mark.parametrize("workflow", ["none", "user_priority"])
@pytest.mark.parametrize(("observation", "actions"), VIEWS)
def test_an_agent_alone_with_numpy_plays_whole_episodes(
    observation: str, actions: str, workflow: str, tmp_path: Path
) -> None:
    """Shown the 52 bits alone, it takes the actions, among the 145, that the policy takes."""
    settings: dict[str, Any] = {"observation": observation, "actions": actions, "workflow": workflow}
    config = Config(env=Cage2(**settings))
    run = write_run(tmp_path / "run", config.env)
    with config.env_factory()() as env:
        played = play(run, env, config, episodes=3, seed=4)
    assert len(played.actions) == 600
    *_, agent = export(run)
    assert answers(agent, played, 4, tmp_path).tolist() == played.actions
    assert len(set(played.actions)) > 20, "hardly anything is tried"


@pytest.mark.parametrize("red_agent", RED_AGENTS)
@pytest.mark.parametrize("actions", ["full", "compact"])
def test_it_remembers_what_the_environment_does(actions: str, red_agent: str, tmp_path: Path) -> None:
    """Bits and masks, step by step over random episodes."""
    run = write_run(tmp_path / "run", Cage2(workflow="none", observation="memory", actions=actions))
    module = load_agent(aiotrain.export(run, formats=["numpy"])[0])
    env = Config(env=Cage2(red_agent=red_agent, observation="memory", workflow="none")).env_factory()()
    view, rng = BlueObserver("memory", "compact"), np.random.default_rng(0)
    for seed in range(6):
        memory = module.Memory()
        seen, _ = env.reset(seed=seed)
        _, info = view.observe(seen[None, :52].copy(), [BEGUN])
        for step in range(100):
            where = f"{red_agent}, seed {seed}, step {step}"
            np.testing.assert_array_equal(memory.bits(seen[:52]), seen, where)
            np.testing.assert_array_equal(memory.mask(seen[:52]), info["action_mask"][0], where)
            action = int(rng.integers(NUM_ACTIONS))
            seen, *_ = env.step(action)
            memory.notice(action, seen[:52])
            _, info = view.observe(seen[None, :52].copy(), [action])


def test_it_remembers_whatever_may_happen(tmp_path: Path) -> None:
    """Any table may follow any action: such as no red agent of the challenge brings about."""
    run = write_run(tmp_path / "run", REMEMBERING)
    module = load_agent(aiotrain.export(run, formats=["numpy"])[0])
    view, rng = BlueObserver("memory", "compact"), np.random.default_rng(1)
    ever = np.zeros(NUM_INPUTS, np.int64)
    for episode in range(8):
        memory, table, action = module.Memory(), np.zeros(52, np.int8), BEGUN
        for step in range(100):
            seen, info = view.observe(table[None], [action])
            np.testing.assert_array_equal(memory.bits(table), seen[0], f"episode {episode}, step {step}")
            np.testing.assert_array_equal(memory.mask(table), info["action_mask"][0], f"episode {episode}, step {step}")
            ever += seen[0]
            activity = rng.choice(3, 13, p=[0.7, 0.15, 0.15])
            table[0::4], table[1::4] = activity > 0, activity > 1
            table[2::4], table[3::4] = rng.integers(0, 2, (2, 13))
            action = int(rng.choice(COMPACT_ACTIONS if rng.random() < 0.7 else NUM_ACTIONS))
            memory.notice(action, table)
    assert (ever > 0).mean() > 0.95, "much of the memory was never tried"


@pytest.mark.parametrize("settings", [{}, {"observation": "memory", "actions": "compact", "workflow": "reverse"}])
def test_it_plays_in_the_manner_of_the_challenges_evaluation(settings: dict[str, Any], tmp_path: Path) -> None:
    """On csle-cyborg's ChallengeWrapper, it comes to the rewards that the policy comes to in our environment."""
    settings = {"workflow": "none", "simulator": "cyborg"} | settings
    run = write_run(tmp_path / "run", Cage2(**settings), normalizes=True, max_episode_steps=30)
    agent = load_agent(aiotrain.export(run, greedy=True)[-1]).Agent()
    for red_agent in ("B_lineAgent", "RedMeanderAgent"):
        config = Config(env=Cage2(red_agent=red_agent, **settings), max_episode_steps=30)
        with config.env_factory()() as env:
            played = play(run, env, config, episodes=2, seed=0)
        expected = [reward for reward, greedy in zip(played.rewards, played.greedy, strict=True) if greedy]
        stock = UnmodifiedChallenge(red_agent)
        stock.wrapper.reset()
        action_space = stock.wrapper.get_action_space("Blue")
        assert action_space == NUM_ACTIONS
        rewards = []
        for episode in range(2):
            random.seed(episode)
            observation, _ = stock.wrapper.reset()
            for _ in range(30):
                action = agent.get_action(observation, action_space)
                observation, reward, *_ = stock.wrapper.step(action)
                rewards.append(reward)
            agent.end_episode()
        assert rewards == pytest.approx(expected)
        assert min(rewards) < 0


def test_the_order_is_that_of_the_run_or_the_one_that_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Cage2(workflow="reverse"))
    about = [load_agent(export(run, workflow=name)[-1]).ABOUT for name in (None, "critical_first")]
    assert [each["workflow"] for each in about] == [
        "user,op_host,enterprise,op_server,defender",
        "defender,op_server,enterprise,op_host,user",
    ]


def test_of_orders_with_a_policy_each_the_named_one_is_exported(tmp_path: Path) -> None:
    search = SearchConfig(inherit="nearest", parallel_workflows=1)
    run = write_run(tmp_path / "run", Cage2(search=search))
    own = run / f"weights-{'-'.join(ORDERS[7])}.safetensors"
    (run / "weights.safetensors").rename(own)
    agent = load_agent(export(run, workflow=order_text(ORDERS[7]))[-1])
    assert agent.ABOUT["workflow"] == order_text(ORDERS[7])
    with pytest.raises(ConfigError, match=f"there is no file .*weights-{'-'.join(ORDERS[8])}.safetensors"):
        export(run, workflow=order_text(ORDERS[8]))
    with pytest.raises(ConfigError, match="no training of an order has ended; name one"):
        aiotrain.export(run)


@pytest.mark.parametrize("wrong", [np.zeros(51), np.full(52, 2), {"success": True}])
def test_what_is_no_table_is_refused(wrong: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", REMEMBERING)
    agent = load_agent(aiotrain.export(run, formats=["numpy"])[0]).Agent()
    with pytest.raises(ValueError, match="the 52 bits of ChallengeWrapper"):
        agent.get_action(wrong)


def test_an_agent_forgets_an_episode_that_has_ended(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", REMEMBERING)
    module = load_agent(aiotrain.export(run, formats=["numpy"])[0])
    agent, fresh = module.Agent(seed=3, greedy=True), module.Agent(seed=3, greedy=True)
    tables = np.random.default_rng(0).integers(0, 2, (60, 52))
    first = [agent.get_action(table) for table in tables]
    agent.end_episode()
    assert [agent.get_action(table) for table in tables] == first == [fresh.get_action(table) for table in tables]


def test_the_file_is_python_of_3_7(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", REMEMBERING)
    ast.parse(aiotrain.export(run, formats=["numpy"])[0].read_text(), feature_version=(3, 7))
