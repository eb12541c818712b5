"""The searches over orders: the posterior, the choices, orders that fail, and going on after a restart."""

import json
import math
import time
from collections import Counter

import numpy as np
import pytest

from aiotrain.cage2.search.strategies import (
    LONGEST_REST,
    SEARCHES,
    GpUcb,
    Observation,
    RandomSearch,
    RoundRobin,
    Search,
)
from aiotrain.cage2.workflows import ORDER_INDEX, ORDERS, Order, kendall, order_text

EVERY = np.arange(120)


def fed(search: Search, count: int, seed: int = 0, hidden: int = 77, among: int = 60) -> Search:
    """``search`` with ``count`` observations of ``among`` orders, of a return that falls with the distance."""
    rng = np.random.default_rng(seed)
    orders = rng.permutation(60)[:among] if among < 60 else np.arange(among)
    for order in rng.choice(orders, count):
        search.observe(ORDERS[order], -100 - 10 * float(kendall(order, hidden)) + rng.normal(0, 20))
    return search


def dense(orders: list[int], values: np.ndarray, signal: float, length: float, noise: float) -> tuple:
    """Posterior mean, variance and log marginal likelihood by the textbook's formulas and explicit inverses."""
    swaps = kendall(EVERY[:, None], EVERY)
    prior = signal * np.exp(-2 * swaps / length**2)
    covariance = prior[np.ix_(orders, orders)] + noise * np.eye(len(orders))
    gain = prior[:, orders] @ np.linalg.inv(covariance)
    variance = np.diag(prior - gain @ prior[orders])
    likelihood = -0.5 * values @ np.linalg.inv(covariance) @ values - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    return gain @ values, variance, likelihood


@pytest.mark.parametrize(
    ("count", "among", "pending"), [(25, 60, 0), (25, 60, 3), (100, 60, 0), (300, 10, 0), (300, 10, 3), (300, 120, 2)]
)
def test_posterior_equals_a_dense_reference(
    count: int, among: int, pending: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On every single observation, though repeated ones are taken together."""
    kernels = []
    from sklearn.gaussian_process import GaussianProcessRegressor

    fit = GaussianProcessRegressor.fit

    def noting(self: GaussianProcessRegressor, *data: np.ndarray) -> GaussianProcessRegressor:
        kernels.append(self.kernel)
        return fit(self, *data)

    monkeypatch.setattr(GaussianProcessRegressor, "fit", noting)
    search = fed(GpUcb(seed=1, beta=1.5), count, among=among)
    for _ in range(pending):
        search.propose()
    posterior = search.posterior()
    kernel = kernels[-1]
    chosen = kernel.k1.k1.constant_value, kernel.k1.k2.length_scale, kernel.k2.noise_level

    orders = [ORDER_INDEX[observation.order] for observation in search.observations]
    assert len(set(orders)) < len(orders), "no order is observed repeatedly"
    assert len(set(orders)) <= among
    values = np.array([observation.value for observation in search.observations])
    standardised = (values - values.mean()) / values.std()
    mean, variance, _ = dense(orders, standardised, *chosen)
    out = search.pending
    imagined = np.concatenate([standardised, mean[out]])
    same, variance, _ = dense(orders + out, imagined, *chosen)
    assert np.abs(same - mean).max() < 1e-6, "imagined observations move the mean"
    np.testing.assert_allclose(posterior.mean, values.mean() + values.std() * mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(posterior.std, values.std() * np.sqrt(variance), rtol=0, atol=1e-6)
    np.testing.assert_allclose(posterior.ucb, posterior.mean + 1.5 * posterior.std)


@pytest.mark.parametrize(("count", "among"), [(40, 60), (300, 10)])
def test_hyper_parameters_are_where_no_neighbour_is_likelier(
    count: int, among: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import aiotrain.cage2.search.strategies as module

    found = []
    from sklearn.gaussian_process import GaussianProcessRegressor

    predict = GaussianProcessRegressor.predict

    def noting(self: GaussianProcessRegressor, *data: np.ndarray, **options: bool) -> tuple:
        found.append(self.kernel)
        return predict(self, *data, **options)

    monkeypatch.setattr(GaussianProcessRegressor, "predict", noting)
    search = fed(GpUcb(), count, among=among)
    search.posterior()
    orders = [ORDER_INDEX[observation.order] for observation in search.observations]
    values = np.array([observation.value for observation in search.observations])
    values = (values - values.mean()) / values.std()
    medians, spreads = np.log(module.HYPER_PRIOR).T

    def objective(theta: np.ndarray) -> float:
        return dense(orders, values, *np.exp(theta))[2] - float((((theta - medians) / spreads) ** 2).sum()) / 2

    theta = found[-1].theta
    for step in 0.05 * np.vstack([np.eye(3), -np.eye(3)]):
        assert objective(theta + step) < objective(theta)


def test_every_observation_of_an_order_counts() -> None:
    once, often = fed(GpUcb(), 20), fed(GpUcb(), 20)
    once.observe(ORDERS[100], -100.0)
    for _ in range(5):
        often.observe(ORDERS[100], -100.0)
    assert often.posterior().std[100] < once.posterior().std[100]
    assert len(often.observations) == 25


def test_beta_widens_the_bound_and_the_schedule_grows() -> None:
    narrow, wide = fed(GpUcb(beta=0.5), 20).posterior(), fed(GpUcb(beta=3.0), 20).posterior()
    np.testing.assert_allclose(narrow.ucb - narrow.mean, narrow.std / 2)
    np.testing.assert_allclose(wide.ucb - wide.mean, wide.std * 3)
    search = GpUcb(beta="schedule")
    widths = []
    for _ in range(3):
        widths.append(search.width)
        search.propose()
    t = np.arange(1, 4)
    np.testing.assert_allclose(np.square(widths), 2 * np.log(120 * t**2 * np.pi**2 / 0.6))


@pytest.mark.parametrize("at_once", [1, 2])
def test_the_first_two_orders_are_as_far_apart_as_can_be(at_once: int) -> None:
    firsts = set()
    for seed in range(12):
        search = GpUcb(seed)
        first = search.propose()
        if at_once == 1:
            search.observe(first, -100.0)
        second = search.propose()
        assert second == first[::-1]
        firsts.add(first)
    assert len(firsts) > 6, "the first order does not follow the seed"


def test_orders_that_are_out_are_not_proposed_and_spread() -> None:
    search = fed(GpUcb(), 30)
    batch = [search.propose() for _ in range(4)]
    assert len(set(batch)) == 4
    alone = fed(GpUcb(), 30)
    greedy = [ORDERS[i] for i in np.argsort(-alone.posterior().ucb)[:4]]
    assert batch[0] == greedy[0]
    distances = lambda orders: sum(int(kendall(ORDER_INDEX[a], ORDER_INDEX[b])) for a in orders for b in orders)  # noqa: E731
    assert distances(batch) > distances(greedy), "what is out does not change the later choices"
    search.observe(batch[2], -100.0)
    assert search.pending == [ORDER_INDEX[batch[i]] for i in (0, 1, 3)]


def test_all_120_may_be_out_but_no_more() -> None:
    for make in SEARCHES.values():
        search = make()
        search.observe(ORDERS[0], -1.0, complied=False)
        if make is GpUcb:  # spare 120 fits
            search.pending = list(range(1, 119))
        orders = {search.propose() for _ in range(120 - len(search.pending))}
        assert ORDERS[0] in orders, "an order that rests must be taken if there is no other"
        with pytest.raises(ValueError, match="all 120"):
            search.propose()


@pytest.mark.parametrize("name", SEARCHES)
def test_an_order_that_always_fails_is_let_go_though_it_pays_best(name: str) -> None:
    search = SEARCHES[name](seed=3)
    tempting = 42
    tried: list[Order] = []
    for step in range(100):
        order = search.propose()
        assert not tried or order != tried[-1] or search.observations[-1].complied
        tried.append(order)
        distance = float(kendall(ORDER_INDEX[order], tempting))
        search.observe(order, -100 - 10 * distance + (step % 7), complied=ORDER_INDEX[order] != tempting)
    times = [i for i, order in enumerate(tried) if order == ORDERS[tempting]]
    assert len(times) <= 5
    rests = [10, 20, 40, 60]
    assert all(b - a > rest for a, b, rest in zip(times, times[1:], rests, strict=False)), times
    if name == "gp-ucb":
        assert len(times) >= 3, "the search never comes back to it"
        assert search.failures[tempting] == len(times)
        assert search.best() != ORDERS[tempting], "what does not comply is recommended"
        neighbours = Counter(tried).most_common(3)
        assert all(kendall(ORDER_INDEX[order], tempting) <= 2 for order, _ in neighbours)


def test_if_every_order_fails_the_search_goes_through_all_of_them() -> None:
    for make in (RandomSearch, RoundRobin):
        search = make(seed=0)
        proposed = []
        for _ in range(240):
            proposed.append(search.propose())
            search.observe(proposed[-1], -100.0, complied=False)
            assert (search.rest > 0).sum() <= LONGEST_REST
        assert set(Counter(proposed).values()) == {2}
    search = GpUcb(seed=0)
    proposed = []
    for _ in range(40):
        proposed.append(search.propose())
        search.observe(proposed[-1], -100.0 - ORDER_INDEX[proposed[-1]], complied=False)
    assert max(Counter(proposed).values()) <= 3
    assert len(set(proposed)) >= 15
    assert search.best() is not None, "even if none complied, the best of them is known"


def test_an_order_that_complies_again_is_free_of_its_failures() -> None:
    search = RoundRobin()
    for complied in (False, False):
        search.observe(ORDERS[5], -1.0, complied)
    assert (search.failures[5], search.rest[5]) == (2, 20)
    search.propose()
    assert search.rest[5] == 19
    search.observe(ORDERS[5], -1.0, complied=True)
    assert (search.failures[5], search.rest[5]) == (0, 0)
    for _ in range(2000):
        search.observe(ORDERS[5], -1.0, complied=False)
    assert search.rest[5] == LONGEST_REST


@pytest.mark.parametrize("name", SEARCHES)
def test_a_restored_search_goes_on_exactly(name: str) -> None:
    def go_on(search: Search, steps: int) -> list:
        trace: list = []
        for step in range(steps):
            order = search.propose()
            if step % 3:
                search.observe(order, -50 - 7 * float(kendall(ORDER_INDEX[order], 9)), complied=step % 4 > 0)
            trace.append((order, list(search.pending), search.posterior().mean.tobytes()))
        return trace

    whole, first, second = (SEARCHES[name](seed=5) for _ in range(3))
    expected = go_on(whole, 16)[8:]
    go_on(first, 8)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.observations == first.observations
    # Steps 8 to 15 of the whole run observe as steps 8 to 15 do, so the continuation starts its count there.
    resumed: list = []
    for step in range(8, 16):
        order = second.propose()
        if step % 3:
            second.observe(order, -50 - 7 * float(kendall(ORDER_INDEX[order], 9)), complied=step % 4 > 0)
        resumed.append((order, list(second.pending), second.posterior().mean.tobytes()))
    assert resumed == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("pending"),
        lambda state: state["observations"][0].pop("value"),
        lambda state: state["observations"][0].update(order="user"),
        lambda state: state.update(pending=["nobody"]),
    ],
)
def test_what_is_no_history_is_refused_and_changes_nothing(change) -> None:  # noqa: ANN001
    state = fed(RoundRobin(), 3).state_dict()
    change(state)
    search = fed(RoundRobin(), 2)
    before = search.state_dict()
    with pytest.raises((KeyError, TypeError, ValueError)):
        search.load_state_dict(state)
    assert search.state_dict() == before


def test_round_robin_takes_turns_and_random_repeats_none_before_all_were_tried() -> None:
    robin, random = RoundRobin(), RandomSearch(seed=1)
    assert [robin.propose() for _ in range(120)] == list(ORDERS)
    drawn = [random.propose() for _ in range(120)]
    assert set(drawn) == set(ORDERS)
    assert drawn != list(ORDERS)
    assert RandomSearch(seed=2).propose() != drawn[0]


def test_before_any_observation_nothing_is_known() -> None:
    search = GpUcb()
    assert search.best() is None
    for values in search.posterior():
        assert values.shape == (120,)
        assert np.isnan(values).all()
    search.observe(ORDERS[3], -70.0)
    posterior = search.posterior()
    assert search.best() == ORDERS[3]
    np.testing.assert_allclose(posterior.mean, -70.0)
    assert posterior.std[3] == posterior.std.min() > 0


def test_returns_of_any_scale_and_all_alike_give_the_same_choices() -> None:
    def choices(scale: float, shift: float) -> list[Order]:
        search = GpUcb(seed=2)
        for _ in range(8):
            order = search.propose()
            search.observe(order, shift - scale * float(kendall(ORDER_INDEX[order], 50)))
        return search.observations[-1:] and [o.order for o in search.observations]

    assert choices(1.0, 0.0) == choices(1000.0, -5000.0)
    assert len(set(choices(0.0, -3.0))) == 8


def test_it_finds_the_hidden_order_under_noise() -> None:
    regrets = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        hidden = int(rng.integers(120))
        search = GpUcb(seed)
        for _ in range(20):
            order = search.propose()
            search.observe(order, 100 - 10 * float(kendall(ORDER_INDEX[order], hidden)) + rng.normal(0, 20))
        best = search.best()
        assert best is not None
        regrets.append(int(kendall(ORDER_INDEX[best], hidden)))
    assert np.mean(regrets) < 2, f"random search is 2 swaps off on average, this one {regrets}"


@pytest.mark.parametrize(("count", "among"), [(100, 60), (300, 10), (3000, 10)])
def test_a_choice_after_many_observations_takes_less_than_a_second(count: int, among: int) -> None:
    fed(GpUcb(), 3).propose()  # imports scikit-learn
    search = fed(GpUcb(), count, among=among)
    began = time.process_time()
    search.propose()
    assert time.process_time() - began < 2.0, "seconds of CPU on at most two cores"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GpUcb(beta=-1.0), "beta is -1.0"),
        (lambda: GpUcb(beta=math.inf), "beta is inf"),
        (lambda: GpUcb().observe(ORDERS[0], math.nan), "cut off before its first episode"),
        (lambda: GpUcb().observe(("user",), 1.0), "user"),
    ],
)
def test_mistakes_are_explained(call, message: str) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match=message):
        call()


def test_an_observation_says_what_happened() -> None:
    search = RoundRobin()
    order = search.propose()
    search.observe(order, -3, complied=False)
    assert search.observations == [Observation(ORDERS[0], -3.0, False, 1)]
    assert search.state_dict()["observations"][0]["order"] == order_text(ORDERS[0])
