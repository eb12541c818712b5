"""The parts of csle-cyborg that the environment drives, imported without what nobody here needs.

``csle_cyborg.agents`` imports a demonstration agent, BlueLoadAgent, which imports stable_baselines3 (not a
declared dependency) and with it torch; a logger that is never set up imports paramiko and with it asyncio
(some 80 ms and 20 MiB in every worker). While the package is imported here, placeholders stand in for
the two; afterwards they are gone from ``sys.modules``, ``csle_cyborg.agents.BlueLoadAgent`` and the logger's
``paramiko`` load the real ones on first use, and a program that has imported them before keeps what it has.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from aiotrain.cage2.simulators.cyborg_randomness import redirect

_AGENTS = "csle_cyborg.agents"
_BLUE_LOAD_AGENT = "csle_cyborg.agents.simple_agents.blue_load_agent"


class _LoadedOnUse(ModuleType):
    """A module that hands every question on to the real module of its name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by the import system while this module stands in
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _stand_in(module: ModuleType) -> Iterator[None]:
    """Let ``import`` find this module under its name for the length of the block, if none is loaded yet."""
    if module.__name__ in sys.modules:
        yield
        return
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        del sys.modules[module.__name__]


@contextmanager
def _blue_load_agent_on_first_use() -> Iterator[None]:
    if _AGENTS in sys.modules:
        yield
        return
    placeholder = ModuleType(_BLUE_LOAD_AGENT)
    vars(placeholder)["BlueLoadAgent"] = None  # csle_cyborg.agents takes this name while it is imported
    with _stand_in(placeholder):
        yield
    agents = sys.modules[_AGENTS]
    if agents.BlueLoadAgent is not None:
        return
    del agents.BlueLoadAgent

    def load(name: str) -> Any:
        if name != "BlueLoadAgent":
            raise AttributeError(f"module {_AGENTS!r} has no attribute {name!r}")
        return importlib.import_module(_BLUE_LOAD_AGENT).BlueLoadAgent

    agents.__getattr__ = load  # type: ignore[method-assign]


with _stand_in(_LoadedOnUse("paramiko")), _blue_load_agent_on_first_use():
    from csle_cyborg.agents import B_lineAgent, BaseAgent, RedMeanderAgent, SleepAgent
    from csle_cyborg.shared.actions.action import InvalidAction
    from csle_cyborg.shared.results import Results
    from csle_cyborg.simulator.simulation_controller import SimulationController
    from csle_cyborg.simulator.subnet import Subnet

redirect("csle_cyborg")

__all__ = [
    "B_lineAgent",
    "BaseAgent",
    "InvalidAction",
    "RedMeanderAgent",
    "Results",
    "SimulationController",
    "SleepAgent",
    "Subnet",
]
