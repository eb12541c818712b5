"""From what a user names as environment to something that a worker can make it with."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cloudpickle
import gymnasium

from aiotrain.cage2 import CAGE2_ID
from aiotrain.cage2.red_agents import MIXED
from aiotrain.cage2.scenario import HOST_TYPES
from aiotrain.cage2.workflows import parse_order
from aiotrain.config import Config
from aiotrain.errors import ConfigError, EnvError, unknown_name

__all__ = ["EnvFactory", "make_factory"]


@dataclass(frozen=True)
class EnvFactory:
    """Makes the environment, in whichever process it is called. Plain data: it travels to the workers."""

    name: str
    """What people call the environment."""
    target: str | bytes
    """A Gymnasium id, ``module:factory``, or a callable pickled by cloudpickle."""
    kwargs: tuple[tuple[str, Any], ...] = ()
    max_episode_steps: int | None = None
    """Truncate episodes after so many steps, if the environment does not do so earlier."""

    @classmethod
    def of(cls, env: str | Callable[..., Any], max_episode_steps: int | None = None, **kwargs: Any) -> EnvFactory:
        """The factory for ``env``. Raises ConfigError for an unknown id and for a callable that cannot travel."""
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

    @property
    def is_cage2(self) -> bool:
        """Whether this is the CAGE 2 environment of this package."""
        return self.target == CAGE2_ID

    @property
    def is_compiled(self) -> bool:
        """Whether this is the compiled engine, whose episodes can be played without Python."""
        return self.is_cage2 and ("simulator", "compiled") in self.kwargs

    @property
    def modules(self) -> list[str]:
        """What is worth importing once for all workers."""
        if self.is_compiled:
            return ["aiotrain.cage2.play.compile_before_fork"]
        return ["aiotrain.cage2.simulators.cyborg_env"] if self.is_cage2 else []

    def __call__(self) -> gymnasium.Env[Any, Any]:
        """A new environment. Raises whatever the user's code raises, and EnvError if it made something else."""
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


def make_factory(config: Config) -> EnvFactory:
    """The factory for the configured environment. Raises ConfigError."""
    if config.env != CAGE2_ID:
        return EnvFactory.of(config.env, config.max_episode_steps)
    try:
        _refuse_unknown_red_agent(config)
    except ValueError as error:
        raise ConfigError(f"red-agent: {error}") from error
    kwargs: dict[str, Any] = {
        name: getattr(config, name) for name in ("simulator", "red_agent", "rules", "observation", "actions")
    }
    if config.red_agent == MIXED:
        kwargs["red_shares"] = config.red_shares
    if config.workflow != "none":  # a search tells each episode its order
        kwargs["workflow"] = HOST_TYPES if config.workflow == "search" else parse_order(config.workflow)
    if config.max_episode_steps is not None:
        kwargs["max_steps"] = config.max_episode_steps
    return EnvFactory.of(config.env, **kwargs)


def _refuse_unknown_red_agent(config: Config) -> None:
    """Raise ValueError. For cyborg, this imports the simulator, which other environments do without."""
    if config.simulator == "compiled":
        from aiotrain.cage2.red_agents import compiled_red_agent

        compiled_red_agent(config.red_agent)
    elif config.red_agent != MIXED:
        from aiotrain.cage2.simulators.cyborg_env import red_agent_class

        red_agent_class(config.red_agent)


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
