"""The compiled engine as its callers see it: seeds, batches, fix actions, scores."""

import random
from pathlib import Path

import numpy as np
import pytest

from aiotrain.cage2.engine import (
    NO_TAPE,
    RED_AGENTS,
    STATE,
    allocate,
    compiled,
    reset_batch,
    reset_one,
    restart_one,
    set_order,
    step_batch,
    step_one,
)
from aiotrain.cage2.engine import state as state_module
from aiotrain.cage2.scenario import HOST_INDEX, HOST_TYPE, HOST_TYPES, HOSTS, action_index

USER0 = 1 << HOST_INDEX["User0"]


def play(state: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Play actions [T, num_envs]; returns observations [T, num_envs, 52] and rewards in tenths [T,
    num_envs].
    """
    bits = np.empty((*actions.shape, 52), np.int8)
    tenths = np.empty(actions.shape, np.int32)
    for step, row in enumerate(actions):
        step_batch(state, row, tenths[step], NO_TAPE)
        bits[step] = state["observation"]
    return bits, tenths


def mean_return(red_agent: str, num_envs: int, actions: np.ndarray) -> tuple[float, float]:
    """Mean return and its standard error."""
    state = allocate(num_envs, red_agent=red_agent)
    reset_batch(state, np.arange(num_envs, dtype=np.uint64))
    play(state, actions)
    returns = state["return_tenths"] / 10.0
    return returns.mean(), returns.std() / num_envs**0.5


def test_same_seed_and_actions_give_the_same_episode_anywhere() -> None:
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 145, (80, 30))
    reds = [RED_AGENTS[i % 3] for i in range(30)]
    seeds = rng.integers(0, 2**63, 30).astype(np.uint64)
    batch = allocate(30, red_agent=reds)
    reset_batch(batch, seeds)
    bits, tenths = play(batch, actions)
    for index in range(30):
        alone = allocate(3, red_agent=reds[index])
        reset_batch(alone, np.array([1, 2, 3], np.uint64))
        play(alone, actions[:7, [0, 1, 2]])  # what happened there before does not matter
        reset_one(alone, 1, seeds[index])
        for step in range(80):
            reward = step_one(alone, 1, actions[step, index], NO_TAPE)
            assert reward == tenths[step, index], f"environment {index}, step {step}"
            assert (alone["observation"][1] == bits[step, index]).all(), f"environment {index}, step {step}"
        assert alone["return_tenths"][1] == tenths[:, index].sum()


def test_seeds_differ_and_restarts_go_on_with_the_generator() -> None:
    state = allocate(2, red_agent="RedMeanderAgent")
    reset_batch(state, np.array([5, 6], np.uint64))
    idle = np.zeros((100, 2), np.int64)
    first, _ = play(state, idle)
    assert (first[:, 0] != first[:, 1]).any(), "two seeds gave one episode"
    restart_one(state, 0)
    restart_one(state, 1)
    second, _ = play(state, idle)
    assert (first != second).any(axis=(0, 2)).all(), "a restarted environment repeated its episode"


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_any_64_bit_seed_will_do(seed: int) -> None:
    state = allocate(1)
    reset_one(state, 0, np.uint64(seed))
    assert state["generator"][0].any(), "the generator must not start from zeros"
    assert state["steps"][0] == 0
    assert not state["observation"][0].any()
    assert state["held"][0] == USER0


def test_a_reset_leaves_nothing_of_the_last_episode() -> None:
    rng = np.random.default_rng(1)
    used, fresh = allocate(60, red_agent=list(RED_AGENTS) * 20), allocate(60, red_agent=list(RED_AGENTS) * 20)
    reset_batch(used, np.arange(60, dtype=np.uint64))
    play(used, rng.integers(0, 145, (200, 60)))
    seeds = np.arange(100, 160, dtype=np.uint64)
    reset_batch(used, seeds)
    reset_batch(fresh, seeds)
    for name in STATE.names or ():
        assert (used[name] == fresh[name]).all(), f"{name} survives a reset"


def test_observation_is_four_bits_a_host_and_activity_lasts_one_step() -> None:
    state = allocate(1, red_agent="B_lineAgent")
    reset_one(state, 0, np.uint64(0))
    sweep, scan, after = (play(state, np.zeros((1, 1), np.int64))[0][0, 0].reshape(13, 4) for _ in range(3))
    assert not sweep.any(), "a sweep is not seen"
    target = int(state["target"][0])
    assert np.flatnonzero(scan[:, 0]).tolist() == [target]
    assert scan[target].tolist() == [1, 0, 0, 0]
    assert after[target, 0] == 0 or after[target, 1] == 1, "the scan is still shown a step later"


@pytest.mark.parametrize(
    ("red_agent", "reference", "error"), [("B_lineAgent", -1135.9, 1.7), ("RedMeanderAgent", -973.0, 6.7)]
)
def test_an_idle_blue_scores_as_under_cyborg(red_agent: str, reference: float, error: float) -> None:
    """The references are means of stock CybORG over 100-step episodes, with their standard errors."""
    mean, own_error = mean_return(red_agent, 8192, np.zeros((100, 8192), np.int64))
    assert abs(mean - reference) < 4 * np.hypot(error, own_error), f"{mean} ± {own_error}"


@pytest.mark.parametrize(
    ("red_agent", "steps", "reference", "error"),
    [
        ("B_lineAgent", 30, -152.1, 7.8),
        ("B_lineAgent", 50, -345.9, 16.0),
        ("B_lineAgent", 100, -762.7, 36.0),
        ("RedMeanderAgent", 30, -34.0, 1.6),
        ("RedMeanderAgent", 50, -183.5, 10.0),
        ("RedMeanderAgent", 100, -583.6, 5.2),
        ("SleepAgent", 100, -8.93, 0.3),
    ],
)
def test_a_random_blue_scores_as_under_cyborg(red_agent: str, steps: int, reference: float, error: float) -> None:
    actions = np.random.default_rng(2).integers(0, 145, (steps, 8192))
    mean, own_error = mean_return(red_agent, 8192, actions)
    assert abs(mean - reference) < 4 * np.hypot(error, own_error), f"{mean} ± {own_error}"


def test_fix_actions_are_judged_by_the_order_of_host_types() -> None:
    rng = random.Random(0)
    for red_agent in RED_AGENTS:
        for seed in range(40):
            order = rng.sample(HOST_TYPES, 5)
            state = allocate(1, red_agent=red_agent)
            set_order(state, order)
            reset_one(state, 0, np.uint64(seed))
            fixes = compliant = 0
            for _ in range(100):
                kind = rng.choice(("Remove", "Restore", "Analyse", "DecoyApache", "Sleep", "Sleep", "Sleep"))
                host = rng.choice(HOSTS)
                held = state["held"][0]
                taken = {HOST_TYPE[h] for h in HOSTS if h != "User0" and held >> HOST_INDEX[h] & 1}
                if taken and kind in ("Remove", "Restore"):
                    fixes += 1
                    compliant += HOST_TYPE[host] == min(taken, key=order.index)
                step_one(state, 0, 0 if kind == "Sleep" else action_index(kind, host), NO_TAPE)
            assert (state["fixes"][0], state["compliant_fixes"][0]) == (fixes, compliant)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "num_envs must be at least 1"),
        ({"num_envs": 2, "red_agent": ["B_lineAgent"]}, "1 red agents were given for 2"),
        ({"num_envs": 1, "red_agent": "Meander"}, "unknown red agent 'Meander'"),
        ({"num_envs": 1, "rules": "new"}, "unknown rules 'new'"),
        ({"num_envs": 1, "max_steps": 65_536}, "max_steps must lie between"),
    ],
)
def test_allocate_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        allocate(**arguments)


def test_an_order_names_every_type_once() -> None:
    with pytest.raises(ValueError, match="names each of"):
        set_order(allocate(1), ["user", "user", "op_host", "op_server", "enterprise"])


def test_compiles_where_nothing_can_be_cached() -> None:
    """A function without a file stands for a package folder and a home that cannot be written to."""
    namespace: dict = {}
    exec("def double(x):\n    return 2 * x\n", namespace)
    assert compiled(namespace["double"])(21) == 42


@pytest.mark.parametrize("changed", ["kernel.py", "red.py", "tables.py", "scenario.py", "policy_network.py"])
def test_a_change_of_the_rules_changes_the_type_of_the_state(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba looks at the age of one file only, so its cache must be told of the others by the argument's type."""
    before = state_module._fingerprint()
    assert [name for name in STATE.names or () if name.startswith("sources_")] == [f"sources_{before}"]
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path.name == changed))
    assert state_module._fingerprint() != before
