"""CAGE Challenge 2: the scenario, the environment on CybORG, and what is needed to train a defender on it."""


def register_environments() -> None:
    """Register ``aiotrain/Cage2-v0``; called by Gymnasium through the entry-point group ``gymnasium.envs``."""
