"""CAGE Challenge 2: the scenario, the environment on CybORG, and what is needed to train a defender on it.

Importing ``aiotrain``, or this package, registers ``aiotrain/Cage2-v0`` with Gymnasium. Gymnasium since 1.0 reads no
entry points, so a program that imports neither writes ``gymnasium.make("aiotrain.cage2:aiotrain/Cage2-v0")``.
"""

import gymnasium


def register_environments() -> None:
    """Register ``aiotrain/Cage2-v0``; harmless to repeat.

    The environment truncates its episodes itself, at its argument ``max_steps``.
    """
    if "aiotrain/Cage2-v0" not in gymnasium.registry:
        gymnasium.register(
            "aiotrain/Cage2-v0",
            entry_point="aiotrain.cage2.env:Cage2Env",
            vector_entry_point="aiotrain.cage2.vector_env:Cage2VectorEnv",
        )


register_environments()
