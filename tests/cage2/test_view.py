"""What blue sees and may do: the same on both simulators, and as documented."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from recorded_draws import Recorder
from slow_memory import AttentivePlayer
from step_comparison import TAPE_LENGTH

from aiotrain.cage2 import CAGE2_ID
from aiotrain.cage2.blue_view import ACTIONS, BEGUN, COMPACT_ACTIONS, DECOYS, DEFENDED, FIELDS, NUM_INPUTS
from aiotrain.cage2.engine import NO_TAPE, allocate, reset_one, step_one
from aiotrain.cage2.scenario import HOST_ACTIONS, HOST_INDEX, RED_AGENTS, action_index, action_name, scenario2
from aiotrain.cage2.simulators import compiled_env
from aiotrain.cage2.simulators.blue_observer import BlueObserver
from aiotrain.cage2.simulators.compiled_env import Cage2CompiledEnv
from aiotrain.cage2.simulators.cyborg_env import Cage2Env

DOCUMENT = Path(__file__).parents[2] / "docs" / "cage2_inputs.md"


def choose(rng: np.random.Generator, env: gymnasium.Env[Any, Any], info: dict[str, Any]) -> np.int64:
    """An allowed action; now and then any at all, since a mask binds nobody."""
    mask = info.get("action_mask")
    if mask is None or rng.random() < 0.1:
        return np.int64(rng.integers(env.action_space.n))  # type: ignore[attr-defined]
    return np.int64(rng.choice(np.flatnonzero(mask)))


@pytest.mark.parametrize(("observation", "actions"), [("memory", "compact"), ("memory", "full"), ("table", "compact")])
@pytest.mark.parametrize("red_agent", RED_AGENTS)
def test_both_simulators_show_and_allow_the_same(red_agent: str, observation: str, actions: str) -> None:
    """The engine is given CybORG's draws, so that both play the same episode."""
    settings: dict[str, Any] = {"workflow": "reverse", "observation": observation, "actions": actions}
    cyborg, compiled = Cage2Env(red_agent, **settings), Cage2CompiledEnv(red_agent, **settings)
    assert cyborg.observation_space == compiled.observation_space
    assert cyborg.action_space == compiled.action_space
    recorder, tape = Recorder(cyborg.simulator._controller), np.zeros((1, TAPE_LENGTH), np.uint64)
    rng = np.random.default_rng(0)
    for seed in range(12):
        seen, info = cyborg.reset(seed=seed)
        own, own_info = compiled.reset(seed=seed)
        np.testing.assert_array_equal(own, seen)
        with recorder.recording() as words, patch.object(compiled_env, "NO_TAPE", tape):
            for step in range(100):
                where = f"{red_agent}, seed {seed}, step {step}"
                np.testing.assert_array_equal(own_info.pop("action_mask", 0), info.get("action_mask", 0), where)
                action, drawn = choose(rng, cyborg, info), len(words)
                seen, reward, *_, info = cyborg.step(action)
                tape[0, drawn : len(words)] = words[drawn:]
                own, own_reward, *_, own_info = compiled.step(action)
                np.testing.assert_array_equal(own, seen, where)
                assert own_reward == reward, where
                assert own_info["red_hosts"] == info["red_hosts"], where
                assert own_info.get("compliance") == info.get("compliance"), where


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("red_agent", RED_AGENTS)
def test_memory_is_that_of_an_attentive_player(red_agent: str, actions: str) -> None:
    env = Cage2CompiledEnv(red_agent, observation="memory", actions=actions, max_steps=100)
    rng = np.random.default_rng(1)
    ever = np.zeros(NUM_INPUTS, np.int64)
    for seed in range(8):
        seen, info = env.reset(seed=seed)
        player = AttentivePlayer(seen[:52])
        for step in range(100):
            expected = player.bits()
            differing = [i for i in range(NUM_INPUTS) if seen[i] != expected[i]]
            assert not differing, f"{red_agent}, seed {seed}, step {step}: bits {differing} in {field_of(differing[0])}"
            if actions == "compact":
                assert info["action_mask"].tolist() == player.mask(), f"{red_agent}, seed {seed}, step {step}"
            ever += seen
            action = choose(rng, env, info)
            seen, *_, info = env.step(action)
            player.notice(int(COMPACT_ACTIONS[action] if actions == "compact" else action), seen[:52])
    assert red_agent == "SleepAgent" or (ever > 0).mean() > 0.7, "most of the memory was never tried"


def test_memory_of_red_agents_that_touch_several_hosts_in_a_step() -> None:
    """Such as csle-cyborg plays, from outside the challenge: any table may follow any action."""
    rng = np.random.default_rng(2)
    tables = np.zeros((4, 52), np.int8)
    view = BlueObserver("memory", "compact", num_envs=4)
    seen, info = view.observe(tables, [BEGUN] * 4)
    players = [AttentivePlayer(table) for table in tables.tolist()]
    for step in range(120):
        for player, bits, mask in zip(players, seen, info["action_mask"], strict=True):
            assert bits.tolist() == player.bits(), f"step {step}"
            assert mask.tolist() == player.mask(), f"step {step}"
        activity = rng.choice(3, (4, 13), p=[0.8, 0.1, 0.1])
        tables[:, 0::4], tables[:, 1::4] = activity > 0, activity > 1
        tables[:, 2::4], tables[:, 3::4] = rng.integers(0, 2, (2, 4, 13))
        actions = rng.integers(0, 145, 4)
        seen, info = view.observe(tables, actions)
        for player, action, table in zip(players, actions.tolist(), tables.tolist(), strict=True):
            player.notice(action, table)


def field_of(bit: int) -> str:
    ends = np.cumsum([field.size for field in FIELDS])
    return FIELDS[int((ends <= bit).sum())].name


def test_fields_and_actions_are_what_the_document_says() -> None:
    text = DOCUMENT.read_text()
    rows = re.findall(r"^\| (\d+)(?:-(\d+))? \| (.+?) \| (\d+) \| (.+?) \|$", text, re.MULTILINE)
    assert [(name, int(size), meaning) for _, _, name, size, meaning in rows] == [tuple(field) for field in FIELDS]
    starts = np.cumsum([0, *(field.size for field in FIELDS)])
    assert [(int(first), int(last)) for first, last, *_ in rows] == [
        (start, end - 1) for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    ]
    assert f"{NUM_INPUTS} bits" in text
    listed = re.findall(r"^\| (\d+)(?:-(\d+))? \| ([A-Z].+?) \| (.+?) \|$", text, re.MULTILINE)
    names = [f"{kind} {host}".strip() for _, _, kind, hosts in listed for host in hosts.replace("-", "").split(", ")]
    assert names == [action_name(index) for index in COMPACT_ACTIONS]


def test_the_decoys_are_those_that_can_stand() -> None:
    state = allocate(1)
    stand = []
    for host in DEFENDED:
        for kind in HOST_ACTIONS:
            reset_one(state, 0, np.uint64(0))
            step_one(state, 0, action_index(kind, host), NO_TAPE)
            if state["decoys"][0, HOST_INDEX[host]]:
                stand.append((host, kind))
    assert sorted(DECOYS) == sorted((host, kind) for host, kind in stand if kind != "DecoyVsftpd")
    assert len(set(COMPACT_ACTIONS)) == 42


@pytest.mark.parametrize("simulator", ["compiled", "cyborg"])
def test_gymnasium_accepts_both(simulator: str) -> None:
    env = gymnasium.make(CAGE2_ID, simulator=simulator, observation="memory", actions="compact", workflow="reverse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
    assert env.observation_space == gymnasium.spaces.MultiBinary(NUM_INPUTS + 25)
    assert env.action_space == gymnasium.spaces.Discrete(42)
    _, info = env.reset(seed=0)
    assert (info["action_mask"].dtype, info["action_mask"].shape) == (np.int8, (42,))
    for _ in range(50):
        *_, info = env.step(env.action_space.sample(info["action_mask"]))
    with pytest.raises(ValueError, match="action 42 does not exist: there are 42"):
        env.unwrapped.step(np.int64(42))


def test_csle_cyborg_names_its_actions() -> None:
    env = Cage2Env(actions="compact")
    assert env.action_names == [action_name(index) for index in COMPACT_ACTIONS]
    assert env.observation_space == gymnasium.spaces.MultiBinary(52)
    assert "action_mask" not in Cage2Env(observation="memory").reset(seed=0)[1]


def test_the_vector_environment_is_many_of_them_and_forgets_when_an_episode_begins() -> None:
    settings: dict[str, Any] = {"max_steps": 20, "observation": "memory", "actions": "compact", "workflow": "balanced"}
    vector = gymnasium.make_vec(CAGE2_ID, num_envs=3, red_agent="RedMeanderAgent", **settings)
    envs = [Cage2CompiledEnv("RedMeanderAgent", **settings) for _ in range(3)]
    rng = np.random.default_rng(0)
    seen, info = vector.reset(seed=5)
    own = [env.reset(seed=5 + i) for i, env in enumerate(envs)]
    for step in range(65):
        for i in range(3):
            np.testing.assert_array_equal(seen[i], own[i][0], f"environment {i}, step {step}")
            np.testing.assert_array_equal(info["action_mask"][i], own[i][1]["action_mask"], f"{i}, {step}")
        actions = np.array([choose(rng, env, each[1]) for env, each in zip(envs, own, strict=True)])
        seen, *_, info = vector.step(actions)
        if step % 21 == 20:  # the step of the reset
            own = [env.reset() for env in envs]
        else:
            own = [(each[0], each[-1]) for each in (env.step(a) for env, a in zip(envs, actions, strict=True))]


@pytest.mark.parametrize("simulator", ["compiled", "cyborg"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"observation": "memroy"}, "unknown observation 'memroy'; did you mean memory"),
        ({"actions": "compct"}, "unknown set of actions 'compct'; did you mean compact"),
    ],
)
def test_names_are_checked(simulator: str, settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gymnasium.make(CAGE2_ID, simulator=simulator, **settings)


def test_other_scenarios_have_the_table_and_all_actions_only() -> None:
    Cage2Env(scenario=scenario2(), observation="memory")
    other = scenario2()
    other["Hosts"]["User1"]["ConfidentialityValue"] = "High"
    for settings in ({"observation": "memory"}, {"actions": "compact"}):
        with pytest.raises(ValueError, match="made for the hosts and services of Scenario2"):
            Cage2Env(scenario=other, **settings)
