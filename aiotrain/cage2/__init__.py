"""CAGE Challenge 2: the scenario, the environment on CybORG, and what is needed to train a defender on it.

Importing ``aiotrain``, or this package, registers ``aiotrain/Cage2-v0`` with Gymnasium. Gymnasium since 1.0 reads no
entry points, so a program that imports neither writes ``gymnasium.make("aiotrain.cage2:aiotrain/Cage2-v0")``.
"""

import gymnasium

__all__ = ["CAGE2_ID"]

CAGE2_ID = "aiotrain/Cage2-v0"

if CAGE2_ID not in gymnasium.registry:
    gymnasium.register(  # without a time limit: the environment truncates its episodes itself, at its ``max_steps``
        CAGE2_ID,
        entry_point="aiotrain.cage2.env:Cage2Env",
        vector_entry_point="aiotrain.cage2.vector_env:Cage2VectorEnv",
    )
