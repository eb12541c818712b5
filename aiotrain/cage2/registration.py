"""Registration of the environment with Gymnasium.

Gymnasium 1.0 and later read no entry points. A program that does not import aiotrain therefore writes
``gymnasium.make("aiotrain.cage2:aiotrain/Cage2-v0")``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import gymnasium

if TYPE_CHECKING:
    from aiotrain.cage2.scenario import Simulator

__all__ = ["CAGE2_ID", "make", "register"]

CAGE2_ID: Final = "aiotrain/Cage2-v0"


def register() -> None:
    """Register the environment with Gymnasium. It has no time limit: the environment truncates at ``max_steps``."""
    if CAGE2_ID not in gymnasium.registry:
        gymnasium.register(
            CAGE2_ID,
            entry_point="aiotrain.cage2:make",
            vector_entry_point="aiotrain.cage2.simulators.vector_env:Cage2VectorEnv",
        )


def make(simulator: Simulator = "cyborg", **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Return the environment on csle-cyborg (``Cage2Env``) or on the compiled engine (``Cage2CompiledEnv``).

    ``kwargs`` are the arguments of that class. Raises ValueError for an unknown simulator, and for an argument that
    only the other simulator supports.
    """
    if simulator == "compiled":
        if kwargs.pop("scenario", None) is not None:
            raise ValueError("the compiled engine plays Scenario2 only; for another, choose simulator='cyborg'")
        from aiotrain.cage2.simulators.compiled_env import Cage2CompiledEnv

        return Cage2CompiledEnv(**kwargs)
    if simulator == "cyborg":
        if (rules := kwargs.pop("rules", "main")) != "main":
            raise ValueError(f"csle-cyborg plays by the rules 'main'; for {rules!r}, choose simulator='compiled'")
        from aiotrain.cage2.simulators.cyborg_env import Cage2Env

        return Cage2Env(**kwargs)
    from aiotrain.cage2.scenario import SIMULATORS
    from aiotrain.errors import unknown_name

    raise ValueError(unknown_name("simulator", simulator, SIMULATORS))
