"""The compiled engine equals CybORG: by recorded draws, and by way of an oracle that makes every draw.

bench/exactness.py runs the same comparisons at length.
"""

import random
from collections.abc import Iterator
from importlib import import_module
from unittest.mock import patch

import numpy as np
import pytest
from blue_policies import POLICIES
from oracle import Oracle
from recorded_draws import LeanReference, Recorder, UnmodifiedReference
from step_comparison import Replay

from aiotrain.cage2.engine import RED_AGENTS, allocate, reset_batch, step_batch
from aiotrain.cage2.simulators.cyborg_env import RED_AGENTS as ENVIRONMENT_RED_AGENTS

EPISODES = 17  # for each of the 36 pairs of red agent and blue policy: 61,200 steps
STEPS = 100


@pytest.mark.parametrize("red_agent", RED_AGENTS)
def test_replayed_draws_give_cyborgs_episodes(red_agent: str) -> None:
    replay = Replay(LeanReference(red_agent), red_agent)
    for number, policy in enumerate(POLICIES.values()):
        for episode in range(EPISODES):
            replay.play(policy, 1000 * number + episode, STEPS)
    assert replay.steps == EPISODES * len(POLICIES) * STEPS
    expected = {
        "B_lineAgent": {
            "B_line finds the gate closed",
            "Restore of Op_Server0 after Impact",
            "Restore of Op_Server0 before Impact",
            "red seen where a decoy was placed in this step",
            "scan swallowed by a decoy of this step",
        },
        "RedMeanderAgent": {
            "Meander blind to Op_Server0",
            "Op_Host attacked",
            "Restore of Op_Server0 after Impact",
            "red seen where a decoy was placed in this step",
            "scan swallowed by a decoy of this step",
        },
        "SleepAgent": {"Vsftpd stacked", "Restore of User0", "Restore of Defender"},
    }[red_agent]
    assert expected <= set(replay.rare), f"the policies no longer reach {expected - set(replay.rare)}"


@pytest.mark.parametrize("red_agent", RED_AGENTS)
def test_replayed_draws_give_the_unmodified_wrappers_episodes(red_agent: str) -> None:
    replay = Replay(UnmodifiedReference(red_agent), red_agent)
    for number, policy in enumerate(POLICIES.values()):
        replay.play(policy, number, 40)


@pytest.mark.parametrize("red_agent", RED_AGENTS)
def test_oracle_makes_the_unmodified_wrappers_draws(red_agent: str) -> None:
    stock, oracle = UnmodifiedReference(red_agent), Oracle(red_agent)
    for number, policy in enumerate(POLICIES.values()):
        oracle.random.seed(number)
        rng = random.Random(number)
        bits = stock.reset(number)
        assert bytes(oracle.reset()) == bits
        assert oracle.random.getstate() == random.getstate(), "the reset's draws differ"
        for step in range(40):
            action = policy(rng, bits, step)
            bits, reward, held = stock.step(action)
            own_bits, own_reward, own_held = oracle.step(action)
            where = f"{policy.__name__}, step {step}, action {action}"
            own = (bytes(own_bits), own_reward, own_held)
            assert own == (bits, reward, held), f"{where}: outcome differs"
            assert oracle.random.getstate() == random.getstate(), f"{where}: draws differ"


@pytest.fixture
def leaderboard_rules() -> Iterator[None]:
    """Put the two later changes of CybORG's dynamics back to where they were for the leaderboard."""
    session = import_module("csle_cyborg.simulator.session").RedAbstractSession
    versions = import_module("csle_cyborg.shared.enums").ProcessVersion
    parse = versions.parse_string

    def parse_or_unknown(version: object) -> object:
        parsed = parse(version)
        # An enum member, which is what a backup hands over, was not understood; a string is.
        return versions.UNKNOWN if parsed is version else parsed

    with (
        patch.object(session, "clearports", lambda self, address: None),
        patch.object(versions, "parse_string", parse_or_unknown),
    ):
        yield


@pytest.mark.usefixtures("leaderboard_rules")
@pytest.mark.parametrize("red_agent", RED_AGENTS[:2])
def test_leaderboard_rules_equal_cyborg_without_its_two_later_changes(red_agent: str) -> None:
    replay = Replay(LeanReference(red_agent), red_agent, rules="leaderboard")
    for number, policy in enumerate(POLICIES.values()):
        for episode in range(6):
            replay.play(policy, 50_000 + 1000 * number + episode, STEPS)


@pytest.mark.usefixtures("leaderboard_rules")
def test_rules_can_be_told_apart() -> None:
    """The proof above would fail under main's rules, so it does prove something."""
    replay = Replay(LeanReference("B_lineAgent"), "B_lineAgent", rules="main")

    def play_on() -> None:
        for episode in range(40):
            replay.play(POLICIES["restoring"], 70_000 + episode, STEPS)

    with pytest.raises(AssertionError, match="B_lineAgent, restoring"):
        play_on()


@pytest.mark.usefixtures("leaderboard_rules")
def test_oracle_follows_the_leaderboards_rules() -> None:
    for red_agent in RED_AGENTS[:2]:
        lean, oracle = LeanReference(red_agent), Oracle(red_agent, rules="leaderboard")
        for number, policy in enumerate(POLICIES.values()):
            oracle.random.seed(number)
            rng = random.Random(number)
            bits = lean.reset(number)
            oracle.reset()
            for step in range(STEPS):
                action = policy(rng, bits, step)
                bits, reward, held = lean.step(action)
                own_bits, own_reward, own_held = oracle.step(action)
                where = f"{red_agent}, {policy.__name__}, step {step}"
                assert (bytes(own_bits), own_reward, own_held) == (bits, reward, held), where
                assert oracle.random.getstate() == lean.env.generator.getstate(), where


def test_engine_and_environment_name_the_same_red_agents() -> None:
    assert RED_AGENTS == ENVIRONMENT_RED_AGENTS


def test_a_wrong_draw_is_noticed() -> None:
    """The comparison has teeth: turning the first draw of a tape changes the episode."""
    lean = LeanReference("B_lineAgent")
    recorder = Recorder(lean.controller)
    lean.reset(3)
    with recorder.recording() as words:
        expected = b"".join(lean.step(0)[0] for _ in range(30))
    for first, same in ((words[0], True), ((words[0] + (1 << 62)) % 2**64, False)):
        state = allocate(1, red_agent="B_lineAgent")
        reset_batch(state, np.zeros(1, np.uint64))
        tape = np.array([[first, *words[1:]]], np.uint64)
        tenths = np.zeros(1, np.int32)
        seen = b""
        for _ in range(30):
            step_batch(state, np.zeros(1, np.int64), tenths, tape)
            seen += state["observation"][0].tobytes()
        assert (seen == expected) is same
