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
    """Settings of the search over workflows, which are the priorities of host types in CAGE 2."""

    search: Literal["gp-ucb", "random", "round-robin"] = "gp-ucb"
    """Strategy that chooses the next order of host types."""
    gp_beta: float | Literal["schedule"] = 2.0
    """Width of GP-UCB's confidence bound in standard deviations, or schedule: that of Srinivas et al. (2010)."""
    alignment_lambda: float = 2.0
    """Bonus for raising an episode's compliance from 0 to 1."""
    compliance_threshold: float = 0.95
    """The training of an order ends at this compliance, judged over as many episodes as an update has."""
    patience: int = 20
    """The training of an order ends after so many judgements in a row without a gain of compliance."""
    max_episodes_per_workflow: int = 2_500
    """The training of an order ends after so many episodes in any case."""
    fixed_episodes: int | None = None
    """Train each order for so many episodes, in whole updates, whatever its compliance (for ablations)."""
    inherit: Literal["latest", "nearest", "none"] = "latest"
    """Policy that an order begins with: the current one, the nearest trained order's (or its own), or a new one."""
    parallel_workflows: int = 16
    """Orders that are trained together, with one policy. Each has a part of every batch, of at least one episode."""

    def faults(self) -> list[str]:
        """Return one sentence for each setting that cannot work."""
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
            f"parallel-workflows ({self.parallel_workflows}) is more than {len(ORDERS) // 2}, half of the orders: the "
            "others may have to rest",
        )
        faults.check(
            self.parallel_workflows == 1 or self.inherit == "latest",
            f"inherit {self.inherit} gives each order its own policy, but orders that are trained together share one; "
            "choose parallel-workflows 1, or inherit latest",
        )
        faults.at_least("fixed_episodes", 1)
        return faults.found
