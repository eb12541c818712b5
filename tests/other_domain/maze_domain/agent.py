"""What the exported files of a policy for the maze tell."""

from __future__ import annotations

from aiotrain.runs.export import agent_for_any
from aiotrain.runs.export.agent_file import AgentParts, spaces
from aiotrain.runs.load_run import Trained
from maze_domain.domain import Maze


def parts(trained: Trained) -> AgentParts:
    """Return an agent for any environment, which says what it walks along."""
    domain = trained.config.domain
    assert isinstance(domain, Maze)
    return AgentParts(
        source=agent_for_any,
        policy=trained.policy,
        constants=spaces(trained.spec),
        remark=f"\nIt walks along {domain.title}.\n",
        about={"cells": domain.length},
    )
