"""CAGE Challenge 2: the scenario, its simulators, and what is needed to train a defender on it.

Importing aiotrain registers ``aiotrain/Cage2-v0`` with Gymnasium.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiotrain.cage2.domain import Cage2
    from aiotrain.cage2.registration import CAGE2_ID, make
    from aiotrain.cage2.scenario import SIMULATORS
    from aiotrain.cage2.search.settings import SearchConfig

__all__ = ["CAGE2_ID", "SIMULATORS", "Cage2", "SearchConfig", "make"]

# The module that defines each name. It is imported when the name is first used: workers do not need the settings.
_HOMES = {
    "CAGE2_ID": "aiotrain.cage2.registration",
    "Cage2": "aiotrain.cage2.domain",
    "SIMULATORS": "aiotrain.cage2.scenario",
    "SearchConfig": "aiotrain.cage2.search.settings",
    "make": "aiotrain.cage2.registration",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
