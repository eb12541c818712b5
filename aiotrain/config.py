"""Every setting of a training run, as frozen dataclasses that check themselves."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from aiotrain.cage2 import CAGE2_ID
from aiotrain.cage2.red_agents import MIXED, SHARES, shares_of
from aiotrain.cage2.workflows import ORDERS, parse_order
from aiotrain.errors import ConfigError, Faults
from aiotrain.learn.settings import PPOConfig

if TYPE_CHECKING:
    from aiotrain.play.spaces import EnvSpec

__all__ = ["MAY_CHANGE", "Config", "PPOConfig", "SearchConfig"]

MAY_CHANGE = frozenset(
    {
        *("total_episodes", "total_steps"),  # schedules then go along the new budget
        *("collector", "rebuild_env", "ray_address"),
        *("workers", "envs_per_worker", "episode_timeout_s", "start_timeout_s"),
        *("checkpoint_every", "keep_checkpoints", "run_dir", "tensorboard"),
    }
)
"""Settings that a resumed run may have otherwise: without policy lag, they leave what an update learns as it is."""


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


@dataclass(frozen=True)
class Config:
    """Settings of a run. Raises ConfigError, with all faults at once, where they cannot work.

    Where some are of a wrong type, it names these first.
    """

    env: str | Callable[..., Any] = CAGE2_ID
    """Environment: a Gymnasium id, module:factory, or (from Python) a callable that makes one."""
    red_agent: str = "B_lineAgent"
    """The attacker of CAGE 2: B_lineAgent, RedMeanderAgent, SleepAgent, mixed (one of these, drawn for each episode),
    or module:Class."""
    red_shares: tuple[float, ...] = SHARES
    """With red-agent mixed: of the episodes, what each of the three plays, as numbers that need not add up to 1."""
    simulator: Literal["compiled", "cyborg"] = "compiled"
    """What plays CAGE 2: the compiled engine, exact and much faster, or csle-cyborg, which takes your own red agent."""
    rules: Literal["main", "leaderboard"] = "main"
    """CAGE 2's rules: today's, or the older ones of the leaderboard, which only the compiled engine has."""
    workflow: str = "search"
    """CAGE 2's order of host types: search for it, train one (its name or five types with commas), or none."""
    observation: Literal["table", "memory"] = "table"
    """What CAGE 2 shows: the table of the last step, or with it what an attentive player remembers."""
    actions: Literal["full", "compact"] = "full"
    """CAGE 2's actions: all 145, or the 42 that can pay, of which those that make sense now are drawn."""
    max_episode_steps: int | None = None
    """Truncate episodes after so many steps. Default: the environment's own limit (CAGE 2: 100)."""

    collector: Literal["shared_memory", "sequential", "synchronous", "process_per_episode", "executor", "ray"] = (
        "shared_memory"
    )
    """How episodes are gathered: by workers that share memory (the default and the fastest), one after the other in
    this process (for breakpoints), in lockstep, in a process each, by a ProcessPoolExecutor, or by Ray."""
    ray_address: str = "local"
    """With collector ray: local for actors on this host, or the cluster whose nodes play with ``workers`` processes
    each: auto for the one that this host belongs to, or the HOST:PORT of its head."""
    rebuild_env: bool = False
    """With collector executor: make the environment anew for every task."""
    workers: int = 100
    """Worker processes; with collector ray on a cluster, on each node."""
    envs_per_worker: int = 1
    """Environments in each worker, which act in one batch. More pay when a step is cheap."""

    total_episodes: int = 100_000
    """Budget of the run in episodes."""
    total_steps: int | None = None
    """Budget in environment steps, for environments without a time limit. What is used up first ends the run."""
    episodes_per_update: int = 50
    """Episodes that the learner consumes at a time."""
    steps_per_update: int | None = None
    """Count batches in steps instead: at least so many in each."""
    max_policy_lag: int | None = None
    """How many versions older than the learner's a policy may be that played. Default: 1; 0 if deterministic.
    0: collection waits for learning."""

    seed: int = 0
    """Seed of all randomness: episode i draws from (seed, i), whichever worker plays it."""
    deterministic: bool = False
    """The same seed gives the same weights to the bit: no policy lag, and on a GPU only such algorithms."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the learner computes. auto: on the GPU if there is one."""
    learner_threads: int = 1
    """CPU threads of the learner: policy and value network have half of them each. More than two pay only where cores
    are idle."""

    slot_steps: int | None = None
    """Steps in a slot of the ring; longer episodes are cut into fragments. Default: max_episode_steps, or 1024."""
    episode_timeout_s: float = 300.0
    """Seconds that an episode, or as much of it as a slot holds, may take before its worker is killed and replaced."""
    start_timeout_s: float = 120.0
    """Seconds that starting a worker may take: what it imports or compiles, and making its environments."""

    run_dir: str | None = None
    """Folder for what the run leaves behind. Default: runs/<environment>-<time>; from Python, nothing is written."""
    tensorboard: bool = False
    """Write TensorBoard files to the run's folder too (needs the extra aiotrain[tensorboard])."""
    checkpoint_every: int = 100
    """Updates from one checkpoint to the next. There is one at the end too, however the run ends in order."""
    keep_checkpoints: int = 3
    """How many of the last checkpoints are kept, besides the best."""

    ppo: PPOConfig = field(default_factory=PPOConfig)
    """The learner."""
    workflow_search: SearchConfig = field(default_factory=SearchConfig)
    """The search over workflows."""

    def __post_init__(self) -> None:
        faults = self._faults()
        for group, kind in ((self.ppo, PPOConfig), (self.workflow_search, SearchConfig)):
            if isinstance(group, kind):
                faults += group.faults()
        if faults:
            raise ConfigError.of(faults)

    def _faults(self) -> list[str]:
        of_type = Faults(self)
        if not of_type.of_right_type():
            return of_type.found
        checks = [
            (self.workers >= 1, f"workers must be at least 1, not {self.workers}"),
            (
                self.collector == "executor" or not self.rebuild_env,
                f"rebuild-env means nothing to collector {self.collector}, only to executor; leave one of the two out",
            ),
            (
                self.collector == "ray" or self.ray_address == Config.ray_address,
                f"ray-address ({self.ray_address}) means nothing to collector {self.collector}, only to ray; "
                "leave one of the two out",
            ),
            (
                self.ray_address in ("local", "auto") or _is_host_and_port(self.ray_address),
                f"ray-address must be local, auto or HOST:PORT, not {self.ray_address!r}",
            ),
            (self.envs_per_worker >= 1, f"envs-per-worker must be at least 1, not {self.envs_per_worker}"),
            (self.total_episodes >= 1, f"total-episodes must be at least 1, not {self.total_episodes}"),
            (self.episodes_per_update >= 1, f"episodes-per-update must be at least 1, not {self.episodes_per_update}"),
            (
                self.steps_per_update is not None or not 1 <= self.total_episodes < self.episodes_per_update,
                f"episodes-per-update ({self.episodes_per_update}) is more than the budget, total-episodes "
                f"({self.total_episodes}): there would be no full update",
            ),
            (
                self.total_steps is None or self.steps_per_update is None or self.total_steps >= self.steps_per_update,
                f"steps-per-update ({self.steps_per_update}) is more than the budget, total-steps "
                f"({self.total_steps}): there would be no full update",
            ),
            (self.policy_lag >= 0, f"max-policy-lag cannot be negative ({self.max_policy_lag})"),
            (
                not self.deterministic or self.policy_lag == 0,
                f"max-policy-lag ({self.max_policy_lag}) lets timing decide which policy plays, and contradicts "
                "deterministic; leave one of the two out",
            ),
            (self.checkpoint_every >= 1, f"checkpoint-every must be at least 1, not {self.checkpoint_every}"),
            (self.keep_checkpoints >= 1, f"keep-checkpoints must be at least 1, not {self.keep_checkpoints}"),
            (0 <= self.seed < 2**63, f"seed must lie between 0 and 2**63 - 1, not at {self.seed}"),
            (
                not self.searches or self.steps_per_update is None,
                "steps-per-update cannot be had with workflow search, which divides batches by episodes; "
                "choose episodes-per-update, or another workflow",
            ),
            (self.learner_threads >= 1, f"learner-threads must be at least 1, not {self.learner_threads}"),
            (self.episode_timeout_s > 0, f"episode-timeout-s must be positive, not {self.episode_timeout_s:g}"),
            (self.start_timeout_s > 0, f"start-timeout-s must be positive, not {self.start_timeout_s:g}"),
            (self.run_dir != "", "run-dir is empty; leave it out, or name a folder"),
            (
                self.env != CAGE2_ID or self.simulator != "compiled" or (self.max_episode_steps or 1) < 2**16,
                f"max-episode-steps ({self.max_episode_steps}) is more than the 65,535 that simulator compiled plays",
            ),
            (not self.tensorboard or self.run_dir is not None, "tensorboard needs a run-dir to write to"),
            (
                self.env == CAGE2_ID or self.workflow in (Config.workflow, "none"),
                f"workflow ({self.workflow}) orders the hosts of {CAGE2_ID} and means nothing to another env; "
                "leave one of the two out",
            ),
            (
                self.simulator == "cyborg" or self.env != CAGE2_ID or not self.ppo.normalize_observations,
                "normalize-observations cannot be had with simulator compiled, which takes bits as they are; choose "
                "simulator cyborg, or leave it out",
            ),
            *(
                (
                    self.env == CAGE2_ID or getattr(self, name) == getattr(Config, name),
                    f"{name.replace('_', '-')} ({getattr(self, name)}) is a setting of {CAGE2_ID} and means nothing to "
                    "another env; leave one of the two out",
                )
                for name in ("red_agent", "rules", "observation", "actions")
            ),
            (
                self.rules == "main" or self.simulator == "compiled",
                f"csle-cyborg plays by the rules main alone; for the rules {self.rules}, choose the simulator "
                "compiled, or else the rules main",
            ),
            (
                self.red_agent == MIXED or self.red_shares == SHARES,
                f"red-shares means nothing to red-agent {self.red_agent}, only to {MIXED}; leave one of the two out",
            ),
        ]
        for name in ("max_episode_steps", "total_steps", "steps_per_update", "slot_steps"):
            value = getattr(self, name)
            flag = name.replace("_", "-")
            checks.append((value is None or value >= 1, f"{flag} must be at least 1, not {value}"))
        faults = [fault for holds, fault in checks if not holds]
        if self.workflow not in ("search", "none"):
            try:
                parse_order(self.workflow)
            except ValueError as error:
                faults.append(f"{error}; or search, or none")
        try:
            shares_of(self.red_agent, self.red_shares)
        except ValueError as error:
            faults.append(f"red-shares: {error}")
        return faults

    def refuse(self, spec: EnvSpec) -> None:
        """Raise ConfigError if episodes of the environment may outlast what these settings can do with them."""
        limit, horizon = spec.max_episode_steps, max(self.ppo.horizons, default=None)
        faults = []
        if self.total_steps is not None and self.steps_per_update is None and not limit:
            faults.append(
                f"total-steps needs steps-per-update here: {spec.name} tells no time limit, and a batch of whole "
                "episodes would wait for one that never ends"
            )
        if horizon is not None and not 1 <= (limit or 0) <= horizon:
            faults.append(
                f"horizons: nothing counts beyond step {horizon}, but an episode of {spec.name} may be longer; choose "
                f"max-episode-steps {horizon}, or a longer horizon"
            )
        if faults:
            raise ConfigError.of(faults)

    @property
    def searches(self) -> bool:
        """Whether orders of CAGE 2's host types are searched for."""
        return self.env == CAGE2_ID and self.workflow == "search"

    @property
    def policy_lag(self) -> int:
        """The largest policy lag that is allowed."""
        if self.max_policy_lag is not None:
            return self.max_policy_lag
        return 0 if self.deterministic else 1

    def resolved(self) -> dict[str, Any]:
        """All settings as plain values, for a file."""
        values = dataclasses.asdict(self)
        if callable(self.env):
            name = getattr(self.env, "__qualname__", re.sub(" at 0x[0-9a-f]+", "", repr(self.env)))
            values["env"] = f"{getattr(self.env, '__module__', '?')}:{name}"
        return values

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Config:
        """The settings that `resolved` told, after a way through JSON. Raises ConfigError."""
        groups = {"ppo": PPOConfig, "workflow_search": SearchConfig}
        read = {name: _read(kind, values.get(name, {})) for name, kind in groups.items()}
        return _read(cls, {**values, **read})

    def differences(self, other: Config) -> list[str]:
        """The settings that ``other`` may not have otherwise in the same run, and has, a sentence each."""
        here, there = (_flat(config.resolved()) for config in (self, other))
        return [
            f"{name.replace('_', '-')} was {here[name]}, and is now {there[name]}"
            for name in here
            if name not in MAY_CHANGE and here[name] != there[name]
        ]


_Settings = TypeVar("_Settings", "Config", PPOConfig, SearchConfig)


def _read(kind: type[_Settings], values: Mapping[str, Any]) -> _Settings:
    """Settings from the plain values of a file."""
    if unknown := sorted(values.keys() - {each.name for each in dataclasses.fields(kind)}):
        raise ConfigError(f"there is no setting {', '.join(unknown)}")
    read: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in values.items()}
    return kind(**read)


def _flat(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, without their groups."""
    flat: dict[str, Any] = {}
    for name, value in resolved.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _is_host_and_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and "/" not in host and port.isdecimal() and 0 < int(port) < 2**16
