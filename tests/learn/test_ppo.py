"""The algorithm against formulas written out by hand."""

from __future__ import annotations

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aiotrain.config import PPOConfig
from aiotrain.learn.networks import ActorCritic
from aiotrain.learn.ppo import Learner, _discounted_returns_so_far, advantages, pick_device
from aiotrain.learn.running_statistics import RunningMoments
from aiotrain.play.policy import NumpyPolicy, PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.transport.ring import Trajectories
from envs import Action, Observation
from making import spec_of, trajectories

CPU = torch.device("cpu")
PLAIN = PPOConfig(scale_rewards=False, normalize_observations=False, hidden_sizes=(8,))
KINDS: list[tuple[Observation, Action]] = [("box", "discrete"), ("bits", "gaussian"), ("one_hot", "shifted")]


def masked(spec: EnvSpec) -> EnvSpec:
    """The same with 9 actions, of which some are barred."""
    return dataclasses.replace(spec, outputs=9, has_action_mask=True)


def learner(spec: EnvSpec, config: PPOConfig = PLAIN, seed: int = 0) -> Learner:
    return Learner(spec, PolicyShape.of(spec, config.hidden_sizes), config, seed=seed, device=CPU)


def on_policy(learner: Learner, spec: EnvSpec, batch: Trajectories) -> Trajectories:
    """``batch`` with the log-probabilities that the learner's policy gives its actions."""
    with torch.no_grad():
        inputs = learner.network.normalize(torch.from_numpy(spec.encode(batch.observations)))
        actions = torch.from_numpy(batch.actions)
        allowed = torch.from_numpy(batch.masks != 0) if spec.has_action_mask else None
        policy = learner.network.distribution(learner.network.actor(inputs), allowed)
        log_probs = policy.log_prob(
            torch.arange(batch.steps), actions.long() if spec.action_kind == "discrete" else actions
        )
    return dataclasses.replace(batch, log_probs=log_probs.numpy())


def played(learner: Learner, spec: EnvSpec, batch: Trajectories) -> Trajectories:
    """``batch`` with what a worker would do there by the learner's parameters, and its log-probabilities."""
    policy = NumpyPolicy(learner.network.shape)
    policy.parameters[:] = learner.parameters()
    policy.refresh()
    noise = policy.noise(np.random.default_rng(0), batch.steps)
    masks = batch.masks if spec.has_action_mask else None
    actions, log_probs = policy.act(spec.encode(batch.observations), noise, masks)
    return dataclasses.replace(batch, actions=actions.astype(batch.actions.dtype), log_probs=log_probs)


# ------------------------------------------------------------------- advantages


def naive_advantages(
    rewards: list[float], values: list[float], final_value: float, terminated: bool, gamma: float, lam: float
) -> list[float]:
    """The definition: sum over k of (gamma lambda)^k delta_{t+k}."""
    following = [*values[1:], 0.0 if terminated else final_value]
    deltas = [r + gamma * after - v for r, v, after in zip(rewards, values, following, strict=True)]
    return [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, len(deltas))) for t in range(len(deltas))]


number = st.floats(-10, 10, width=32)


@given(
    st.lists(
        st.tuples(st.lists(st.tuples(number, number), min_size=1, max_size=7), number, st.booleans()),
        min_size=1,
        max_size=6,
    ),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_advantages_are_their_definition(
    runs: list[tuple[list[tuple[float, float]], float, bool]], gamma: float, lam: float
) -> None:
    expected = []
    for steps, final_value, terminated in runs:
        rewards, values = ([step[i] for step in steps] for i in (0, 1))
        expected += naive_advantages(rewards, values, final_value, terminated, gamma, lam)
    got = advantages(
        np.array([step[0] for steps, *_ in runs for step in steps], np.float32),
        np.array([step[1] for steps, *_ in runs for step in steps], np.float32),
        np.array([final for _, final, _ in runs], np.float32),
        np.array([len(steps) for steps, *_ in runs]),
        np.array([terminated for *_, terminated in runs]),
        gamma,
        lam,
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("terminated", "expected"), [(True, 1 + 0.9 + 0.81), (False, 1 + 0.9 + 0.81 + 0.729 * 5)])
def test_advantage_in_closed_form(terminated: bool, expected: float) -> None:
    """With lambda 1 it is the discounted return, less the value."""
    got = advantages(
        np.ones(3, np.float32),
        np.array([2, 7, -3], np.float32),
        np.array([5], np.float32),
        np.array([3]),
        np.array([terminated]),
        0.9,
        1.0,
    )
    assert got[0] == pytest.approx(expected - 2)


def test_a_cut_where_the_value_is_true_changes_nothing() -> None:
    """A trajectory in two fragments has the advantages of the whole, if lambda is 0: each looks one step ahead."""
    rng = np.random.default_rng(0)
    rewards, values = rng.standard_normal((2, 6)).astype(np.float32)
    whole = advantages(rewards, values, np.zeros(1, np.float32), np.array([6]), np.array([True]), 0.9, 0.0)
    cut = advantages(
        rewards, values, np.array([values[4], 0], np.float32), np.array([4, 2]), np.array([False, True]), 0.9, 0.0
    )
    np.testing.assert_allclose(cut, whole, rtol=1e-6)


def test_fragment_is_bootstrapped_with_the_value_of_what_was_seen_last() -> None:
    """The whole update: only the value of the final observation can tell two batches apart, where it counts."""
    spec = spec_of("box")
    estimates = {}
    for name, terminated in (("cut", False), ("ended", True)):
        one = learner(spec, dataclasses.replace(PLAIN, epochs=1))
        batch = on_policy(one, spec, trajectories(spec, [5], ended=[terminated], terminated=[terminated]))
        other = dataclasses.replace(batch, final_observations=batch.final_observations + 3)
        estimates[name] = [learner_after(spec, each) for each in (batch, other)]
    assert not np.array_equal(*estimates["cut"]), "the value after a cut is not used"
    np.testing.assert_array_equal(*estimates["ended"], err_msg="there is a future after a terminal state")


def learner_after(spec: EnvSpec, batch: Trajectories, **settings: Any) -> npt.NDArray[np.float32]:
    one = learner(spec, dataclasses.replace(PLAIN, epochs=1, **settings))
    one.update(batch, 0.0)
    return np.concatenate([tensor.ravel() for tensor in one.tensors().values()])


@given(st.lists(st.lists(number, min_size=1, max_size=6), min_size=1, max_size=5), st.floats(0, 1))
def test_discounted_returns_so_far(runs: list[list[float]], gamma: float) -> None:
    expected = [
        sum(gamma ** (t - k) * rewards[k] for k in range(t + 1)) for rewards in runs for t in range(len(rewards))
    ]
    flat = np.array([reward for rewards in runs for reward in rewards], np.float32)
    lengths = np.array([len(rewards) for rewards in runs])
    np.testing.assert_allclose(_discounted_returns_so_far(flat, lengths, gamma), expected, rtol=1e-6, atol=1e-6)


@given(st.lists(st.lists(number, min_size=1, max_size=9), min_size=1, max_size=6))
def test_running_moments_are_those_of_everything(parts: list[list[float]]) -> None:
    moments = RunningMoments()
    for part in parts:
        moments.add(np.array(part))
    everything = np.concatenate(parts)
    assert moments.count == len(everything)
    np.testing.assert_allclose(moments.mean, everything.mean(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moments.variance, everything.var(), rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------- loss


def log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    normal: npt.NDArray[Any] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normal


@pytest.mark.parametrize("action", ["discrete", "gaussian", "masked"])
def test_loss_is_the_formula(action: str) -> None:
    spec = spec_of("box", "gaussian" if action == "gaussian" else "discrete")
    if action == "masked":
        spec = masked(spec)
    config = dataclasses.replace(PLAIN, clip_range=0.1, entropy_coef=0.03, value_coef=0.7)
    one = learner(spec, config)
    rng = np.random.default_rng(1)
    steps = 20
    batch = on_policy(one, spec, trajectories(spec, [steps]))
    inputs = spec.encode(batch.observations)
    old = batch.log_probs + rng.normal(0, 0.3, steps).astype(np.float32)
    advantage, returns = rng.standard_normal((2, steps)).astype(np.float32)
    actions = torch.from_numpy(batch.actions)
    if action != "gaussian":
        actions = actions.long()
    with torch.no_grad():
        terms = one._differentiate(
            None,
            torch.from_numpy(inputs),
            torch.from_numpy(batch.masks != 0) if action == "masked" else None,
            torch.arange(steps),
            actions,
            *(torch.as_tensor(each) for each in (old, advantage, returns)),
        )

    policy = NumpyPolicy(one.network.shape)
    policy.parameters[:] = one.parameters()
    policy.refresh()
    head = policy.head(inputs).astype(float)
    if action != "gaussian":
        table = log_softmax(np.where(batch.masks, head, -np.inf) if action == "masked" else head)
        new = table[np.arange(steps), batch.actions]
        entropy = -(np.exp(table) * np.where(np.isfinite(table), table, 0)).sum(axis=1).mean()
    else:
        log_std = policy.shape.split(policy.parameters)[-1].astype(float)
        z = (batch.actions - head) / np.exp(log_std)
        new = (-0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)).sum(axis=1)
        entropy = (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
    a = advantage
    ratio = np.exp(new - old)
    surrogate = np.minimum(ratio * a, np.clip(ratio, 0.9, 1.1) * a)
    with torch.no_grad():
        values = one.network.value(torch.from_numpy(inputs)).numpy()
    value_loss = 0.5 * ((values - returns) ** 2).mean()
    kl = (ratio - 1 - (new - old)).mean()
    clipped = (np.abs(ratio - 1) > 0.1).mean()
    expected = [-surrogate.mean(), value_loss, entropy, kl, clipped]
    np.testing.assert_allclose(terms.numpy() / steps, expected, rtol=1e-4, atol=1e-5)


def test_gaussian_entropy_is_torchs() -> None:
    network = ActorCritic(PolicyShape(2, (4,), 3, "gaussian"), torch.Generator().manual_seed(0))
    assert network.log_std is not None
    with torch.no_grad():
        network.log_std.copy_(torch.tensor([-1.0, 0.2, 0.5]))
        inputs, actions = torch.randn(5, 2), torch.randn(5, 3)
        policy = network.distribution(network.actor(inputs))
        expected = torch.distributions.Normal(network.actor(inputs), network.log_std.exp())
    torch.testing.assert_close(policy.entropy, expected.entropy().sum(-1))
    torch.testing.assert_close(policy.log_prob(torch.arange(5), actions), expected.log_prob(actions).sum(-1))


@pytest.mark.parametrize("action", ["discrete", "gaussian", "masked"])
def test_gradients_are_autograds_of_the_loss_as_it_is_written(action: str) -> None:
    """In double precision, with observations that several steps saw and ratios on either side of the clipping."""
    spec = spec_of("box", "gaussian" if action == "gaussian" else "discrete")
    if action == "masked":
        spec = masked(spec)
    config = dataclasses.replace(PLAIN, clip_range=0.1, entropy_coef=0.03, value_coef=0.7, hidden_sizes=(8, 6))
    one = learner(spec, config)
    network = one.network.double()
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.full_like(parameter, torch.nan)  # what is there before must not count
    steps, distinct = 40, 11
    inputs = torch.randn(distinct, spec.inputs, generator=generator).double()
    rows = torch.cat([torch.arange(distinct), torch.randint(0, distinct, (steps - distinct,), generator=generator)])
    noise, advantage, returns = torch.randn(3, steps, generator=generator).double()

    head, values = network.actor(inputs)[rows], network.critic(inputs)[rows, 0]
    policy: torch.distributions.Distribution
    allowed = None
    if action != "gaussian":
        actions = torch.randint(0, spec.outputs, (steps,), generator=generator)
        if action == "masked":
            allowed = torch.rand(distinct, spec.outputs, generator=generator) < 0.4
            allowed[rows, actions] = True
            assert not allowed.all(1).any()
            head = head.masked_fill(~allowed[rows], -math.inf)
        policy = torch.distributions.Categorical(logits=head)
    else:
        actions = torch.randn(steps, spec.outputs, generator=generator).double()
        assert network.log_std is not None
        policy = torch.distributions.Independent(torch.distributions.Normal(head, network.log_std.exp()), 1)
    log_probs = policy.log_prob(actions)
    old = log_probs.detach() + 0.2 * noise
    ratio = (log_probs - old).exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.9, 1.1) * advantage).mean()
    value_loss = 0.5 * (values - returns).square().mean()
    loss = -surrogate + 0.7 * value_loss - 0.03 * policy.entropy().mean()
    expected = torch.autograd.grad(loss, list(network.parameters()))

    with torch.no_grad():
        one._differentiate(None, inputs, allowed, rows, actions, old, advantage, returns)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("observation", "action"), [*KINDS, ("bits", "masked")])
def test_two_threads_learn_the_same_to_the_bit(
    observation: Observation, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiotrain.learn.ppo._MANY_BITS", 1)
    spec = masked(spec_of("bits", "discrete")) if action == "masked" else spec_of(observation, action)  # type: ignore[arg-type]
    submitted, submit = [], ThreadPoolExecutor.submit

    def counted(*given: Any) -> Any:
        submitted.append(given)
        return submit(*given)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", counted)
    found = []
    for threads in (1, 2):
        assert not submitted
        shape = PolicyShape.of(spec, PLAIN.hidden_sizes)
        one = Learner(spec, shape, PLAIN, seed=0, device=CPU, threads=threads)
        batch = on_policy(one, spec, trajectories(spec, [9, 11]))
        found.append([one.update(batch, 0.1 * number) for number in range(3)])
        found[-1].append({name: array.tobytes() for name, array in one.tensors().items()})
    assert len(submitted) == 3 * PLAIN.epochs
    assert found[0] == found[1]


@pytest.mark.parametrize(("observation", "action"), KINDS)
def test_what_was_seen_before_is_learned_from_as_if_it_were_new(
    observation: Observation, action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is computed once for all steps that saw the same is what would be computed for each."""
    spec = spec_of(observation, action)
    config = PPOConfig(hidden_sizes=(8,), minibatch_size=16, normalize_observations=True)
    batches = [trajectories(spec, [9, 4, 17], seed=i) for i in range(3)]
    batches = [dataclasses.replace(batch, observations=batch.observations[np.arange(30) % 7]) for batch in batches]
    learned = []
    for shares in (True, False):
        if not shares:
            monkeypatch.setattr(Learner, "_distinct", lambda _, given: (np.arange(len(given)), np.arange(len(given))))
        one = learner(spec, config)
        first, rows = one._distinct(batches[0].observations)
        np.testing.assert_array_equal(batches[0].observations[first][rows], batches[0].observations)
        assert len(first) <= 7 if shares else len(first) == 30
        for batch in batches:
            one.update(batch, 0.0)
        learned.append(one.parameters())
    np.testing.assert_allclose(*learned, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hidden", [(), (8,), (16, 8)], ids=str)
def test_many_bits_are_learned_from_by_their_ones_as_they_are(hidden: tuple[int, ...]) -> None:
    """With rows without any one, and inputs that never are."""
    spec = dataclasses.replace(spec_of("bits"), observation_shape=(300,), inputs=300)
    config = PPOConfig(hidden_sizes=hidden, minibatch_size=16)
    batches = [trajectories(spec, [9, 4, 17], seed=i) for i in range(3)]
    for batch in batches:
        batch.observations[5] = batch.observations[:, 7] = batch.final_observations[1] = 0
    learned = []
    for by_ones in (True, False):
        one = learner(spec, config)
        assert one._takes_bits, "300 inputs are not many"
        one._takes_bits = by_ones
        for batch in batches:
            metrics = one.update(on_policy(one, spec, batch), 0.0)
        learned.append((one.parameters(), *metrics.values()))
    for with_ones, dense in zip(*learned, strict=True):
        np.testing.assert_allclose(with_ones, dense, rtol=1e-3, atol=1e-5)
    assert not learner(dataclasses.replace(spec, observation_kind="box"), config)._takes_bits
    assert not learner(spec, dataclasses.replace(config, normalize_observations=True))._takes_bits


def test_what_was_seen_under_another_mask_is_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = masked(spec_of("bits"))
    config = PPOConfig(hidden_sizes=(8,), minibatch_size=16)
    batch = trajectories(spec, [30, 30])
    batch = dataclasses.replace(batch, observations=batch.observations[np.arange(60) % 3])
    learned = []
    for shares in (True, False):
        if not shares:
            monkeypatch.setattr(Learner, "_distinct", lambda _, given: (np.arange(len(given)), np.arange(len(given))))
        one = learner(spec, config)
        batch = on_policy(one, spec, batch)
        for _ in range(3):
            one.update(batch, 0.0)
        learned.append(one.parameters())
    np.testing.assert_allclose(*learned, rtol=1e-4, atol=1e-5)


def test_what_was_played_under_masks_has_the_same_log_probabilities_in_learning() -> None:
    spec = masked(spec_of())
    one = learner(spec, dataclasses.replace(PLAIN, epochs=1, minibatch_size=10**6))
    batch = played(one, spec, trajectories(spec, [60]))
    np.testing.assert_allclose(on_policy(one, spec, batch).log_probs, batch.log_probs, atol=1e-5)
    metrics = one.update(batch, 0.0)
    assert metrics["policy_loss"] == pytest.approx(0, abs=1e-5), "some steps weigh as if an older policy had played"
    assert 0 < metrics["entropy"] < math.log(9)


@pytest.mark.parametrize("action", ["discrete", "gaussian"])
def test_steps_of_an_older_policy_are_weighted_and_clipping_starts_from_the_present_one(action: Action) -> None:
    spec = spec_of("box", action)
    one = learner(spec, dataclasses.replace(PLAIN, epochs=1, minibatch_size=64))
    batch = on_policy(one, spec, trajectories(spec, [9, 11]))
    shift = np.random.default_rng(2).normal(0, 0.5, batch.steps).astype(np.float32)
    state = one.state()
    seen: list[Any] = []
    differentiate = one._differentiate

    def noted(*given: Any) -> Any:
        seen.append(given)
        return differentiate(*given)

    one._differentiate = noted  # type: ignore[method-assign]
    for acted in (batch.log_probs, batch.log_probs + shift):
        one.load(state)
        one._generator.manual_seed(0)  # the same minibatch
        one.update(dataclasses.replace(batch, log_probs=acted), 0.0)
    (*_, old, advantage, _), (*_, old_too, weighted, _) = seen
    torch.testing.assert_close(old, old_too)
    assert sorted(old.tolist()) == pytest.approx(sorted(batch.log_probs.tolist()), abs=1e-5)
    order = torch.randperm(batch.steps, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(weighted, advantage * torch.from_numpy(np.exp(-shift))[order], rtol=1e-4, atol=1e-5)


def test_advantages_are_brought_to_mean_0_and_deviation_1_over_the_batch() -> None:
    spec = spec_of()
    one = learner(spec, dataclasses.replace(PLAIN, epochs=1, minibatch_size=7))
    seen = []
    differentiate = one._differentiate

    def noted(*given: Any) -> Any:
        seen.append(given[-2])
        return differentiate(*given)

    one._differentiate = noted  # type: ignore[method-assign]
    one.update(on_policy(one, spec, trajectories(spec, [9, 11])), 0.0)
    advantage = torch.cat(seen).numpy()
    assert len(advantage) == 20
    assert advantage.mean() == pytest.approx(0, abs=1e-6)
    assert advantage.std() == pytest.approx(1, rel=1e-5)


def test_a_reward_counts_once_for_each_horizon_it_lies_within() -> None:
    """Of an episode in one slot as of one in two fragments, whose second begins with its fourth step."""
    spec = spec_of()
    whole = trajectories(spec, [7])
    cut = trajectories(spec, [3, 4], episodes=[0, 0], fragments=[0, 1], ended=[False, True])
    cut.headers["episode_steps"] = [3, 7]
    for batch in (whole, cut):
        counted = dataclasses.replace(batch, rewards=batch.rewards * np.array([3, 3, 2, 2, 2, 1, 0], np.float32))
        learned = []
        for horizons, played_batch in (((2, 6, 5), batch), ((), counted)):
            one = learner(spec, dataclasses.replace(PLAIN, horizons=horizons, scale_rewards=True))
            for _ in range(2):
                one.update(played_batch, 0.0)
            learned.append(one.parameters())
        np.testing.assert_array_equal(*learned)


def test_bonuses_count_once_whatever_the_horizons() -> None:
    spec = spec_of()
    batch = trajectories(spec, [7])
    batch = dataclasses.replace(batch, rewards=np.zeros(7, np.float32), bonuses=batch.rewards)
    learned = [learner_after(spec, batch, horizons=horizons) for horizons in ((), (2, 7))]
    np.testing.assert_array_equal(*learned)


def test_beyond_the_last_horizon_there_is_no_future() -> None:
    """Where an episode is truncated there, as where it terminates; before, what was seen last is worth something."""
    spec = spec_of()
    for last, matters in ((6, True), (5, False)):
        learned = []
        for terminated in (True, False):
            one = learner(spec, dataclasses.replace(PLAIN, horizons=(2, last)))
            one.update(on_policy(one, spec, trajectories(spec, [5], terminated=[terminated])), 0.0)
            learned.append(np.concatenate([tensor.ravel() for tensor in one.tensors().values()]))
        assert np.array_equal(*learned) != matters, f"last horizon {last}"


def test_the_entropy_bonus_changes_along_a_straight_line() -> None:
    spec = spec_of()
    batch = trajectories(spec, [30])
    learned = {}
    for name, progress, coefs in (
        ("half way", 0.5, {"entropy_coef": 0.5, "final_entropy_coef": 0.1}),
        ("the mean", 0.5, {"entropy_coef": 0.3}),
        ("none given", 1.0, {"entropy_coef": 0.3}),
        ("the end", 1.0, {"entropy_coef": 0.5, "final_entropy_coef": 0.3}),
        ("the beginning", 0.0, {"entropy_coef": 0.5, "final_entropy_coef": 0.3}),
    ):
        one = learner(spec, dataclasses.replace(PLAIN, final_learning_rate=PLAIN.learning_rate, **coefs))
        one.update(batch, progress)
        learned[name] = one.parameters()
    for name in ("half way", "none given", "the end"):
        np.testing.assert_allclose(learned[name], learned["the mean"], rtol=1e-5, atol=1e-6, err_msg=name)
    assert not np.allclose(learned["the beginning"], learned["the mean"], rtol=1e-5, atol=1e-6)


# ----------------------------------------------------------------------- update


@pytest.mark.parametrize(("observation", "action"), KINDS)
def test_update_is_deterministic_and_leaves_torchs_generator_alone(observation: Observation, action: Action) -> None:
    spec = spec_of(observation, action)
    config = PPOConfig(hidden_sizes=(8,), minibatch_size=16)
    results = []
    for before in (1, 2):
        torch.manual_seed(before)
        state = torch.get_rng_state()
        one = learner(spec, config, seed=7)
        metrics = [one.update(trajectories(spec, [9, 4, 17], seed=i), i / 3) for i in range(3)]
        assert torch.equal(state, torch.get_rng_state())
        results.append((metrics, one.parameters()))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert np.isfinite(results[0][1]).all()


@pytest.mark.parametrize(("observation", "action"), KINDS)
@pytest.mark.parametrize("updates_before", [0, 2])
def test_learner_goes_on_from_its_state_as_it_did_before(
    observation: Observation, action: Action, updates_before: int
) -> None:
    """Networks, optimiser and scales all come back; the random generator goes on, so it is put back here."""
    spec = spec_of(observation, action)
    one = learner(spec, PPOConfig(hidden_sizes=(8,), minibatch_size=16))
    for number in range(updates_before):
        one.update(trajectories(spec, [9, 4], seed=number), 0.1)
    batch = trajectories(spec, [8, 5, 13], seed=7)
    if observation == "box":  # a few are further out than what is normalised may be
        batch.observations[::4] *= 100
    state, before, generator = one.state(), one.parameters(), one._generator.get_state()
    results = []
    for seed in (8, 9):
        metrics = one.update(batch, 0.5)
        results.append((metrics, one.parameters(), one.tensors()))
        one.update(trajectories(spec, [20], seed=seed), 0.9)
        one.load(state)
        np.testing.assert_array_equal(one.parameters(), before)
        one._generator.set_state(generator)
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])
    for name, tensor in results[0][2].items():
        np.testing.assert_array_equal(tensor, results[1][2][name], err_msg=name)
    assert not np.array_equal(results[0][1], before), "nothing was learned"


def test_seed_changes_the_start() -> None:
    spec = spec_of()
    assert not np.array_equal(learner(spec, seed=0).parameters(), learner(spec, seed=1).parameters())


def test_first_actions_are_nearly_uniform() -> None:
    spec = spec_of()
    policy = NumpyPolicy(PolicyShape.of(spec, (8,)))
    policy.parameters[:] = learner(spec).parameters()
    policy.refresh()
    probabilities = np.exp(log_softmax(policy.head(np.eye(3, dtype=np.float32))))
    np.testing.assert_allclose(probabilities, 1 / 3, atol=0.02)


def test_advantage_raises_the_probability_of_its_action() -> None:
    spec = spec_of()
    one = learner(spec, dataclasses.replace(PLAIN, entropy_coef=0.0, learning_rate=0.01))
    for i in range(20):
        batch = trajectories(spec, [1] * 64, seed=i)
        batch = dataclasses.replace(batch, rewards=(batch.actions == 2).astype(np.float32))
        one.update(on_policy(one, spec, batch), 0.0)
    policy = NumpyPolicy(one.network.shape)
    policy.parameters[:] = one.parameters()
    policy.refresh()
    assert np.exp(log_softmax(policy.head(np.zeros((1, 3), np.float32))))[0, 2] > 0.8


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 1e-3), (0.5, 6e-4), (1.0, 2e-4)])
def test_learning_rate_falls_along_a_line(progress: float, expected: float) -> None:
    spec = spec_of()
    one = learner(spec, dataclasses.replace(PLAIN, learning_rate=1e-3, final_learning_rate=2e-4))
    metrics = one.update(trajectories(spec, [8]), progress)
    assert metrics["learning_rate"] == pytest.approx(expected)
    assert one._optimizer.param_groups[0]["lr"] == pytest.approx(expected)


def test_update_ends_early_once_the_policy_has_moved_far() -> None:
    spec = spec_of()
    calls = {}
    for target in (None, 1e-9):
        one = learner(spec, dataclasses.replace(PLAIN, epochs=5, learning_rate=0.05, target_kl=target))
        batch = on_policy(one, spec, trajectories(spec, [40]))
        calls[target] = 0
        differentiate = one._differentiate

        def counted(*given: Any, target: Any = target, differentiate: Any = differentiate) -> Any:
            calls[target] += 1
            return differentiate(*given)

        one._differentiate = counted  # type: ignore[method-assign]
        one.update(batch, 0.0)
    assert calls[None] == 5
    assert 1 <= calls[1e-9] < 5


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_smallest_batches_stay_finite(steps: int) -> None:
    """A minibatch of one step has no deviation to divide by."""
    spec = spec_of()
    one = learner(spec, dataclasses.replace(PLAIN, minibatch_size=2))
    metrics = one.update(trajectories(spec, [1] * steps), 0.0)
    assert np.isfinite(one.parameters()).all(), "the weights are NaN"
    assert all(math.isfinite(value) for value in metrics.values()), metrics


@pytest.mark.parametrize("observation", ["box", "bits", "one_hot"])
def test_normalisation_follows_the_observations(observation: Observation) -> None:
    spec = spec_of(observation)
    one = learner(spec, dataclasses.replace(PLAIN, normalize_observations=True))
    seen = []
    for i in range(3):
        batch = trajectories(spec, [30, 20], seed=i)
        seen.append(spec.encode(batch.observations))
        one.update(batch, 0.0)
    everything = np.concatenate(seen)
    mean, scale = one.network.shape.split(one.parameters())[:2]
    np.testing.assert_allclose(mean, everything.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scale, 1 / np.sqrt(everything.var(axis=0) + 1e-8), rtol=1e-5)


@pytest.mark.parametrize(("observation", "normalised"), [("box", True), ("bits", False), ("one_hot", False)])
def test_only_floats_are_normalised_by_default(observation: Observation, normalised: bool) -> None:
    one = learner(spec_of(observation), PPOConfig(hidden_sizes=(4,)))
    assert (one._input_moments is not None) == normalised


def test_behaviour_log_probs_belong_to_the_normalisation_that_acted() -> None:
    """So the steps of a batch that the very policy played all weigh the same, and the mean advantage is 0."""
    spec = spec_of()
    one = learner(spec, dataclasses.replace(PLAIN, normalize_observations=True, epochs=1, minibatch_size=10**6))
    for i in range(3):
        metrics = one.update(played(one, spec, trajectories(spec, [60], seed=i)), 0.0)
        assert metrics["policy_loss"] == pytest.approx(0, abs=1e-5)


def test_explained_variance() -> None:
    """1 minus the variance of the error over that of the returns: near 0 for a value that knows nothing."""
    spec = spec_of()
    config = dataclasses.replace(PLAIN, gamma=0.0, epochs=30, learning_rate=0.02, final_learning_rate=0.02)
    one = learner(spec, config)
    batch = trajectories(spec, [1] * 200)
    batch = dataclasses.replace(batch, rewards=batch.observations[:, 0].copy())
    explained = [one.update(batch, 0.0)["explained_variance"] for _ in range(15)]
    with torch.no_grad():
        error = batch.rewards - one.network.value(torch.from_numpy(batch.observations)).numpy()
    assert explained[-1] > 0.9
    assert one.update(batch, 0.0)["explained_variance"] == pytest.approx(
        1 - error.var() / batch.rewards.var(), rel=1e-3
    )


def test_rewards_are_scaled_by_the_deviation_of_the_returns() -> None:
    spec = spec_of()
    one = learner(spec, dataclasses.replace(PLAIN, scale_rewards=True, gamma=0.5))
    seen = []
    for i in range(2):
        batch = trajectories(spec, [7, 5], seed=i)
        seen.append(_discounted_returns_so_far(batch.rewards, batch.headers["length"], 0.5))
        scaled = one._scaled_rewards(batch)
        np.testing.assert_allclose(scaled, batch.rewards / np.concatenate(seen).std(), rtol=1e-5)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "float16", "float32", "float64"]
)
def test_learner_reads_every_dtype_as_the_workers_do(dtype: str) -> None:
    spec = dataclasses.replace(spec_of("box"), observation_dtype=dtype)
    one = learner(spec)
    observations = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    np.testing.assert_array_equal(one._inputs(observations).numpy(), spec.encode(observations))


def test_learner_counts_one_hot_from_the_first_value() -> None:
    spec = spec_of("one_hot")
    observations = np.array([1, 4, 2])
    np.testing.assert_array_equal(learner(spec)._inputs(observations).numpy(), spec.encode(observations))


def test_missing_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == CPU
    with pytest.raises(ValueError, match="no GPU"):
        pick_device("cuda")
