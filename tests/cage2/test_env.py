import copy
import json
import random
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from blue_policies_by_step import POLICIES
from gymnasium.utils.env_checker import check_env
from red_agents import DistractedMeander, NoAgent
from unmodified_challenge import UnmodifiedChallenge, first_difference

from aiotrain.cage2.scenario import HOST_INDEX, NUM_ACTIONS, action_index, scenario2
from aiotrain.cage2.simulators.cyborg_env import RED_AGENTS, Cage2Env


def played(env: Cage2Env, seed: int | None, steps: int = 60) -> list[tuple[bytes, float, int]]:
    """An episode under random actions that depend on ``seed`` alone."""
    rng, trace = random.Random(seed), []
    bits, info = env.reset(seed=seed)
    for _ in range(steps):
        trace.append((bits.tobytes(), 0.0, info["red_hosts"]))
        bits, reward, _, _, info = env.step(rng.randrange(NUM_ACTIONS))
        trace.append((bits.tobytes(), reward, info["red_hosts"]))
    return trace


@pytest.mark.parametrize("red_agent", RED_AGENTS)
def test_gymnasium_finds_and_accepts_it(red_agent: str) -> None:
    env = gymnasium.make("aiotrain/Cage2-v0", red_agent=red_agent)
    check_env(env.unwrapped, skip_render_check=True)
    assert env.observation_space == gymnasium.spaces.MultiBinary(52)
    assert env.action_space == gymnasium.spaces.Discrete(145)
    assert env.unwrapped.max_steps == 100


def test_a_bare_process_makes_it_without_torch_or_other_heavy_imports() -> None:
    program = (
        "import gymnasium, json, sys\n"
        "env = gymnasium.make('aiotrain.cage2:aiotrain/Cage2-v0', max_steps=3)\n"
        "env.reset(seed=1)\n"
        "ends = [env.step(144)[3] for _ in range(3)]\n"
        "print(json.dumps([ends, sorted({name.split('.')[0] for name in sys.modules})]))\n"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    ends, loaded = json.loads(result.stdout)
    assert ends == [False, False, True]
    heavy = {"torch", "stable_baselines3", "asyncio", "rich", "tyro", "ray", "paramiko", "sklearn"}
    assert not heavy & set(loaded)


def test_csle_cyborgs_own_user_of_stable_baselines_loads_on_demand() -> None:
    program = (
        "import sys, types\n"
        "import aiotrain.cage2.simulators.cyborg_env\n"
        "assert 'stable_baselines3' not in sys.modules\n"
        "assert not [name for name in sys.modules if name.endswith('blue_load_agent')]\n"
        "sys.modules['stable_baselines3'] = types.SimpleNamespace(PPO='the real one')\n"
        "from csle_cyborg.agents import BlueLoadAgent\n"
        "assert sys.modules[BlueLoadAgent.__module__].PPO == 'the real one'\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_episodes_are_cut_at_max_steps_and_count_anew() -> None:
    env = Cage2Env(max_steps=5)
    for seed in (1, None):
        env.reset(seed=seed)
        ends = [env.step(0)[2:4] for _ in range(5)]
        assert ends == [(False, False)] * 4 + [(False, True)]


def test_interleaved_environments_and_the_global_generator_do_not_meet() -> None:
    alone = {red: played(Cage2Env(red_agent=red), seed=5) for red in RED_AGENTS}
    envs = {red: Cage2Env(red_agent=red) for red in (*RED_AGENTS, DistractedMeander)}
    rng = {red: random.Random(5) for red in envs}
    random.seed(99)
    before = random.getstate()
    traces = {red: [env.reset(seed=5)[0].tobytes()] for red, env in envs.items()}
    for _ in range(60):
        for red, env in envs.items():
            traces[red].append(env.step(rng[red].randrange(NUM_ACTIONS))[0].tobytes())
    assert random.getstate() == before, "Python's global generator was drawn from"
    for red, trace in alone.items():
        bits = [trace[0][0], *(entry[0] for entry in trace[1::2])]
        assert traces[red] == bits, f"another environment disturbed {red}"


def test_reset_without_seed_goes_on_with_the_same_stream() -> None:
    env, again = Cage2Env(), Cage2Env()
    first = played(env, seed=3) + played(env, seed=None)
    assert first[: len(first) // 2] == played(again, seed=3)
    state = again.generator.getstate()
    again.reset()
    assert again.generator.getstate() != state


def test_observations_are_the_callers_own() -> None:
    env = Cage2Env()
    bits, _ = env.reset(seed=0)
    bits[:] = 1
    following = env.step(0)[0]
    assert not following.any(), "writing to an observation changed the environment"
    assert following.dtype == np.int8


def test_red_hosts_starts_with_user0_alone() -> None:
    assert Cage2Env().reset(seed=0)[1]["red_hosts"] == 1 << HOST_INDEX["User0"]


def test_an_agent_of_ones_own_is_told_and_draws_what_csle_cyborg_has_it_told_and_drawn() -> None:
    stock, env = UnmodifiedChallenge(DistractedMeander), Cage2Env(red_agent="red_agents:DistractedMeander")
    theirs = stock.cyborg.environment_controller.agent_interfaces["Red"].agent.told
    ours = env.simulator._controller.agent_interfaces["Red"].agent.told  # type: ignore[union-attr]
    for policy in ("uniform", "react", "op_server_late"):
        difference = first_difference(stock, env, POLICIES[policy](random.Random(1)), 11, 100, True)
        assert difference is None, f"{policy}: {difference}"
    assert len(ours) == 600
    assert ours == theirs, "red was told something else than under csle-cyborg"


def with_green_agent() -> dict:
    scenario = scenario2()
    scenario["Agents"]["Green"]["agent_type"] = "GreenAgent"
    return scenario


def with_another_user() -> dict:
    scenario = scenario2()
    scenario["Hosts"]["User5"] = copy.deepcopy(scenario["Hosts"]["User4"]) | {"ConfidentialityValue": "High"}
    scenario["Hosts"]["User5"]["info"] |= {"User5": scenario["Hosts"]["User5"]["info"].pop("User4")}
    scenario["Subnets"]["User"]["Hosts"].append("User5")
    scenario["Subnets"]["User"]["Size"] = 30  # a larger network than the other two
    for agent in ("Blue", "Green"):
        known = scenario["Agents"][agent]["INT"]["Hosts"]
        known["User5"] = dict(known["User4"])
    sessions = scenario["Agents"]["Blue"]["starting_sessions"]
    sessions.insert(3, sessions[4] | {"hostname": "User5", "name": "VeloUser5"})
    return scenario


def with_unwatched_host() -> dict:
    scenario = scenario2()
    sessions = scenario["Agents"]["Blue"]["starting_sessions"]
    sessions[:] = [session for session in sessions if session["name"] != "VeloEnterprise1"]
    return scenario


def with_other_reward() -> dict:
    scenario = scenario2()
    scenario["Agents"]["Red"]["reward_calculator_type"] = "Pwn"
    scenario["Agents"]["Blue"]["actions"].append("Misinform")
    return scenario


@pytest.mark.parametrize("change", [with_green_agent, with_another_user, with_unwatched_host])
@pytest.mark.parametrize("red_agent", ["B_lineAgent", "RedMeanderAgent"])
def test_changed_scenarios_still_equal_csle_cyborg(change, red_agent: str) -> None:  # noqa: ANN001
    scenario = change()
    unchanged = copy.deepcopy(scenario)
    env = Cage2Env(red_agent=red_agent, scenario=scenario)
    assert scenario == unchanged, "the caller's dict was changed"
    assert not env.slow_reasons
    stock = UnmodifiedChallenge(red_agent, scenario)
    for seed in range(3):
        rng = random.Random(seed)
        act = lambda step, bits, rng=rng: rng.randrange(len(env.action_names))  # noqa: E731
        difference = first_difference(stock, env, act, seed, 100, check_red_hosts=True)
        assert difference is None, difference


def test_a_scenario_beyond_the_lean_simulator_is_played_by_csle_cyborgs_wrapper() -> None:
    scenario = with_other_reward()
    with pytest.warns(UserWarning, match="Pwn instead of HybridImpactPwn"):
        env = Cage2Env(scenario=scenario)
    assert env.slow_reasons == [
        "Blue has the actions Misinform",
        "Red is rewarded by Pwn instead of HybridImpactPwn",
    ]
    assert env.action_space.n == 145 + 13
    difference = first_difference(
        UnmodifiedChallenge("B_lineAgent", scenario), env, POLICIES["react"](random.Random(2)), 2, 100, True
    )
    assert difference is None, difference


def incomplete() -> dict:
    scenario = scenario2()
    del scenario["Hosts"]["User4"]["System info"]
    return scenario


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"red_agent": "BlineAgent"}, r"did you mean B_lineAgent"),
        ({"red_agent": "meander"}, r"did you mean RedMeanderAgent"),
        ({"red_agent": "no_such_module_here:Agent"}, r"cannot import the module 'no_such_module_here'"),
        ({"red_agent": "red_agents:DistractedMeandre"}, r"did you mean DistractedMeander"),
        ({"red_agent": NoAgent}, r"must be a class with the methods train, get_action"),
        ({"max_steps": 0}, r"at least 1 step"),
        ({"scenario": incomplete()}, r"lacks 'System info'"),
        ({"scenario": {"Hosts": {}}}, r"lacks 'Agents'"),
    ],
)
def test_mistakes_are_explained(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cage2Env(**arguments)


def test_steps_that_cannot_be_played_are_explained() -> None:
    env = Cage2Env()
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        env.step(0)
    env.reset(seed=0)
    for action in (145, -1):
        with pytest.raises(ValueError, match=f"action {action} does not exist"):
            env.step(action)


def test_restore_is_paid_for_and_named() -> None:
    env = Cage2Env(red_agent="SleepAgent")
    env.reset(seed=0)
    index = action_index("Restore", "User1")
    assert env.action_names[index] == "Restore User1"
    assert env.step(index)[1] == -1.0
