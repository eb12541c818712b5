import hashlib
import random

import pytest
from blue_policies_by_step import POLICIES
from unmodified_challenge import UnmodifiedChallenge

from aiotrain.cage2.scenario import (
    COST_TENTHS,
    HOST_TYPE,
    HOSTS,
    NUM_ACTIONS,
    PROCESSES,
    SUBNETS,
    action_index,
    action_name,
    scenario2,
)

# By csle-cyborg from the challenge's Scenario2.yaml and its images: the sum of the rewards in tenths, and a
# digest of all bits, rewards and the final state of the generator, over an episode of every policy (seed 7).
PLAYED_FROM_THE_CHALLENGES_FILE = {
    "B_lineAgent": (-66058, "c04085ae31ea5a6ee1e7cd6cfdbbcc473cf56ee4edf02e618592b61c0f6796b4"),
    "RedMeanderAgent": (-56740, "6d5a7ba05628b2906ed8c9d7b5284040a132216280600d8f7767e2a1b86196d7"),
    "SleepAgent": (-2580, "ab6474819cf7b52f877c9baa98372172413a5b513f41f1c2621668f30ce8bd3f"),
}


@pytest.mark.parametrize("red_agent", PLAYED_FROM_THE_CHALLENGES_FILE)
def test_csle_cyborg_plays_our_description_as_it_plays_the_challenges_file(red_agent: str) -> None:
    stock = UnmodifiedChallenge(red_agent, scenario2())
    digest, total = hashlib.sha256(), 0
    for policy in POLICIES.values():
        act, bits = policy(random.Random(7)), stock.reset(7)
        for step in range(100):
            bits, reward = stock.step(act(step, bits))
            tenths = round(10 * reward)
            total += tenths
            digest.update(bits.astype("int8").tobytes() + b"%d" % tenths)
    digest.update(repr(random.getstate()).encode())
    assert (total, digest.hexdigest()) == PLAYED_FROM_THE_CHALLENGES_FILE[red_agent], (
        "the description's dynamics, or a policy of the tests, have changed"
    )


def test_actions_lie_where_the_challenge_wrapper_has_them() -> None:
    ours = [action_name(index) for index in range(NUM_ACTIONS)]
    assert ours == [str(action) for action in UnmodifiedChallenge("SleepAgent").wrapper.possible_actions]
    assert [action_index(*name.split()) for name in ours] == list(range(145))


def test_tables_agree_with_each_other() -> None:
    assert sorted(host for hosts in SUBNETS.values() for host in hosts) == sorted(HOSTS)
    assert [HOST_TYPE[host] for host in HOSTS] == (
        ["defender"] + ["enterprise"] * 3 + ["op_host"] * 3 + ["op_server"] + ["user"] * 5
    )
    hosts = scenario2()["Hosts"]
    assert [COST_TENTHS[hosts[host]["ConfidentialityValue"]] for host in HOSTS] == (
        [1, 10, 10, 10, 1, 1, 1, 10, 0, 1, 1, 1, 1]
    )
    sockets = [sum(len(process.ports) for process in PROCESSES[host]) for host in HOSTS]
    assert sockets == [4, 1, 7, 7, 1, 1, 1, 1, 2, 2, 4, 4, 5], "what a scan of each host finds"


def test_scenarios_are_independent_of_each_other() -> None:
    scenario2()["Hosts"]["User0"]["System info"]["OSType"] = "LINUX"
    assert scenario2()["Hosts"]["User0"]["System info"]["OSType"] == "WINDOWS", "a caller changed the tables"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: action_index("Restor", "User0"), "did you mean Restore"),
        (lambda: action_index("Restore", "OpServer0"), "did you mean Op_Server0"),
        (lambda: action_index("Restore"), "unknown host None"),
        (lambda: action_name(145), "action 145 does not exist"),
        (lambda: action_name(-1), "action -1 does not exist"),
    ],
)
def test_names_that_do_not_exist_are_explained(call, message: str) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match=message):
        call()
