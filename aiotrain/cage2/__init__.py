"""CAGE Challenge 2: the scenario, its simulators, and what is needed to train a defender on it.

Importing aiotrain registers ``aiotrain/Cage2-v0`` with Gymnasium.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiotrain.cage2.domain import Cage2
    from aiotrain.cage2.official.baselines import BASELINES
    from aiotrain.cage2.official.evaluation import OfficialEvaluation, evaluate_official
    from aiotrain.cage2.registration import CAGE2_ID, make
    from aiotrain.cage2.scenario import SIMULATORS
    from aiotrain.cage2.search.settings import SearchConfig
    from aiotrain.cage2.trained_runs import evaluate, export

__all__ = [
    "BASELINES",
    "CAGE2_ID",
    "SIMULATORS",
    "Cage2",
    "OfficialEvaluation",
    "SearchConfig",
    "evaluate",
    "evaluate_official",
    "export",
    "make",
]

# The module that defines each name. It is imported when the name is first used: workers do not need the settings.
_HOMES = {
    "BASELINES": "aiotrain.cage2.official.baselines",
    "CAGE2_ID": "aiotrain.cage2.registration",
    "Cage2": "aiotrain.cage2.domain",
    "OfficialEvaluation": "aiotrain.cage2.official.evaluation",
    "SIMULATORS": "aiotrain.cage2.scenario",
    "SearchConfig": "aiotrain.cage2.search.settings",
    "evaluate": "aiotrain.cage2.trained_runs",
    "evaluate_official": "aiotrain.cage2.official.evaluation",
    "export": "aiotrain.cage2.trained_runs",
    "make": "aiotrain.cage2.registration",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
