"""Settings of the search over workflows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from aiotrain.cage2.workflows import ORDERS
from aiotrain.errors import Faults, documented

__all__ = ["SearchConfig"]


@documented
@dataclass(frozen=True)
class SearchConfig:
    """Settings of the search over workflows, the orders in which CAGE 2's types of hosts are to be fixed."""

    search: Literal["gp-ucb", "random", "round-robin"] = "gp-ucb"
    """How the next order is chosen."""
    gp_beta: float | Literal["schedule"] = 2.0
    """Deviations that GP-UCB's bound lies above the mean, or schedule: those of Srinivas et al. (2010)."""
    alignment_lambda: float = 2.0
    """Bonus for raising an episode's compliance from 0 to 1."""
    compliance_threshold: float = 0.95
    """Compliance, over as many episodes as an update has, at which the training of an order ends."""
    patience: int = 20
    """Judgements in a row, each over so many episodes, without a gain of compliance, after which it ends."""
    max_episodes_per_workflow: int = 2_500
    """Episodes after which it ends in any case."""
    fixed_episodes: int | None = None
    """Train each order for so many episodes, in whole updates, whatever its compliance (ablation)."""
    inherit: Literal["latest", "nearest", "none"] = "latest"
    """What an order begins from: the policy as it is, that of the nearest trained order (or its own), or a new one."""
    parallel_workflows: int = 16
    """Orders that are trained together, with one policy and a part of every batch each (an episode at least)."""

    def faults(self) -> list[str]:
        """Return what cannot work, a sentence each."""
        faults = Faults(self)
        if not faults.of_right_type():
            return faults.found
        faults.check(
            self.gp_beta == "schedule" or 0 <= self.gp_beta < math.inf,
            f"gp-beta must be a number from 0 on, or schedule, not {self.gp_beta}",
        )
        faults.check(
            0 <= self.alignment_lambda < math.inf,
            f"alignment-lambda must be a number from 0 on, not {self.alignment_lambda:g}",
        )
        faults.between("compliance_threshold", 0, 1)
        faults.at_least("patience", 1)
        faults.at_least("max_episodes_per_workflow", 1)
        faults.at_least("parallel_workflows", 1)
        faults.check(
            self.parallel_workflows <= len(ORDERS) // 2,
            f"parallel-workflows ({self.parallel_workflows}) is more than {len(ORDERS) // 2}, half of the orders "
            "that there are: the others may have to rest",
        )
        faults.check(
            self.parallel_workflows == 1 or self.inherit == "latest",
            f"inherit {self.inherit} gives each order a policy of its own, and orders that are trained together "
            "have one: choose parallel-workflows 1, or inherit latest",
        )
        faults.at_least("fixed_episodes", 1)
        return faults.found
