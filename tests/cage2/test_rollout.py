"""Compiled rollouts: the episodes are those of the single-step path, and the same in any company."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numba import njit

from aiotrain.cage2.play import simd as vectors
from aiotrain.cage2.play.rollout import NO_BONUSES, Rollout
from aiotrain.cage2.scenario import HOST_TYPES
from aiotrain.cage2.simulators.vector_env import Cage2VectorEnv
from aiotrain.play.policy import NumpyPolicy, PolicyShape
from aiotrain.transport.slot_ring import Ring, RingLayout

ORDERS = np.array([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]], np.uint8)


class Memory:
    """What episodes are written to, without shared memory; filled with what must not stay."""

    def __init__(self, slots: int, steps: int, inputs: int) -> None:
        self.observations = np.full((slots, steps + 1, inputs), 7, np.int8)
        self.actions = np.full((slots, steps), -1, np.int16)
        self.log_probs = np.full((slots, steps), np.nan, np.float32)
        self.rewards = np.full((slots, steps), np.nan, np.float32)
        self.bonuses = np.full((slots, steps), np.nan, np.float32)
        self.masks = np.full((slots, steps, 42), 7, np.int8)


def shape_of(inputs: int, hidden: tuple[int, ...] = (64, 64), outputs: int = 145) -> PolicyShape:
    return PolicyShape(inputs, hidden, outputs, "discrete")


def parameters(shape: PolicyShape, seed: int = 0, gain: float = 2.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    vector = np.zeros(shape.size, np.float32)
    _, scale, *layers = shape.split(vector)
    scale[:] = 1
    for weight in layers:
        weight[...] = gain * rng.standard_normal(weight.shape) / math.sqrt(len(weight) if weight.ndim == 2 else 10)
    return vector


def rollout_of(shape: PolicyShape, vector: np.ndarray, red_agent: str = "B_lineAgent", **view: str) -> Rollout:
    rollout = Rollout(shape.layers, red_agent=red_agent, **view)
    rollout.refresh(vector)
    return rollout


def chance(count: int, steps: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seeds, noise and orders of ``count`` episodes."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**31, count), rng.random((count, steps), np.float32), ORDERS[np.arange(count) % 3]


@pytest.mark.parametrize("red_agent", ["B_lineAgent", "RedMeanderAgent"])
@pytest.mark.parametrize(
    ("inputs", "hidden", "observation", "actions"),
    [
        (52, (64, 64), "table", "full"),
        (77, (64, 64), "table", "full"),
        (77, (), "table", "full"),
        (52, (5,), "table", "full"),
        (77, (33, 100, 40), "table", "full"),
        (307, (64, 64), "memory", "compact"),
        (332, (33, 20), "memory", "compact"),
        (332, (64,), "memory", "full"),
        (77, (), "table", "compact"),
    ],
)
def test_episodes_are_those_of_the_single_step_path(
    inputs: int, hidden: tuple[int, ...], observation: str, actions: str, red_agent: str
) -> None:
    count, steps = 6, 60
    view: dict[str, Any] = {"observation": observation, "actions": actions}
    shape = shape_of(inputs, hidden, 42 if actions == "compact" else 145)
    masked = 42 if actions == "compact" else 0
    policy = NumpyPolicy(shape)
    policy.parameters[:] = parameters(shape)
    policy.refresh()
    seeds, noise, orders = chance(count, steps)
    slots = np.array([9, 0, 4, 7, 1, 3])
    ring = Ring.create(RingLayout(10, steps + 5, (inputs,), "|i1", (), "<i2", masked=masked))
    try:
        rollout = rollout_of(shape, policy.parameters, red_agent, **view)
        played = rollout.play(seeds, noise, orders, slots, ring, masks=ring.masks)
        for episode, slot in enumerate(slots):
            order = [HOST_TYPES[kind] for kind in orders[episode]]
            env = Cage2VectorEnv(1, red_agent=red_agent, max_steps=steps, workflow=order, **view)
            bits, info = env.reset(seed=int(seeds[episode]))
            for step in range(steps):
                seen = bits[0, :inputs]
                assert (ring.observations[slot, step] == seen).all()
                mask = info.get("action_mask")
                drawn, log_probs = policy.act(seen[None].astype(np.float32), noise[episode, step : step + 1], mask)
                assert ring.actions[slot, step] == drawn[0]
                assert ring.log_probs[slot, step] == pytest.approx(log_probs[0], abs=1e-5)
                assert mask is None or (ring.masks[slot, step] == mask[0]).all()
                bits, rewards, *_, info = env.step(drawn)
                assert ring.rewards[slot, step] == np.float32(rewards[0])
            assert (ring.observations[slot, steps] == bits[0, :inputs]).all()
            assert not ring.rewards[slot, steps:].any(), "wrote beyond the end"
            assert not ring.observations[slot, steps + 1 :].any(), "wrote beyond the end"
            assert not ring.masks[slot, steps:].any(), "wrote beyond the end"
            for name in ("return_tenths", "fixes", "compliant_fixes"):
                assert played[name][episode] == env.state[name][0], name
        assert not ring.observations[[2, 5, 6, 8]].any(), "wrote to slots that it was not given"
    finally:
        ring.close()


@pytest.mark.parametrize("actions", ["full", "compact"])
def test_log_probs_are_those_of_torch(actions: str) -> None:
    shape = shape_of(77, outputs=42 if actions == "compact" else 145)
    vector = parameters(shape, gain=4.0)
    seeds, noise, orders = chance(20, 100)
    memory = Memory(20, 100, 77)
    rollout_of(shape, vector, actions=actions).play(seeds, noise, orders, np.arange(20), memory, masks=memory.masks)
    x = torch.from_numpy(memory.observations[:, :-1].reshape(-1, 77).astype(np.float32))
    *hidden, weight, bias = (torch.from_numpy(part) for part in shape.split(vector)[2:])
    for w, b in zip(hidden[0::2], hidden[1::2], strict=True):
        x = torch.tanh(x @ w + b)
    logits = x @ weight + bias
    if actions == "compact":
        logits = logits.masked_fill(torch.from_numpy(memory.masks.reshape(-1, 42) == 0), -math.inf)
    log_probs = torch.log_softmax(logits, dim=1)
    drawn = log_probs.gather(1, torch.from_numpy(memory.actions.reshape(-1, 1).astype(np.int64)))[:, 0]
    assert np.abs(drawn.numpy() - memory.log_probs.ravel()).max() < 1e-5


@pytest.mark.parametrize("hidden", [(64, 64), (), (20, 70)])
def test_an_episode_is_the_same_to_the_bit_in_any_company(hidden: tuple[int, ...]) -> None:
    shape, steps = shape_of(77, hidden), 40
    rollout = rollout_of(shape, parameters(shape))
    seeds, noise, orders = chance(70, steps)
    whole = Memory(70, steps, 77)
    rollout.play(seeds, noise, orders, np.arange(70), whole)
    rng = np.random.default_rng(1)
    for count in (1, 2, 3, 4, 5, 8, 31, 32, 33, 50, 70):
        chosen, slots = rng.permutation(70)[:count], rng.permutation(70)[:count]
        memory = Memory(70, steps, 77)
        rollout.play(seeds[chosen], noise[chosen], orders[chosen], slots, memory)
        for name in ("observations", "actions", "rewards"):
            assert (getattr(memory, name)[slots] == getattr(whole, name)[chosen]).all(), (name, count)
        assert memory.log_probs[slots].tobytes() == whole.log_probs[chosen].tobytes(), count


def test_a_refresh_leaves_nothing_of_the_parameters_before() -> None:
    shape = shape_of(52)
    seeds, noise, orders = chance(3, 30)
    fresh, used = Memory(3, 30, 52), Memory(3, 30, 52)
    rollout_of(shape, parameters(shape, seed=1)).play(seeds, noise, orders, np.arange(3), fresh)
    rollout = rollout_of(shape, parameters(shape, seed=2))
    rollout.play(seeds, noise, orders, np.arange(3), used)
    assert (used.actions != fresh.actions).any()
    rollout.refresh(parameters(shape, seed=1))
    rollout.play(seeds, noise, orders, np.arange(3), used)
    assert (used.actions == fresh.actions).all()
    assert (used.log_probs == fresh.log_probs).all()


def test_bonuses_are_what_each_step_adds_to_the_compliance() -> None:
    shape, steps = shape_of(77), 100
    seeds, noise, orders = chance(40, steps)
    memory = Memory(40, steps, 77)
    played = rollout_of(shape, parameters(shape)).play(
        seeds, noise, orders, np.arange(40), memory, memory.bonuses, alignment_lambda=3.0
    )
    fixed = played["fixes"] > 0
    assert fixed.sum() > 20
    share = played["compliant_fixes"] / np.maximum(played["fixes"], 1)
    assert 0.05 < share.mean() < 0.95
    assert memory.bonuses.sum(axis=1, dtype=np.float64) == pytest.approx(3.0 * share, abs=1e-5)
    env = Cage2VectorEnv(40, workflow=HOST_TYPES)
    env.reset(seed=seeds.tolist())
    env.state["order"] = orders
    for step in range(steps):
        *_, info = env.step(memory.actions[:, step].astype(np.int64))
        assert memory.bonuses[:, step] == pytest.approx(3.0 * info["alignment"], abs=1e-6)


def test_without_bonuses_the_episode_is_the_same() -> None:
    shape = shape_of(52)
    seeds, noise, orders = chance(4, 50)
    with_them, without = Memory(4, 50, 52), Memory(4, 50, 52)
    rollout = rollout_of(shape, parameters(shape))
    rollout.play(seeds, noise, orders, np.arange(4), with_them, with_them.bonuses, 1.0)
    rollout.play(seeds, noise, orders, np.arange(4), without, NO_BONUSES)
    assert (with_them.actions == without.actions).all()
    assert (with_them.rewards == without.rewards).all()


def test_actions_are_drawn_with_their_probabilities_and_impossible_ones_never() -> None:
    shape = shape_of(52, ())
    vector = np.zeros(shape.size, np.float32)
    _, scale, _, bias = shape.split(vector)
    scale[:] = 1
    bias[:] = -200
    bias[[3, 70, 143]] = np.log([0.5, 0.3, 0.2])
    seeds, noise, orders = chance(100, 100)
    noise[:, 0], noise[:, 1] = 0, np.nextafter(np.float32(1), np.float32(0))
    memory = Memory(100, 100, 52)
    rollout_of(shape, vector).play(seeds, noise, orders, np.arange(100), memory)
    assert (memory.actions[:, 0] == 3).all()
    assert (memory.actions[:, 1] == 143).all()
    expected = np.where(noise < 0.5, 3, np.where(noise < 0.8, 70, 143))
    clear = np.minimum(np.abs(noise - 0.5), np.abs(noise - 0.8)) > 1e-6
    assert (memory.actions == expected)[clear].all()
    assert set(np.unique(memory.actions)) == {3, 70, 143}
    assert memory.log_probs[memory.actions == 70] == pytest.approx(math.log(0.3), abs=1e-5)


def test_greedy_parameters_draw_the_most_probable_action_whatever_the_noise() -> None:
    shape = shape_of(77)
    policy = NumpyPolicy(shape)
    policy.parameters[:] = parameters(shape, gain=0.5)
    policy.refresh()
    seeds, noise, orders = chance(20, 50)
    memory = Memory(20, 50, 77)
    rollout_of(shape, shape.greedy(policy.parameters)).play(seeds, noise, orders, np.arange(20), memory)
    heads = policy.head(memory.observations[:, :-1].reshape(-1, 77).astype(np.float32))
    drawn = heads[np.arange(len(heads)), memory.actions.ravel()]
    assert (drawn >= heads.max(axis=1) - 1e-5).all()
    assert len(set(memory.actions.ravel())) > 1
    assert (memory.log_probs == 0).all()


@pytest.mark.parametrize("gain", [1.0, 30.0])
def test_barred_actions_are_never_drawn(gain: float) -> None:
    """Also with random numbers at the ends of their range, and logits so far apart that most shares round to 0."""
    shape = shape_of(307, (16,), 42)
    seeds, noise, orders = chance(300, 100)
    noise[::3], noise[1::3] = 0, np.nextafter(np.float32(1), np.float32(0))
    memory = Memory(300, 100, 307)
    rollout = rollout_of(shape, parameters(shape, gain=gain), observation="memory", actions="compact")
    rollout.play(seeds, noise, orders, np.arange(300), memory, masks=memory.masks)
    allowed = np.take_along_axis(memory.masks, memory.actions[..., None].astype(np.int64), 2)
    assert (allowed == 1).all()
    assert np.isfinite(memory.log_probs).all()
    assert (memory.masks.sum(axis=2) < 42).any()


def test_parameters_that_are_not_numbers_show_in_the_log_probs() -> None:
    shape = shape_of(52)
    vector = parameters(shape)
    vector[104:] = np.nan
    memory = Memory(5, 10, 52)
    seeds, noise, orders = chance(5, 10)
    rollout_of(shape, vector).play(seeds, noise, orders, np.arange(5), memory)
    assert np.isnan(memory.log_probs).all()
    assert ((memory.actions >= 0) & (memory.actions < 145)).all()


@njit
def exponential_of(x: Any, y: Any) -> None:
    for i in range(0, len(x), vectors.LANES):
        vectors.store(y, i, vectors.exp(vectors.load(x, i)))


@njit
def tanh_of(x: Any, y: Any) -> None:
    for i in range(0, len(x), vectors.LANES):
        vectors.store(y, i, vectors.tanh(vectors.load(x, i)))


def test_exponential_and_tanh_are_as_exact_as_they_say() -> None:
    x = np.linspace(-87, 87, 2**20, dtype=np.float32)
    y = np.empty_like(x)
    exponential_of(x, y)
    exact = np.exp(x.astype(np.float64))
    assert np.abs(y / exact - 1).max() < 3e-7
    x = np.linspace(-12, 12, 2**20, dtype=np.float32)
    tanh_of(x, y)
    assert np.abs(y - np.tanh(x.astype(np.float64))).max() < 2e-7
    x = np.array([-np.inf, -1e30, -200, -88.1, 200, 1e30, np.inf, np.nan] * 2, np.float32)
    y = np.empty_like(x)
    exponential_of(x, y)
    assert (y[:4] == 0).all()
    assert np.isfinite(y[4:]).all()
    assert (y[4:7] > 1e38).all()
    tanh_of(x, y)
    assert (y[:7] == [-1, -1, -1, -1, 1, 1, 1]).all()


@pytest.mark.parametrize(
    ("layers", "red_agent", "message"),
    [
        ([(51, 145)], "B_lineAgent", "52 observation bits"),
        ([(52, 10)], "B_lineAgent", "145 actions"),
        ([(52, 8), (9, 145)], "B_lineAgent", "as many inputs"),
        ([(52, 145)], "Meander", "unknown red agent"),
        ([(307, 42)], "B_lineAgent", "observation 'table' and actions 'full' has 52"),
    ],
)
def test_refuses_policies(layers: list[tuple[int, int]], red_agent: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rollout(layers, red_agent=red_agent)


def test_refuses_parameters() -> None:
    shape = shape_of(52)
    rollout = Rollout(shape.layers, red_agent="B_lineAgent")
    with pytest.raises(ValueError, match=f"{shape.size} parameters"):
        rollout.refresh(np.zeros(shape.size - 1, np.float32))
    vector = parameters(shape)
    vector[3] = 0.5
    with pytest.raises(ValueError, match="normalise"):
        rollout.refresh(vector)


def test_refuses_compact_actions_without_masks() -> None:
    shape = shape_of(52, outputs=42)
    seeds, noise, orders = chance(2, 10)
    rollout = rollout_of(shape, parameters(shape), actions="compact")
    with pytest.raises(ValueError, match="masks must be"):
        rollout.play(seeds, noise, orders, [0, 1], Memory(2, 10, 52))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": np.arange(3)}, "seeds must have the shape"),
        ({"noise": np.zeros(4)}, "noise must have the shape"),
        ({"orders": ORDERS}, "orders must have the shape"),
        ({"orders": np.zeros((2, 5))}, "permutations"),
        ({"slots": [0, 0]}, "different numbers in 0..2"),
        ({"slots": [0, 3]}, "different numbers in 0..2"),
        ({"slots": [-1, 0]}, "different numbers in 0..2"),
        ({"arrays": Memory(3, 9, 52)}, "observations must be"),
        ({"arrays": Memory(3, 10, 77)}, "observations must be"),
        ({"bonuses": np.zeros((3, 10))}, "bonuses must be"),
        ({"bonuses": np.zeros((10, 3), np.float32).T}, "bonuses must be"),
    ],
)
def test_refuses_what_does_not_fit_together(changes: dict[str, Any], message: str) -> None:
    shape = shape_of(52)
    seeds, noise, orders = chance(2, 10)
    fitting = {"seeds": seeds, "noise": noise, "orders": orders, "slots": [0, 1], "arrays": Memory(3, 10, 52)}
    with pytest.raises(ValueError, match=message):
        rollout_of(shape, parameters(shape)).play(**(fitting | changes))
