"""Imports csle-cyborg without two packages that the environment does not need.

``csle_cyborg.agents`` imports a demonstration agent, BlueLoadAgent. This one imports stable_baselines3, which is no
declared dependency, and with it torch. A logger that is never set up imports paramiko, and with it asyncio: some 80 ms
and 20 MiB in every worker. Placeholders replace the two while csle-cyborg is imported here, and leave ``sys.modules``
afterwards. ``csle_cyborg.agents.BlueLoadAgent`` and the logger's ``paramiko`` then load the real modules on first use.
A program that imported the real modules before keeps them.
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


class _LoadedOnFirstUse(ModuleType):
    """A module that forwards every attribute to the real module of its name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks for these of the placeholder
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _placeholder(module: ModuleType) -> Iterator[None]:
    """Let ``import`` find ``module`` under its name within the block, unless the real one is loaded already."""
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
    module = ModuleType(_BLUE_LOAD_AGENT)
    vars(module)["BlueLoadAgent"] = None  # csle_cyborg.agents imports this name
    with _placeholder(module):
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


with _placeholder(_LoadedOnFirstUse("paramiko")), _blue_load_agent_on_first_use():
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
