"""The environment of CAGE Challenge 2 under its Gymnasium id.

Gymnasium since 1.0 reads no entry points, so a program that does not import aiotrain writes
``gymnasium.make("aiotrain.cage2:aiotrain/Cage2-v0")``.
"""

from typing import Any, Final

import gymnasium

__all__ = ["CAGE2_ID", "SIMULATORS", "make", "register"]

CAGE2_ID: Final = "aiotrain/Cage2-v0"
SIMULATORS: Final = ("cyborg", "compiled")


def register() -> None:
    """Register the environment with Gymnasium, without a time limit: it truncates its episodes at ``max_steps``."""
    if CAGE2_ID not in gymnasium.registry:
        gymnasium.register(
            CAGE2_ID,
            entry_point="aiotrain.cage2:make",
            vector_entry_point="aiotrain.cage2.simulators.vector_env:Cage2VectorEnv",
        )


def make(simulator: str = "cyborg", **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Return the environment on csle-cyborg (``Cage2Env``) or on the compiled engine (``Cage2CompiledEnv``).

    ``kwargs`` are those of the class. Raises ValueError for another simulator, and for what only the other one can do.
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
    raise ValueError(f"unknown simulator {simulator!r}; choose one of {', '.join(SIMULATORS)}")
