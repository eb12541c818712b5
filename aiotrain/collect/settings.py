"""Settings of how episodes are collected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aiotrain.errors import Faults

__all__ = ["CollectConfig"]


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Who plays the episodes, and with how much of the host."""

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
    slot_steps: int | None = None
    """Steps in a slot of the ring; longer episodes are cut into fragments. Default: max_episode_steps, or 1024."""
    episode_timeout_s: float = 300.0
    """Seconds that an episode, or as much of it as a slot holds, may take before its worker is killed and replaced."""
    start_timeout_s: float = 120.0
    """Seconds that starting a worker may take: what it imports or compiles, and making its environments."""

    def collect_faults(self) -> list[str]:
        """Return what cannot work in these settings, a sentence each. They must be of the right types."""
        faults = Faults(self)
        faults.at_least("workers", 1)
        faults.at_least("envs_per_worker", 1)
        faults.at_least("slot_steps", 1)
        faults.positive("episode_timeout_s")
        faults.positive("start_timeout_s")
        faults.check(
            self.collector == "executor" or not self.rebuild_env,
            f"rebuild-env means nothing to collector {self.collector}, only to executor; leave one of the two out",
        )
        faults.check(
            self.collector == "ray" or self.ray_address == "local",
            f"ray-address ({self.ray_address}) means nothing to collector {self.collector}, only to ray; "
            "leave one of the two out",
        )
        faults.check(
            self.ray_address in ("local", "auto") or _is_host_and_port(self.ray_address),
            f"ray-address must be local, auto or HOST:PORT, not {self.ray_address!r}",
        )
        return faults.found


def _is_host_and_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and "/" not in host and port.isdecimal() and 0 < int(port) < 2**16
