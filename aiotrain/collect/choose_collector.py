"""Which collector a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable

from aiotrain.collect.executor_collector import ExecutorCollector
from aiotrain.collect.process_per_episode_collector import ProcessPerEpisodeCollector
from aiotrain.collect.protocol import Collector, CollectorSettings
from aiotrain.collect.sequential_collector import SequentialCollector
from aiotrain.collect.settings import CollectConfig
from aiotrain.collect.shared_memory_collector import SharedMemoryCollector
from aiotrain.collect.synchronous_collector import SynchronousCollector
from aiotrain.errors import ConfigError
from aiotrain.play.env_factory import EnvFactory

__all__ = ["make_collector"]


def make_collector(config: CollectConfig, run_seed: int, factory: EnvFactory, warn: Callable[[str], None]) -> Collector:
    """Return the configured collector, not started. Raises ConfigError if Ray is asked for and not installed."""
    settings = CollectorSettings(
        workers=config.workers,
        envs_per_worker=config.envs_per_worker,
        run_seed=run_seed,
        episode_timeout_s=config.episode_timeout_s,
        start_timeout_s=config.start_timeout_s,
    )
    match config.collector:
        case "shared_memory":
            return SharedMemoryCollector(factory, settings, warn)
        case "sequential":
            return SequentialCollector(factory, settings, warn)
        case "process_per_episode":
            return ProcessPerEpisodeCollector(factory, settings, warn)
        case "executor":
            return ExecutorCollector(factory, settings, warn, rebuild_env=config.rebuild_env)
        case "synchronous":
            return SynchronousCollector(factory, settings, warn)
        case "ray":
            try:
                from aiotrain.collect.ray_actors import ActorCollector
                from aiotrain.collect.ray_cluster import ClusterCollector
            except ModuleNotFoundError as error:
                raise ConfigError(f"collector ray needs Ray ({error}): pip install 'aiotrain[ray]'") from error
            if config.ray_address == "local":
                return ActorCollector(factory, settings, warn)
            return ClusterCollector(factory, settings, warn, address=config.ray_address)
