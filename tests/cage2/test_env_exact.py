"""The environment equals csle-cyborg's ChallengeWrapper, draw for draw.

AIOTRAIN_EXACT_EPISODES sets the 100-step episodes for each of the 30 pairs of red agent and blue policy.
"""

import os
import random

import pytest
from blue_policies_by_step import POLICIES
from unmodified_challenge import UnmodifiedChallenge, first_difference

from aiotrain.cage2.simulators.cyborg_env import RED_AGENTS, Cage2Env

EPISODES = int(os.environ.get("AIOTRAIN_EXACT_EPISODES", "5"))


@pytest.fixture(scope="module", params=RED_AGENTS)
def pair(request: pytest.FixtureRequest) -> tuple[UnmodifiedChallenge, Cage2Env]:
    return UnmodifiedChallenge(request.param), Cage2Env(red_agent=request.param)


@pytest.mark.timeout(60 + 6 * EPISODES)
@pytest.mark.parametrize("policy", POLICIES)
def test_bits_rewards_and_draws_equal_csle_cyborgs(pair: tuple[UnmodifiedChallenge, Cage2Env], policy: str) -> None:
    stock, env = pair
    for episode in range(EPISODES):
        seed = 1000 * list(POLICIES).index(policy) + episode
        # Every third episode goes on with the stream of the one before.
        act = POLICIES[policy](random.Random(seed))
        difference = first_difference(
            stock, env, act, seed if episode % 3 < 2 else None, steps=100, check_red_hosts=episode == 0
        )
        assert difference is None, f"{policy}: {difference}"
