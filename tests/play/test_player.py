"""A worker's tasks, in this process: what is written to the ring, and what is refused."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aiotrain.cage2 import Cage2
from aiotrain.config import Config
from aiotrain.errors import EnvError, InvalidStepError, UnsupportedSpaceError
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.inspection import inspect_env
from aiotrain.play.player import Assignment, Player, episode_streams
from aiotrain.play.policy import NumpyPolicy, PolicyShape
from aiotrain.play.private_ring_player import LocalPlayer, make_player
from aiotrain.play.spaces import EnvSpec
from aiotrain.testing import Fault, Moment, faulty
from aiotrain.transport.slot_ring import BROKEN_OFF, SEALED, Ring
from envs import Action, Endless, Judged, Masked, Observation, Toy
from sample_data import spec_of, weights_for

Make = Callable[..., tuple[Player, Ring]]
SEED = 5


@pytest.fixture
def player() -> Make:
    """Makes a player and the ring that it plays into."""

    def make(factory: EnvFactory, *, envs: int = 1, slots: int = 8, steps: int = 20) -> tuple[Player, Ring]:
        env = factory()
        info = env.reset(seed=0)[1]
        spec = dataclasses.replace(
            EnvSpec.of(env, factory.name),
            metrics=factory.metrics,
            has_action_mask="action_mask" in info,
        )
        shape, layout = PolicyShape.of(spec, (8,)), spec.ring_layout(slots, steps)
        ring = Ring.private(layout)
        assignment = Assignment(2, envs, SEED, spec, shape, layout)
        made = Player(assignment, ring, [factory() for _ in range(envs)], factory)
        made.parameters[:] = weights_for(shape)
        made.refresh(3)
        return made, ring

    return make


def judged(**toy: Any) -> EnvFactory:
    return dataclasses.replace(EnvFactory.of(Judged, **toy), metrics=("compliance",))


def seed_of(episode: int) -> int:
    return episode_streams(SEED, episode)[0]


def test_streams_differ_between_episodes_and_runs() -> None:
    seeds = {episode_streams(run, episode)[0] for run in range(5) for episode in range(50)}
    assert len(seeds) == 250
    assert episode_streams(1, 2)[1].random(3).tolist() == episode_streams(1, 2)[1].random(3).tolist()


@pytest.mark.parametrize("observation", ["box", "bits", "one_hot"])
@pytest.mark.parametrize("action", ["discrete", "shifted", "gaussian"])
def test_slot_holds_what_the_environment_and_the_policy_did(
    player: Make, observation: Observation, action: Action
) -> None:
    one, ring = player(EnvFactory.of(Toy, observation=observation, action=action))
    slots = ring.lend(1)
    result = one.play(slots, [9])
    assert result.unused == ()
    assert result.failures == ()
    got = ring.copy_out(slots)

    spec = one._spec
    env, policy = Toy(observation, action), NumpyPolicy(PolicyShape.of(spec, (8,)))
    policy.parameters[:] = weights_for(policy.shape)
    policy.refresh()
    seed, generator = episode_streams(SEED, 9)
    noise = policy.noise(generator, 128)
    seen, rewards, over = [env.reset(seed=seed)[0]], [], False
    while not over:
        drawn, log_prob = policy.act(spec.encode(np.array(seen[-1:])), noise[len(rewards)][None])
        np.testing.assert_array_equal(got.actions[len(rewards)], drawn[0])
        assert got.log_probs[len(rewards)] == log_prob[0]
        given = np.clip(drawn[0], -0.5, 0.5) if action == "gaussian" else int(drawn[0]) + spec.action_start
        observation_now, reward, terminated, truncated, _ = env.step(given)
        seen.append(observation_now)
        rewards.append(reward)
        over = terminated or truncated
    np.testing.assert_array_equal(got.observations, np.array(seen[:-1]))
    np.testing.assert_array_equal(got.final_observations[0], seen[-1])
    np.testing.assert_allclose(got.rewards, rewards, rtol=1e-6)
    header = got.headers[0]
    assert (header["episode"], header["seed"], header["worker"], header["version"]) == (9, seed, 2, 3)
    assert (header["length"], header["episode_steps"], header["fragment"]) == (len(rewards), len(rewards), 0)
    assert header["episode_return"] == pytest.approx(sum(rewards))
    assert (header["ended"], header["terminated"]) == (True, True)


def test_truncation_is_no_termination(player: Make) -> None:
    one, ring = player(EnvFactory.of(Toy, terminates=False))
    slots = ring.lend(1)
    one.play(slots, [0])
    assert ring.headers[slots[0]][["ended", "terminated"]].item() == (True, False)


def test_long_episode_goes_on_in_further_slots(player: Make) -> None:
    """Cut into fragments it is, bit for bit, the episode that it is in one slot."""
    factory = EnvFactory.of(Toy, shortest=150, longest=150)
    whole_player, whole_ring = player(factory, steps=200)
    slots = whole_ring.lend(1)
    whole_player.play(slots, [4])
    whole = whole_ring.copy_out(slots)

    one, ring = player(factory, steps=40)
    (first,) = ring.lend(1)
    assert one.play([first], [4]).unused == ()
    assert not ring.headers[first]["ended"]
    further = ring.lend(4)
    assert one.play(further, [5]).unused == (), "the fifth slot is for the next episode"
    got = ring.copy_out([first, *further[:3]])
    assert got.headers["length"].tolist() == [40, 40, 40, 30]
    assert got.headers["fragment"].tolist() == [0, 1, 2, 3]
    assert got.headers["ended"].tolist() == [False, False, False, True]
    assert got.headers["episode_steps"].tolist() == [40, 80, 120, 150]
    for name in ("observations", "actions", "log_probs", "rewards"):
        np.testing.assert_array_equal(getattr(got, name), getattr(whole, name))
    assert got.headers["episode_return"][-1] == pytest.approx(whole.headers["episode_return"][0])
    np.testing.assert_array_equal(got.final_observations[:-1], got.observations[[40, 80, 120]])


@pytest.mark.parametrize("envs", [1, 3])
def test_bonus_and_compliance_are_told_beside_the_reward(player: Make, envs: int) -> None:
    one, ring = player(judged(), envs=envs)
    slots = ring.lend(5)
    one.play(slots, range(5))
    got = ring.copy_out(slots)
    ends = np.cumsum(got.headers["length"])
    for end, header in zip(ends.tolist(), got.headers, strict=True):
        length = int(header["length"])
        shares = np.random.default_rng(int(header["seed"])).random(length + 1)
        shares[:2] = 0
        bonuses = got.bonuses[end - length : end]
        np.testing.assert_allclose(bonuses, np.diff(shares), rtol=1e-6)
        assert header["episode_bonus"] == pytest.approx(shares[-1])
        assert header["compliance"] == shares[-1]
        env = Judged()
        env.reset(seed=int(header["seed"]))
        rewards = [env.step(int(action))[1] for action in got.actions[end - length : end]]
        assert header["episode_return"] == pytest.approx(sum(rewards)), "the bonus is no part of the return"
        np.testing.assert_allclose(got.rewards[end - length : end], rewards, rtol=1e-6)


def test_episode_in_fragments_sums_its_bonus(player: Make) -> None:
    one, ring = player(judged(shortest=23, longest=23), steps=10)
    slots = [*ring.lend(1), *ring.lend(2)]
    one.play(slots[:1], [4])
    one.play(slots[1:], [])
    got = ring.copy_out(slots)
    shares = np.random.default_rng(seed_of(4)).random(24)
    np.testing.assert_allclose(got.headers["episode_bonus"], shares[[10, 20, 23]])
    np.testing.assert_array_equal(got.headers["compliance"], [math.nan, math.nan, shares[23]])
    assert got.bonuses.sum() == pytest.approx(shares[23], rel=1e-5)


def test_next_episode_begins_without_bonus_or_compliance(player: Make) -> None:
    one, ring = player(judged(shortest=1, longest=1))
    for length, episode in ((5, 0), (1, 1)):
        one._envs[0].unwrapped.lengths = (length, length)
        (slot,) = slots = ring.lend(1)
        one.play(slots, [episode])
        assert ring.headers["length"][slot] == length
    assert ring.headers["episode_bonus"][slot] == 0
    assert math.isnan(ring.headers["compliance"][slot])


def test_environment_that_tells_no_bonus_has_none(player: Make) -> None:
    one, ring = player(EnvFactory.of(Toy))
    slots = ring.lend(2)
    one.play(slots, [0, 1])
    got = ring.copy_out(slots)
    assert not got.bonuses.any()
    assert len(got.bonuses) == got.steps
    assert not got.headers["episode_bonus"].any()
    assert "compliance" not in (got.headers.dtype.names or ())


def test_resets_are_given_options_only_where_there_are_any(player: Make) -> None:
    one, ring = player(judged())
    given: list[dict[str, Any]] = [{"workflow": ("a", "b")}, {"workflow": ("c", "d")}]
    for options in ([], [{}, {}], given, []):
        one.play(ring.lend(2), [0, 1], options)
    ((env,),) = ([env.unwrapped for env in one._envs],)
    assert env.options == [*[None] * 4, *given, *[None] * 2]


def test_unfinished_episodes_take_the_slots_of_new_ones(player: Make) -> None:
    one, ring = player(EnvFactory.of(Endless), envs=2, slots=6, steps=5)
    assert one.play(ring.lend(2), [0, 1]).unused == ()
    assert one.play(ring.lend(2), [2, 3]).unused == (2, 3)
    assert ring.headers["episode"][:4].tolist() == [0, 1, 0, 1]


def test_whole_episodes_whose_places_fragments_took_are_unused() -> None:
    factory, spec = EnvFactory.of(Toy, shortest=8, longest=8), spec_of()
    assignment = Assignment(0, 1, SEED, spec, PolicyShape.of(spec, (8,)), spec.ring_layout(3, 5))
    one = LocalPlayer(assignment, lambda ring: make_player(assignment, factory, ring, []))
    played = one.play_whole(weights_for(assignment.policy), 0, [0, 1, 2])
    assert played.trajectories is not None
    assert played.trajectories.headers[["episode", "fragment"]].tolist() == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert (played.unused, played.failures) == ((2,), ())


@pytest.mark.parametrize("envs", [1, 3])
def test_failed_episode_is_reported_and_the_others_are_played(player: Make, envs: int) -> None:
    one, ring = player(EnvFactory.of(faulty(Toy, "raise", episodes=[1], run_seed=SEED)), envs=envs)
    slots = ring.lend(4)
    result = one.play(slots, [0, 1, 2, 3])
    (failure,) = result.failures
    assert failure.where == {"worker": 2, "episode": 1, "seed": seed_of(1), "step": 1}
    assert not failure.invalid
    for part in ("worker 2", "episode 1", f"seed {seed_of(1)}", "step 1", "a fault that was injected", "Traceback"):
        assert part in failure.reason
    states = dict(ring.headers[["episode", "state"]][slots].tolist())
    assert states == {0: SEALED, 1: BROKEN_OFF, 2: SEALED, 3: SEALED}, "the watch takes what plays on for a hang"


def test_sys_exit_costs_the_episode_and_not_the_worker(player: Make) -> None:
    one, ring = player(EnvFactory.of(faulty(Toy, "sys.exit", episodes=[0], run_seed=SEED)))
    result = one.play(ring.lend(2), [0, 1])
    assert [failure.episode for failure in result.failures] == [0]
    assert "SystemExit" in result.failures[0].reason


@pytest.mark.parametrize(
    ("fault", "at", "words"),
    [
        ("nan", "step", "a reward of nan"),
        ("nan", "reset", "3 values that are NaN or infinite"),
        ("shape", "step", r"observation of shape \(3, 7\) where the space says \(3,\)"),
    ],
)
@pytest.mark.parametrize("envs", [1, 3])
def test_what_cannot_be_learned_from_is_refused_by_name(
    player: Make, fault: Fault, at: Moment, words: str, envs: int
) -> None:
    one, ring = player(EnvFactory.of(faulty(Toy, fault, at=at, episodes=[1], run_seed=SEED)), envs=envs)
    slots = ring.lend(3)
    (failure,) = one.play(slots, [0, 1, 2]).failures
    assert failure.invalid
    assert re.search(words, failure.reason)
    assert f"worker 2, episode 1, seed {seed_of(1)}, step {0 if at == 'reset' else 2}" in failure.reason
    assert sorted(ring.headers["episode"][ring.sealed(slots)].tolist()) == [0, 2]


class _Strange(Toy):
    """Its second step of the episode reset with ``seed`` shows ``strange``."""

    def __init__(self, observation: Observation, strange: Any, seed: int) -> None:
        super().__init__(observation)
        self.strange, self.seed = strange, seed

    def observe(self) -> Any:
        return self.strange if (self.steps, self.episode_seed) == (2, self.seed) else super().observe()


@pytest.mark.parametrize(
    ("observation", "strange", "words"),
    [
        ("box", np.zeros(3, complex), "observation of dtype complex128 where the space says float32"),
        ("box", np.array(["0", "1", "2"]), "observation of dtype <U1 where the space says float32"),
        ("bits", np.array([0, 1, 0, 1, 0.5]), "observation of dtype float64 where the space says int8"),
        ("one_hot", 2.5, "observation of dtype float64 where the space says int64"),
        ("one_hot", 0, "observation 0, which the Discrete space does not have"),
        ("one_hot", 5, "observation 5, which the Discrete space does not have"),
    ],
    ids=str,
)
def test_observation_from_outside_its_space_is_refused_by_name(
    player: Make, observation: Observation, strange: Any, words: str
) -> None:
    one, ring = player(EnvFactory.of(_Strange, observation=observation, strange=strange, seed=seed_of(1)))
    (failure,) = one.play(ring.lend(3), [0, 1, 2]).failures
    assert failure.invalid
    assert f"worker 2, episode 1, seed {seed_of(1)}, step 2: the environment returned {words}" == failure.reason


class _Odd(Toy):
    def __init__(self, reward: Any) -> None:
        super().__init__()
        self.reward = reward

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, _, *rest = super().step(action)
        return observation, self.reward, *rest  # type: ignore[return-value]


@pytest.mark.parametrize("reward", [None, float("inf"), np.zeros(2)], ids=str)
def test_reward_is_one_finite_number(player: Make, reward: Any) -> None:
    one, ring = player(EnvFactory.of(_Odd, reward=reward))
    (failure,) = one.play(ring.lend(1), [0]).failures
    assert failure.invalid, failure.reason
    assert "a reward of" in failure.reason


@pytest.mark.parametrize("envs", [1, 3])
def test_masks_bind_the_policy_and_are_kept(player: Make, envs: int) -> None:
    one, ring = player(EnvFactory.of(Masked, shortest=30, longest=40), envs=envs, slots=12, steps=15)
    slots = ring.lend(12)
    assert one.play(slots, range(4)).failures == (), "a barred action was drawn"
    got = ring.copy_out(ring.sealed(slots))
    got = got.select(np.lexsort((got.headers["fragment"], got.headers["episode"])))
    policy = NumpyPolicy(one._assignment.policy)
    policy.parameters[:] = one.parameters
    policy.refresh()
    for episode in range(4):
        chosen = got.select(got.headers["episode"] == episode)
        env = Masked(shortest=30, longest=40)
        observation, info = env.reset(seed=seed_of(episode))
        noise = policy.noise(episode_streams(SEED, episode)[1], 128)
        for step in range(chosen.steps):
            np.testing.assert_array_equal(chosen.masks[step], info["action_mask"])
            action, log_prob = policy.act(observation[None], noise[step : step + 1], info["action_mask"][None])
            assert (chosen.actions[step], chosen.log_probs[step]) == (action[0], log_prob[0])
            observation, *_, info = env.step(int(action[0]))
        assert not info["action_mask"].any(), "the end was not reached, where nothing is allowed"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.ones(4, np.int8), r"an action_mask of int8 \(4,\) where 5 integers belong, one an action"),
        (np.ones((1, 5), np.int8), r"an action_mask of int8 \(1, 5\)"),
        (np.ones(5), "an action_mask of float64"),
        (np.zeros(5, np.int8), "an action_mask that allows no action"),
        (None, "no action_mask, which the info of its first reset had"),
    ],
    ids=str,
)
@pytest.mark.parametrize("at", [0, 2])
def test_masks_that_cannot_bind_are_refused_by_name(player: Make, wrong: Any, words: str, at: int) -> None:
    one, ring = player(EnvFactory.of(Masked, shortest=5))
    one._envs[0].unwrapped.wrong, one._envs[0].unwrapped.wrong_at = wrong, at
    (failure,) = one.play(ring.lend(1), [0]).failures
    assert failure.invalid
    assert re.search(f"episode 0, .*, step {at}: the environment returned {words}", failure.reason)


class _LateMasked(Masked):
    def reset(self, **how: Any) -> tuple[Any, dict[str, Any]]:
        observation, _ = super().reset(**how)
        self.mask[:] = 1
        return observation, {}


def test_masks_that_the_first_reset_did_not_announce_are_refused(player: Make) -> None:
    one, ring = player(EnvFactory.of(_LateMasked, shortest=5))
    (failure,) = one.play(ring.lend(1), [0]).failures
    assert failure.invalid
    assert "step 1: the environment returned an action_mask, which the info of its first reset lacked" in failure.reason


def test_inspect_finds_out_whether_there_are_masks() -> None:
    assert inspect_env(EnvFactory.of(Masked))[1].has_action_mask
    assert not inspect_env(EnvFactory.of(Toy))[1].has_action_mask
    assert inspect_env(Config(env=Cage2(actions="compact", observation="memory")).env_factory())[1].has_action_mask
    with pytest.raises(InvalidStepError, match=r"first reset.*allows no action"):
        inspect_env(EnvFactory.of(Masked, wrong_at=0, wrong=np.zeros(5, np.int8)))


@pytest.mark.parametrize("at", ["make", "reset"])
@pytest.mark.parametrize("fault", ["raise", "sys.exit"])
def test_inspect_says_what_the_environment_raised(at: Moment, fault: Fault) -> None:
    with pytest.raises(EnvError, match="Traceback") as caught:
        inspect_env(EnvFactory.of(faulty(Toy, fault, at=at)))
    assert "a fault that was injected" in str(caught.value)
    assert ("cannot be made" if at == "make" else "first reset") in str(caught.value)


def test_inspect_refuses_a_first_observation_of_another_shape() -> None:
    class Wrong(Toy):
        def observe(self) -> Any:
            return np.zeros(2, np.float32)

    with pytest.raises(InvalidStepError, match="shape"):
        inspect_env(EnvFactory.of(Wrong))


def test_inspect_passes_on_unsupported_spaces() -> None:
    with pytest.raises(UnsupportedSpaceError):
        inspect_env(EnvFactory.of("Blackjack-v1"))
