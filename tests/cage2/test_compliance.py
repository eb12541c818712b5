"""Compliance and alignment: the environment, the engine and a plain account by the true state say the same."""

import copy
import math
import random
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from blue_policies import POLICIES, Policy
from gymnasium.utils.env_checker import check_env
from recorded_draws import LeanReference
from step_comparison import Replay
from unmodified_challenge import UnmodifiedChallenge

from aiotrain.cage2.engine import RED_AGENTS, set_order
from aiotrain.cage2.official.baselines import greedy_actions
from aiotrain.cage2.scenario import HOST_INDEX, HOST_TYPE, HOST_TYPES, HOSTS, NUM_ACTIONS, action_index, scenario2
from aiotrain.cage2.simulators.cyborg_env import Cage2Env
from aiotrain.cage2.simulators.vector_env import Cage2VectorEnv
from aiotrain.cage2.workflows import NAMED_ORDERS, ONE_HOT, ORDER_INDEX, ORDERS, Order, parse_order

REVERSE = NAMED_ORDERS["reverse"]


def fixing_anything(rng: random.Random, bits: Any, step: int) -> int:
    """Remove or Restore anywhere, so that counted and uncounted fixes come in all mixtures."""
    return action_index(rng.choice(("Remove", "Restore")), rng.choice(HOSTS)) if rng.random() < 0.6 else 0


def fixing_seldom(rng: random.Random, bits: Any, step: int) -> int:
    """Let red spread over types, then fix now and then."""
    return action_index(rng.choice(("Remove", "Restore")), rng.choice(HOSTS)) if step > 25 and step % 4 == 0 else 1


FIXING: list[Policy] = [
    fixing_anything,
    fixing_seldom,
    *(POLICIES[name] for name in ("removing", "removing_at_once", "restoring", "restoring_late", "closing_the_gate")),
]


class JudgedReplay(Replay):
    """Also compares what engine and environment count, after every step."""

    reference: LeanReference

    def begin(self, order: Order) -> None:
        set_order(self.state, order)
        self.reference.env.reset(options={"workflow": order})

    def compare(self, where: str) -> None:
        engine, meter, info = self.state[0], self.reference.env._meter, self.reference.info
        assert meter is not None
        ours, theirs = (meter.compliant_fixes, meter.fixes), (engine["compliant_fixes"], engine["fixes"])
        assert ours == theirs, f"{where}: {ours} of the fixes complied, by the engine {theirs}"
        if engine["fixes"]:
            assert info["compliance"] == engine["compliant_fixes"] / engine["fixes"], where
        else:
            assert "compliance" not in info, where


@pytest.mark.parametrize("red_agent", RED_AGENTS)
def test_engine_and_environment_count_alike_step_by_step(red_agent: str) -> None:
    replay = JudgedReplay(LeanReference(red_agent, ORDERS[0]), red_agent)
    counted = complied = 0
    for number in range(84):
        replay.begin(ORDERS[(37 * number) % 120])
        replay.play(FIXING[number % len(FIXING)], number, 100)
        counted += int(replay.state["fixes"][0])
        complied += int(replay.state["compliant_fixes"][0])
    if red_agent == "SleepAgent":
        assert counted == 0, "User0 was counted as a host that blue can free"
    else:
        assert counted > 1000
        assert 0.1 < complied / counted < 0.9


def account(actions: list[int], held: list[int], order: Order) -> Iterator[float]:
    """Compliance after each action, from its definition; ``held``: the true state before each action."""
    judged: list[bool] = []
    for action, mask in zip(actions, held, strict=True):
        name = NAMES[action].split()
        taken = {HOST_TYPE[h] for h in HOSTS if h != "User0" and mask >> HOST_INDEX[h] & 1}
        if name[0] in ("Remove", "Restore") and taken:
            judged.append(HOST_TYPE[name[1]] == next(kind for kind in order if kind in taken))
        yield sum(judged) / len(judged) if judged else math.nan


NAMES = Cage2Env().action_names


@pytest.mark.parametrize("red_agent", ["B_lineAgent", "RedMeanderAgent"])
def test_compliance_is_what_csle_cyborgs_true_state_says(red_agent: str) -> None:
    stock, env = UnmodifiedChallenge(red_agent), Cage2Env(red_agent, workflow=ORDERS[0])
    for seed in range(4):
        order = ORDERS[(53 * seed + 11) % 120]
        rng = random.Random(seed)
        stock.reset(seed)
        observation, info = env.reset(seed=seed, options={"workflow": order})
        assert info == {"red_hosts": 1 << HOST_INDEX["User0"], "alignment": 0.0, "bonus": 0.0}
        actions, held, infos = [], [], []
        for step in range(100):
            actions.append(fixing_anything(rng, observation, step))
            held.append(stock.red_hosts())
            stock.step(actions[-1])
            observation, _, _, _, info = env.step(actions[-1])
            infos.append(info)
        expected = list(account(actions, held, order))
        np.testing.assert_array_equal([info.get("compliance", math.nan) for info in infos], expected)
        np.testing.assert_allclose(np.cumsum([i["alignment"] for i in infos]), np.nan_to_num(expected), atol=1e-12)
        assert expected[-1] > 0


def test_a_fix_complies_by_the_state_before_it_acts() -> None:
    """Restoring the only user host that red holds complies, though red holds none of that type afterwards."""
    env = Cage2Env("B_lineAgent", workflow="user_priority")
    _, info = env.reset(seed=1)
    while info["red_hosts"] == 1 << HOST_INDEX["User0"]:
        _, _, _, _, info = env.step(action_index("Restore", "User1"))
        assert "compliance" not in info or info["red_hosts"] != 1 << HOST_INDEX["User0"]
    assert "compliance" not in info, "a fix while red held nothing was counted"
    (host,) = (h for h in HOSTS if h != "User0" and info["red_hosts"] >> HOST_INDEX[h] & 1)
    _, _, _, _, info = env.step(action_index("Restore", "Defender"))
    assert (info["compliance"], info["alignment"]) == (0.0, 0.0)
    _, _, _, _, info = env.step(action_index("Restore", host))
    assert (info["compliance"], info["alignment"]) == (0.5, 0.5)
    _, _, _, _, info = env.step(0)
    assert (info["compliance"], info["alignment"]) == (0.5, 0.0)
    _, info = env.reset()
    assert "compliance" not in info
    assert info["alignment"] == 0.0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("workflow", [None, "reverse"])
def test_gymnasiums_checker_finds_nothing(workflow: str | None) -> None:
    env = gymnasium.make("aiotrain/Cage2-v0", workflow=workflow)
    check_env(env.unwrapped, skip_render_check=True)
    assert env.observation_space == gymnasium.spaces.MultiBinary(52 if workflow is None else 77)


def test_the_order_is_seen_and_a_reset_changes_it_from_then_on() -> None:
    plain, env = Cage2Env(), Cage2Env(workflow=",".join(REVERSE))
    single = [env.reset(seed=3)[0], plain.reset(seed=3)[0]]
    for _ in range(20):
        assert (single[0][:52] == single[1]).all(), "the order changes the episode"
        assert (single[0][52:] == ONE_HOT[ORDER_INDEX[REVERSE]]).all()
        single = [env.step(1)[0], plain.step(1)[0]]
    first, _ = env.reset(options={"workflow": "balanced"})
    for observation in (first, env.step(0)[0], env.reset()[0]):
        assert (observation[52:] == ONE_HOT[ORDER_INDEX[NAMED_ORDERS["balanced"]]]).all()
    assert env.workflow == NAMED_ORDERS["balanced"]
    first[:] = 1
    assert not env.reset()[0][:52].any(), "writing to an observation changed the environment"


def test_without_a_workflow_nothing_is_judged() -> None:
    env = Cage2Env()
    infos = [env.reset(seed=0)[1], *(env.step(action_index("Restore", "User1"))[4] for _ in range(30))]
    assert all(info.keys() == {"red_hosts"} for info in infos)


@pytest.mark.parametrize("make", [Cage2Env, Cage2VectorEnv])
def test_what_is_no_order_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="did you mean critical_first"):
        make(workflow="critical")
    with pytest.raises(ValueError, match="made without one"):
        make().reset(options={"workflow": "reverse"})
    env = make(workflow="reverse")
    with pytest.raises(ValueError, match="user is missing"):
        env.reset(options={"workflow": HOST_TYPES[:4]})
    assert env.workflow == REVERSE, "a refused order has taken hold"


def test_hosts_of_no_type_are_refused_and_where_red_starts_never_counts() -> None:
    scenario = scenario2()
    text = repr(scenario).replace("User4", "Printer4")
    renamed = eval(text, {"inf": math.inf})
    with pytest.raises(ValueError, match="'Printer4' is of none of them"):
        Cage2Env(scenario=renamed, workflow="reverse")
    moved = copy.deepcopy(scenario)
    moved["Agents"]["Red"]["starting_sessions"][0]["hostname"] = "User1"
    moved["Agents"]["Red"]["INT"]["Hosts"] = {"User1": {"Interfaces": "All", "System info": "All"}}
    env = Cage2Env("SleepAgent", scenario=moved, workflow="reverse")
    _, info = env.reset(seed=0)
    assert info["red_hosts"] == 1 << HOST_INDEX["User1"]
    assert "compliance" not in env.step(action_index("Restore", "User1"))[4]


@pytest.mark.filterwarnings("ignore:csle-cyborg's own wrapper plays this scenario")
def test_a_scenario_that_csle_cyborgs_wrapper_plays_is_judged_alike() -> None:
    scenario = scenario2()
    scenario["Agents"]["Blue"]["actions"].append("Misinform")  # the 13 actions come last; nobody takes them
    envs = [Cage2Env(workflow="reverse", scenario=scenario), Cage2Env(workflow="reverse")]
    assert envs[0].slow_reasons
    rng = random.Random(0)
    infos = [env.reset(seed=5)[1] for env in envs]
    for step in range(60):
        action = fixing_anything(rng, None, step)
        infos = [env.step(action)[4] for env in envs]
        assert infos[0] == infos[1]
    assert 0 < infos[0]["compliance"] < 1


def make_vec(mode: str, **kwargs: Any) -> gymnasium.vector.VectorEnv:
    return gymnasium.make_vec("aiotrain/Cage2-v0", vectorization_mode=mode, **kwargs)


def test_the_vector_environment_has_the_same_spaces_and_entries() -> None:
    arguments: dict[str, Any] = {"num_envs": 6, "max_steps": 12, "workflow": "operational_focus"}
    compiled, stepwise = make_vec("vector_entry_point", **arguments), make_vec("sync", **arguments)
    for name in ("single_observation_space", "single_action_space", "observation_space", "action_space"):
        assert getattr(compiled, name) == getattr(stepwise, name), name
    rng = np.random.default_rng(0)
    ours, theirs = (env.reset(seed=1, options={"workflow": "reverse"}) for env in (compiled, stepwise))
    for _ in range(30):
        assert compiled.observation_space.contains(ours[0])
        assert (ours[0].shape, ours[0].dtype) == (theirs[0].shape, theirs[0].dtype)
        assert (ours[0][:, 52:] == theirs[0][:, 52:]).all()
        assert (ours[0][:, 52:] == ONE_HOT[ORDER_INDEX[REVERSE]]).all()
        for key, values in theirs[-1].items():  # without any, Gymnasium's has no key "compliance" at all
            assert (ours[-1][key].shape, ours[-1][key].dtype) == (values.shape, values.dtype), key
        actions = rng.integers(132, NUM_ACTIONS, 6)
        ours, theirs = compiled.step(actions), stepwise.step(actions)
    stepwise.close()


def test_the_vector_environment_judges_each_episode_by_the_engines_counts() -> None:
    env = Cage2VectorEnv(64, workflow="reverse", max_steps=50, red_agent="RedMeanderAgent", alignment_lambda=3.0)
    _, info = env.reset(seed=0)
    rng = np.random.default_rng(0)
    total = np.zeros(64)
    for step in range(153):
        fixes = env.state["fixes"]
        assert (info["_compliance"] == (fixes > 0)).all()
        assert np.isnan(info["compliance"][fixes == 0]).all()
        shares = env.state["compliant_fixes"][fixes > 0] / fixes[fixes > 0]
        assert (info["compliance"][fixes > 0] == shares).all()
        assert (info["bonus"] == 3.0 * info["alignment"]).all()
        total = np.where(env.state["steps"] == 0, 0.0, total) + info["alignment"]
        np.testing.assert_allclose(total, np.nan_to_num(info["compliance"]), atol=1e-12)
        if step % 51 == 0:
            assert not info["_compliance"].any()
            assert not info["alignment"].any()
        *_, info = env.step(rng.integers(0, NUM_ACTIONS, 64))
    *_, info = env.step(rng.integers(0, NUM_ACTIONS, 64))
    assert "compliance" not in Cage2VectorEnv(1).reset(seed=0)[1]


@pytest.mark.parametrize("name", NAMED_ORDERS)
def test_the_greedy_heuristic_always_complies(name: str) -> None:
    order = parse_order(name)
    actions = greedy_actions(order)
    assert actions[0] == actions[1 << HOST_INDEX["User0"]] == action_index("Sleep")
    env = Cage2VectorEnv(64, workflow=order, red_agent=["B_lineAgent", "RedMeanderAgent"] * 32)
    _, info = env.reset(seed=0)
    returns = np.zeros(64)
    for _ in range(100):
        _, rewards, _, _, info = env.step(actions[info["red_hosts"]])
        returns += rewards
    assert (info["compliance"] == 1.0).all()
    assert returns.mean() > -400, "no better than doing nothing, which is about -1,050"
