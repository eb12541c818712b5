"""From what a user names as environment to something that a worker can make it with."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cloudpickle
import gymnasium

from aiotrain.errors import ConfigError, EnvError, documented, unknown_name
from aiotrain.transport.slot_ring import metric_faults

__all__ = ["EnvFactory", "named"]


def named(reference: str) -> Any:
    """Return what ``module:attribute`` names. Raises ImportError, ValueError or AttributeError."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


@documented
@dataclass(frozen=True)
class EnvFactory:
    """Makes the environment, in whichever process it is called. Plain data: it travels to the workers."""

    name: str
    """What people call the environment."""
    target: str | bytes
    """A Gymnasium id, ``module:factory``, or a callable pickled by cloudpickle."""
    kwargs: tuple[tuple[str, Any], ...] = ()
    """Keyword arguments of the maker."""
    max_episode_steps: int | None = None
    """Truncate episodes after so many steps, if the environment does not do so earlier."""
    metrics: tuple[str, ...] = ()
    """Names of the numbers in ``info`` at the end of an episode that are kept with it."""
    asks_for_metrics: bool = True
    """Whether the run says which other numbers ``info`` has there."""
    preload: tuple[str, ...] = ()
    """Modules that are worth importing once for all workers."""
    compiled_player: str | None = None
    """``module:Class`` of an `EpisodePlayer` that plays whole episodes without Python, where there is one."""

    def __post_init__(self) -> None:
        if faults := metric_faults(self.metrics):
            raise ConfigError.of([f"metrics: {fault}" for fault in faults])

    @classmethod
    def of(cls, env: str | Callable[..., Any], max_episode_steps: int | None = None, **kwargs: Any) -> EnvFactory:
        """Return the factory for ``env``. Raises ConfigError for an unknown id or a callable that cannot travel."""
        if callable(env):
            try:
                target = cloudpickle.dumps(env)
            except Exception as error:
                raise ConfigError(
                    f"env: {env!r} cannot be sent to the workers, because it cannot be pickled "
                    f"({type(error).__name__}: {error}). Open files, sockets, locks and the like inside the factory "
                    "instead of outside it, or name it as module:factory."
                ) from error
            return cls(getattr(env, "__name__", type(env).__name__), target, tuple(kwargs.items()), max_episode_steps)
        _refuse_unknown(env)
        return cls(env, env, tuple(kwargs.items()), max_episode_steps)

    def __call__(self) -> gymnasium.Env[Any, Any]:
        """Return a new environment. Raises whatever the user's code raises, and EnvError if it made something else."""
        made: Any = self._maker()(**dict(self.kwargs))
        env: gymnasium.Env[Any, Any] = made
        if not isinstance(made, gymnasium.Env):
            raise EnvError(
                f"the factory {self.name} made a {type(made).__name__}, not a gymnasium.Env. "
                "Does it return the environment, and the environment derive from gymnasium.Env?"
            )
        if self.max_episode_steps is not None:
            env = gymnasium.wrappers.TimeLimit(env, self.max_episode_steps)
        return env

    def _maker(self) -> Callable[..., Any]:
        if isinstance(self.target, bytes):
            maker: Callable[..., Any] = cloudpickle.loads(self.target)
            return maker
        module_name, colon, attribute = self.target.partition(":")
        if colon:
            module = importlib.import_module(module_name)
            if hasattr(module, attribute):
                maker = getattr(module, attribute)
                if callable(maker):
                    return maker
                raise EnvError(
                    f"env: {self.target} is of type {type(maker).__name__} and cannot be called; "
                    "name a class or a function that makes an environment"
                )
            if not _is_registered(attribute):  # importing it may have registered an id
                callables = [name for name, value in vars(module).items() if callable(value)]
                raise EnvError(f"env: {unknown_name(f'factory in {module_name}', attribute, callables)}")

        def make(**kwargs: Any) -> Any:
            # The checker looks at every step; the worker's own checks are cheaper and name episode and seed.
            return gymnasium.make(str(self.target), disable_env_checker=True, **kwargs)

        return make


def _refuse_unknown(env: str) -> None:
    """Raise ConfigError unless ``env`` is a registered id or has a module that exists."""
    module_name, colon, attribute = env.partition(":")
    if module_name == "__main__" or "<" in env:  # as Config.resolved writes of what has no name to be imported by
        raise ConfigError(
            f"env: {env} is an environment that a program gave as a Python callable, which cannot be found again by "
            "that name. Give the callable again, as in Trainer.resume(run, env=callable) or aiotrain.evaluate(run, "
            "env=callable), or put what makes it into a module and give env as module:factory (--env)."
        )
    if colon:
        try:
            found = importlib.util.find_spec(module_name)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise ConfigError(
                f"env: there is no module {module_name!r} for {env!r}. "
                "It must be importable from the folder you start in, or installed."
            )
        if not attribute:
            raise ConfigError(f"env: {env!r} names a module but nothing in it; write module:factory")
        return
    if not _is_registered(env):
        raise ConfigError(
            f"env: {unknown_name('Gymnasium id', env, list(gymnasium.registry))} "
            "An environment of your own is named as module:factory."
        )


def _is_registered(env_id: str) -> bool:
    try:
        gymnasium.spec(env_id)
    except gymnasium.error.Error:
        return False
    return True
