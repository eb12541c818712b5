"""Workflows: in which priority blue fixes compromised hosts.

A *workflow* is a priority ordering of the five host types. Its value is an *order*: a tuple of the five names of
``HOST_TYPES``, most urgent first. ``ORDERS`` lists all 120 orders, and an order's number is its place there. Settings,
reset options and files name a workflow by ``workflow``; they accept each form that `parse_order` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiotrain.cage2.scenario import HOST_TYPES
from aiotrain.errors import unknown_name

Order: TypeAlias = tuple[str, ...]

ORDERS: Final[tuple[Order, ...]] = tuple(permutations(HOST_TYPES))
ORDER_INDEX: Final = {order: index for index, order in enumerate(ORDERS)}

NAMED_ORDERS: Final[dict[str, Order]] = {
    "critical_first": ("defender", "op_server", "enterprise", "op_host", "user"),
    "enterprise_focus": ("enterprise", "defender", "op_server", "op_host", "user"),
    "user_priority": ("user", "defender", "enterprise", "op_server", "op_host"),
    "operational_focus": ("op_server", "op_host", "defender", "enterprise", "user"),
    "balanced": ("defender", "enterprise", "op_server", "user", "op_host"),
    "reverse": ("user", "op_host", "enterprise", "op_server", "defender"),
}
"""The named workflows of the published experiments (Jiang, Hong, Imani, Bastian and Lan, L4DC 2026)."""

RANKS: Final = np.array([[order.index(kind) for kind in HOST_TYPES] for order in ORDERS], np.int8)
"""int8 [120, 5]: the place of each host type in each order, 0 for the most urgent."""

PRECEDENCE: Final = np.array(
    [[1 if ranks[i] < ranks[j] else -1 for i, j in combinations(range(len(HOST_TYPES)), 2)] for ranks in RANKS], np.int8
)
"""int8 [120, 10]: for each pair of host types, 1 if the first precedes the second, else -1.

The squared Euclidean distance between two rows is four times the Kendall distance between the orders.
"""

ONE_HOT: Final = np.array(
    [[order[place] == kind for place in range(len(HOST_TYPES)) for kind in HOST_TYPES] for order in ORDERS], np.int8
)
"""int8 [120, 25]: each order as a policy sees it. Bit ``5 * place + type`` is 1 if that type has that place."""


def order_text(order: Sequence[str]) -> str:
    """Return an order as text that `parse_order` reads: ``"defender,enterprise,op_server,op_host,user"``."""
    return ",".join(order)


def order_words(workflow: str) -> str:
    """Return the short form of an order as people read it: ``"defender > enterprise > …"``."""
    return workflow.replace(",", " > ")


def parse_order(workflow: str | Sequence[str]) -> Order:
    """Return the order of a workflow.

    Args:
        workflow: A name in ``NAMED_ORDERS``, five host types separated by commas, or a sequence of them. Case, hyphens
            and spaces around a name do not matter.

    Raises:
        ValueError: ``workflow`` is no order. The message lists all unknown, repeated and missing types.

    """
    text = workflow if isinstance(workflow, str) else order_text([str(name) for name in workflow])
    names = [name.strip().lower().replace("-", "_") for name in text.split(",")]
    if len(names) == 1 and names[0] in NAMED_ORDERS:
        return NAMED_ORDERS[names[0]]
    if tuple(names) in ORDER_INDEX:
        return tuple(names)
    if len(names) == 1 and names[0] not in HOST_TYPES:
        raise ValueError(
            unknown_name("workflow", text, tuple(NAMED_ORDERS))
            + f" Or give an order of your own, as {order_text(HOST_TYPES)}"
        )
    faults = [unknown_name("host type", name, HOST_TYPES).removesuffix(".") for name in names if name not in HOST_TYPES]
    faults += [f"{kind} is there {names.count(kind)} times" for kind in HOST_TYPES if names.count(kind) > 1]
    faults += [f"{kind} is missing" for kind in HOST_TYPES if kind not in names]
    raise ValueError(f"workflow {text!r} is no order of the {len(HOST_TYPES)} host types: {'; '.join(faults)}")


def requested_order(workflow: Any, shown: bool) -> Order:
    """Return the order of the ``workflow`` in the options of a reset. ``shown``: whether observations include an order.

    Raises ValueError if ``workflow`` is no order, or if observations include none.
    """
    if not shown:
        raise ValueError(
            f"reset's options ask for the workflow {workflow!r}, but this environment was made without one and its "
            "observations have no room for it; give it a workflow when it is made, which a reset may then change"
        )
    return parse_order(workflow)


def kendall(first: ArrayLike, second: ArrayLike) -> NDArray[np.int64]:
    """Return Kendall's distance: the number of pairs of types that two orders rank oppositely, 0 to 10.

    ``first`` and ``second`` are numbers of orders: integer arrays that broadcast against each other.
    """
    return np.asarray((PRECEDENCE[np.asarray(first)] != PRECEDENCE[np.asarray(second)]).sum(axis=-1))
