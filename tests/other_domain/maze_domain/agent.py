"""What the exported files of a policy for the maze tell."""

from __future__ import annotations

from dataclasses import replace

from aiotrain.runs.export.agent_file import AgentParts, general_parts
from aiotrain.runs.load_run import Trained
from maze_domain.domain import Maze


def parts(trained: Trained) -> AgentParts:
    """Return an agent for any environment, which says what it walks along."""
    domain = trained.config.domain
    assert isinstance(domain, Maze)
    remark = f"\nIt walks along {domain.title}.\n"
    return replace(general_parts(trained), remark=remark, about={"cells": domain.length})
