"""Every setting of a training run, as frozen dataclasses that check themselves."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_type_hints

from aiotrain.collect.settings import CollectConfig
from aiotrain.domains import Domain, domain_of, domains, part_of
from aiotrain.errors import ConfigError, Faults, documented, unknown_name
from aiotrain.learn.settings import PPOConfig
from aiotrain.play.env_factory import EnvFactory
from aiotrain.transport.slot_ring import metric_faults

if TYPE_CHECKING:
    from aiotrain.play.spaces import EnvSpec

__all__ = ["MAY_CHANGE", "Config"]

MAY_CHANGE: Final = frozenset(
    {
        *("total_episodes", "total_steps"),  # schedules then go along the new budget
        *("collector", "rebuild_env", "ray_address"),
        *("workers", "envs_per_worker", "episode_timeout_s", "start_timeout_s"),
        *("checkpoint_every", "keep_checkpoints", "run_dir", "tensorboard"),
    }
)
"""Settings that may change on resume: without policy lag, they do not change what an update learns."""

_FORMAT: Final = 2
"""Of `Config.resolved`; 1 was written by aiotrain 0.1."""
_GENERAL_PPO: Final = PPOConfig()


@documented
@dataclass(frozen=True, kw_only=True)
class Config(CollectConfig):
    """Settings of a run. Raises ConfigError, with all faults at once, where they cannot work.

    Where some are of a wrong type, it names these first.
    """

    env: str | Callable[..., Any] | Domain
    """Environment: a Gymnasium id, module:factory, or (from Python) a domain's settings or a callable that makes an
    environment."""
    curriculum: str | Callable[..., Any] | None = None
    """With which options episodes are reset: module:Class of an aiotrain.Curriculum, or (from Python) the class or a
    callable that makes one. Default: the environment's own, if it brings one."""
    metrics: tuple[str, ...] = ()
    """Names of numbers in info at the end of an episode, which are then reported like the return: success score."""
    max_episode_steps: int | None = None
    """Truncate episodes after so many steps. Default: the environment's own limit."""

    total_episodes: int = 100_000
    """Budget of the run in episodes."""
    total_steps: int | None = None
    """Budget in environment steps, for environments without a time limit. What is used up first ends the run."""
    episodes_per_update: int = 50
    """Episodes that the learner consumes at a time."""
    steps_per_update: int | None = None
    """Count batches in steps instead: at least so many in each."""
    max_policy_lag: int | None = None
    """Largest allowed lag of the acting policy behind the learner's, in versions. Default: 1; 0 if deterministic.
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

    run_dir: str | None = None
    """Folder for what the run leaves behind. Default: runs/<environment>-<time>; from Python, nothing is written."""
    tensorboard: bool = False
    """Write TensorBoard files to the run's folder too (needs the extra aiotrain[tensorboard])."""
    checkpoint_every: int = 100
    """Updates from one checkpoint to the next. There is one at the end too, however the run ends in order."""
    keep_checkpoints: int = 3
    """How many of the last checkpoints are kept, besides the best."""

    ppo: PPOConfig = _GENERAL_PPO
    """The learner. Default: the domain's settings, else the general ones."""

    def __post_init__(self) -> None:
        if (domain := domain_of(self.env)) is not None:
            object.__setattr__(self, "env", domain)
            if self.ppo is _GENERAL_PPO and domain.ppo is not None:
                object.__setattr__(self, "ppo", domain.ppo)
        faults = Faults(self)
        if faults.of_right_type():
            faults.found += self.collect_faults() + self._budget_faults() + self._other_faults()
            if domain is not None:
                faults.found += _namesakes(domain) + part_of(domain, "faults", list[str], lambda: domain.faults(self))
        if isinstance(self.ppo, PPOConfig):
            faults.found += self.ppo.faults()
        if faults.found:
            raise ConfigError.of(faults.found)

    def _budget_faults(self) -> list[str]:
        faults = Faults(self)
        for name in ("total_episodes", "total_steps", "episodes_per_update", "steps_per_update", "max_episode_steps"):
            faults.at_least(name, 1)
        faults.check(
            self.steps_per_update is not None or not 1 <= self.total_episodes < self.episodes_per_update,
            f"episodes-per-update ({self.episodes_per_update}) is more than the budget, total-episodes "
            f"({self.total_episodes}): there would be no full update",
        )
        faults.check(
            self.total_steps is None or self.steps_per_update is None or self.total_steps >= self.steps_per_update,
            f"steps-per-update ({self.steps_per_update}) is more than the budget, total-steps "
            f"({self.total_steps}): there would be no full update",
        )
        faults.not_negative("max_policy_lag")
        faults.check(
            not self.deterministic or self.policy_lag == 0,
            f"max-policy-lag ({self.max_policy_lag}) lets timing decide which policy plays, and contradicts "
            "deterministic; leave one of the two out",
        )
        return faults.found

    def _other_faults(self) -> list[str]:
        faults = Faults(self)
        faults.at_least("checkpoint_every", 1)
        faults.at_least("keep_checkpoints", 1)
        faults.at_least("learner_threads", 1)
        faults.check(0 <= self.seed < 2**63, f"seed must lie between 0 and 2**63 - 1, not at {self.seed}")
        faults.check(self.run_dir != "", "run-dir is empty; leave it out, or name a folder")
        faults.check(not self.tensorboard or self.run_dir is not None, "tensorboard needs a run-dir to write to")
        faults.found += [f"metrics: {fault}" for fault in metric_faults(self.metrics)]
        return faults.found

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
    def domain(self) -> Domain | None:
        """The environment's domain, if it has one."""
        return self.env if isinstance(self.env, Domain) else None

    @property
    def policy_lag(self) -> int:
        """The largest policy lag that is allowed."""
        if self.max_policy_lag is not None:
            return self.max_policy_lag
        return 0 if self.deterministic else 1

    def env_factory(self) -> EnvFactory:
        """Return what makes the environment in a worker. Raises ConfigError."""
        if isinstance(env := self.env, Domain):
            factory = part_of(env, "factory", EnvFactory, lambda: env.factory(self))
        else:
            factory = EnvFactory.of(env, self.max_episode_steps)
        metrics = (*factory.metrics, *(name for name in self.metrics if name not in factory.metrics))
        return dataclasses.replace(factory, metrics=metrics)

    def resolved(self) -> dict[str, Any]:
        """Return all settings as plain values, for a file."""
        values = {"format": _FORMAT, **dataclasses.asdict(self)}
        if isinstance(self.env, Domain):
            values["env"] = {"domain": self.env.env_id, **values["env"]}
        for name in ("env", "curriculum"):
            if callable(given := getattr(self, name)):
                named = getattr(given, "__qualname__", re.sub(" at 0x[0-9a-f]+", "", repr(given)))
                values[name] = f"{getattr(given, '__module__', '?')}:{named}"
        return values

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Config:
        """Return the settings that `resolved` told, after a way through JSON. Raises ConfigError."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"these are no settings: {values!r:.80}")
        values = dict(values)
        if (found := values.pop("format", 1)) != _FORMAT:
            raise ConfigError(
                f"these settings are of format {found}, and this version of aiotrain reads format {_FORMAT}. "
                + ("aiotrain 0.1 wrote them: go on with that version" if found == 1 else "A newer version wrote them")
            )
        if isinstance(env := values.get("env"), Mapping):
            env = dict(env)
            if (name := env.pop("domain", None)) not in [*domains()]:  # a list: what is there may not be hashable
                raise ConfigError(f"{unknown_name('domain', name, list(domains()))} Is its distribution installed?")
            values["env"] = _read(domains()[name], env)
        return _read(cls, values)

    def differences(self, other: Config) -> list[str]:
        """Return the settings that ``other`` has otherwise and may not in the same run, a sentence each."""
        here, there = (_flat(config.resolved()) for config in (self, other))
        return [
            f"{name.replace('_', '-')} was {here.get(name)}, and is now {there.get(name)}"
            for name in {**here, **there}
            if name not in MAY_CHANGE and here.get(name) != there.get(name)
        ]


def _namesakes(domain: Domain) -> list[str]:
    """Return a fault if the id of ``domain`` means another one, which would be played in its place after a resume."""
    known = domains().get(domain.env_id, type(domain))
    if known is type(domain):
        return []
    here, there = (f"{kind.__module__}.{kind.__qualname__}" for kind in (type(domain), known))
    return [f"env: {here} has the env_id {domain.env_id}, which is that of {there}; give it an env_id of its own"]


_Settings = TypeVar("_Settings")


def _read(kind: type[_Settings], values: Mapping[str, Any]) -> _Settings:
    """Return settings from the plain values of a file, those of groups in mappings of their own."""
    hints = get_type_hints(kind)
    types = {each.name: hints[each.name] for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(values.keys() - types.keys()):
        raise ConfigError(f"there is no setting {', '.join(unknown)}")
    if "env" in types.keys() - values.keys():
        raise ConfigError("the setting env is missing")
    read: dict[str, Any] = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(types[name]) and isinstance(value, Mapping):
            read[name] = _read(types[name], value)
        else:
            read[name] = tuple(value) if isinstance(value, list) else value
    return kind(**read)


def _flat(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by name, without their groups."""
    flat: dict[str, Any] = {}
    for name, value in resolved.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat
