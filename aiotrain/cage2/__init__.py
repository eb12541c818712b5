"""CAGE Challenge 2: the scenario, its simulators, and what is needed to train a defender on it.

Importing this package registers ``aiotrain/Cage2-v0`` with Gymnasium.
"""

from typing import TYPE_CHECKING, Any

from aiotrain.cage2.registration import CAGE2_ID, SIMULATORS, make, register

if TYPE_CHECKING:
    from aiotrain.cage2.domain import Cage2
    from aiotrain.cage2.search.settings import SearchConfig

__all__ = ["CAGE2_ID", "SIMULATORS", "Cage2", "SearchConfig", "make"]

register()


def __getattr__(name: str) -> Any:
    """Import the settings when they are first asked for: workers have no use for them."""
    if name == "Cage2":
        from aiotrain.cage2.domain import Cage2

        return Cage2
    if name == "SearchConfig":
        from aiotrain.cage2.search.settings import SearchConfig

        return SearchConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
