"""The 120 orders: numbers, texts, encodings and distances."""

from itertools import combinations

import numpy as np
import pytest

from aiotrain.cage2.scenario import HOST_TYPES
from aiotrain.cage2.workflows import (
    NAMED_ORDERS,
    ONE_HOT,
    ORDER_INDEX,
    ORDERS,
    PRECEDENCE,
    kendall,
    order_text,
    parse_order,
)


def test_there_are_120_orders_and_six_of_them_have_names() -> None:
    assert len(set(ORDERS)) == 120
    assert all(sorted(order) == sorted(HOST_TYPES) for order in ORDERS)
    assert ORDERS[0] == HOST_TYPES
    assert [ORDERS[ORDER_INDEX[order]] for order in ORDERS] == list(ORDERS)
    assert len(set(NAMED_ORDERS.values())) == 6
    assert set(NAMED_ORDERS.values()) <= set(ORDERS)


def test_texts_and_names_are_read_back() -> None:
    for order in ORDERS:
        assert parse_order(order_text(order)) == order
        assert parse_order(order) == order
        assert parse_order(list(order)) == order
    for name, order in NAMED_ORDERS.items():
        assert parse_order(name) == order
        assert parse_order(name.replace("_", "-").upper()) == order
    spoken = parse_order(" User, op-host ,OP_SERVER,enterprise,defender")
    assert order_text(spoken) == "user,op_host,op_server,enterprise,defender"


@pytest.mark.parametrize(
    ("workflow", "messages"),
    [
        ("user,user,op_host,op_server,enterprise", ["user is there 2 times", "defender is missing"]),
        ("user,op_host,op_server,enterprise", ["defender is missing"]),
        (
            "usr,op_host,op_server,enterprise,defender",
            ["unknown host type 'usr'; did you mean user", "user is missing"],
        ),
        (("user", "ophost", "op_server", "enterprise", "defender"), ["did you mean op_host"]),
        (
            "critical",
            ["unknown workflow 'critical'; did you mean critical_first", "Or give an order of your own, as defender,"],
        ),
        ("user", ["defender is missing", "op_host is missing"]),
        ("", ["unknown workflow ''"]),
        ((), ["unknown workflow ''"]),
        ([1, 2, 3, 4, 5], ["unknown host type '1'"]),
        ("user,op_host,op_server,enterprise,defender,user", ["user is there 2 times"]),
    ],
)
def test_what_is_no_order_is_refused_with_all_its_faults(workflow: object, messages: list[str]) -> None:
    with pytest.raises(ValueError, match="workflow") as refusal:
        parse_order(workflow)  # type: ignore[arg-type]
    for message in messages:
        assert message in str(refusal.value)


def test_one_hot_marks_place_and_type() -> None:
    assert ONE_HOT.shape == (120, 25)
    assert ONE_HOT.dtype == np.int8
    for order, bits in zip(ORDERS, ONE_HOT, strict=True):
        marked = {5 * place + HOST_TYPES.index(kind) for place, kind in enumerate(order)}
        assert set(np.flatnonzero(bits)) == marked
    assert ONE_HOT.sum() == 600


def test_distances_are_those_of_their_definitions_and_broadcast() -> None:
    everything = np.arange(120)
    by_pairs = kendall(everything[:, None], everything)
    assert by_pairs.shape == (120, 120)
    for first in range(0, 120, 7):
        for second in range(120):
            a, b = ORDERS[first].index, ORDERS[second].index
            swapped = sum((a(i) < a(j)) != (b(i) < b(j)) for i, j in combinations(HOST_TYPES, 2))
            assert by_pairs[first, second] == swapped
    assert by_pairs.max() == 10
    assert kendall(3, 3) == 0
    squares = ((PRECEDENCE[:, None].astype(int) - PRECEDENCE) ** 2).sum(axis=-1)
    assert (squares == 4 * by_pairs).all(), "the RBF over precedence vectors is no Mallows kernel"
