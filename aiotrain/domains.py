"""Domains: what a family of environments brings along, and how the program finds it.

A domain is a frozen dataclass that derives from `Domain`. Its fields are settings: they become flags of the command
line, and a part of config.json. A distribution announces its domains by the entry-point group ``aiotrain.domains``:

    [project.entry-points."aiotrain.domains"]
    maze = "maze.domain:Maze"

Everything heavy is named as ``module:attribute`` and imported when it is first used. A domain object stays in the main
process; what travels to the workers is the environment factory.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar, get_args, get_type_hints

from aiotrain.errors import AiotrainError, ConfigError, is_of
from aiotrain.learn.settings import PPOConfig
from aiotrain.play.env_factory import EnvFactory, named

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aiotrain.config import Config
    from aiotrain.training.curriculum import Curriculum, RunServices

__all__ = [
    "DEFAULT_ENV",
    "GROUP",
    "Domain",
    "DomainLeftOut",
    "Drawing",
    "Line",
    "Panel",
    "domain_of",
    "domains",
    "flags_of",
    "part_of",
]

GROUP: Final = "aiotrain.domains"
"""Entry-point group of domains."""
DEFAULT_ENV: Final = "aiotrain/Cage2-v0"
"""Environment of the program, where no flag names one."""
_BUILT_IN: Final = "aiotrain.cage2.domain:Cage2"
"""Domain of this distribution. It is named here as well as in the entry points, which a bare checkout does not have."""
_SETTINGS: Final = "aiotrain.config:Config"
"""General settings, which import this module."""
_OTHER_FLAGS: Final = frozenset({"--help", "--n-workers", "--override", "--plain", "--resume"})
"""Flags of the program that are no settings."""

Line = list[tuple[str, str]]
"""One line of the console: runs of text, each with the name of a style of aiotrain.app.console.lines.STYLES."""
Drawing = Callable[["Figure"], None]
"""Draws one picture into an empty figure."""


@dataclass(frozen=True, kw_only=True)
class Domain(ABC):
    """Settings of a family of environments, and the parts that only it needs.

    Only `env_id` and `factory` must be provided.
    """

    env_id: ClassVar[str]
    """Gymnasium id that names the domain: ``--env ID`` and ``Config(env="ID")`` mean the domain with its defaults."""
    ppo: ClassVar[PPOConfig | None] = None
    """Learner's settings where the user gives none; None: the general ones."""
    panel: ClassVar[str | None] = None
    """``module:Class`` of a `Panel`, which shows the curriculum's status in the console."""
    plots: ClassVar[str | None] = None
    """``module:function`` from a run's folder to its further pictures: ``(run: Path) -> Mapping[name, Drawing]``."""
    agent: ClassVar[str | None] = None
    """``module:function`` from a policy to the parts of its exported agent: ``(trained: Trained) -> AgentParts``."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose version decides the bits of a run. A resume warns where one is another."""
    verbs: ClassVar[Mapping[str, str]] = {}
    """``module:function`` of each command, ``(arguments: Sequence[str]) -> exit code``. A command named as a general
    one takes its place for the runs of this domain."""

    def faults(self, config: Config) -> list[str]:
        """Return what cannot work in these settings, or together with those of the run, a sentence each."""
        return []

    @abstractmethod
    def factory(self, config: Config) -> EnvFactory:
        """Return what makes the environment in a worker. Raises ConfigError."""

    def curriculum(self, config: Config, run: RunServices) -> Curriculum | None:
        """Return a new curriculum; None for the plain one, which resets every episode in the same way."""
        return None

    def to_play(self, run: Path) -> tuple[Domain, str]:
        """Return the settings by which the policy of the run in the folder ``run`` is played, and the file it is in.

        Raises ConfigError.
        """
        return self, "weights.safetensors"

    @property
    def title(self) -> str:
        """What is played, in a few words."""
        return self.env_id

    @property
    def details(self) -> Mapping[str, str]:
        """What the log tells at the start besides, by a label of at most 11 characters."""
        return {}


class Panel(Protocol):
    """How the console shows a curriculum. ``status`` is what `Curriculum.status` returned, and not None.

    All methods return text, which the console makes printable. They must be quick.
    """

    title: str
    """Title of the panel's box."""

    def headline(self, status: Any) -> Line:
        """Return what stands beside the title; an empty line for nothing."""
        ...

    def lines(self, status: Any, width: int, height: int) -> list[Line]:
        """Return at most ``height`` lines; each is cut off after ``width`` cells."""
        ...

    def log(self, status: Any) -> Mapping[str, str]:
        """Return the pairs of name and value that a line of the log has; blanks in a value become underscores."""
        ...

    def summary(self, status: Any) -> Mapping[str, str]:
        """Return what the run came to, in one or more lines for each label of at most 11 characters."""
        ...


class DomainLeftOut(UserWarning):
    """Warns that an installed domain cannot be used."""


@functools.cache
def domains() -> Mapping[str, type[Domain]]:
    """Return the installed domains by `Domain.env_id`. A DomainLeftOut warns of each one that cannot be used."""
    built_in: type[Domain] = named(_BUILT_IN)
    found = {built_in.env_id: built_in}
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.value == _BUILT_IN:
            continue
        try:
            kind = entry.load()
            if not issubclass(kind, Domain):
                raise TypeError(f"{entry.value} does not derive from aiotrain.Domain")
            _refuse_broken(kind)
            if found.setdefault(kind.env_id, kind) is not kind:
                raise ValueError(f"{kind.env_id} is the env_id of {found[kind.env_id].__qualname__} already")
        except (Exception, SystemExit) as error:
            distribution = "an unknown distribution" if entry.dist is None else entry.dist.name
            told = f"the domain {entry.name} of {distribution} is left out: {error!r}"
            warnings.warn(told, DomainLeftOut, stacklevel=2)
    return found


def _refuse_broken(kind: type[Domain]) -> None:
    """Raise for a domain that would break trainings of other environments too, which look at all domains' flags."""
    for name, hint in get_type_hints(Domain).items():
        (expected,), value = get_args(hint), getattr(kind, name)
        if not is_of(expected, value):
            raise TypeError(f"{name} must be of type {expected}, not {value!r}")
    get_type_hints(kind)  # raises for a type that is imported for type checkers alone: the settings could not be read
    general = {*flags_of(named(_SETTINGS)), *_OTHER_FLAGS}
    taken = {*general, *(f"--no-{flag[2:]}" for flag in general)}
    for flag in (f"--{kind.__name__}", *flags_of(kind())):  # the class heads its flags by its name
        if flag in taken:
            raise ValueError(f"{flag} is a flag already; give the setting another name")
        taken.add(flag)


def flags_of(settings: Any) -> Iterator[str]:
    """Name the flags of settings, or of their class, and of the groups in them."""
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name, None)
        if dataclasses.is_dataclass(value):
            yield from flags_of(value)
        else:
            yield f"--{each.name.replace('_', '-')}"


def domain_of(env: object) -> Domain | None:
    """Return the domain that ``env`` is, or names by its Gymnasium id; None for any other environment."""
    if isinstance(env, str):
        kind = domains().get(env)
        return None if kind is None else kind()
    return env if isinstance(env, Domain) else None


_Part = TypeVar("_Part")


def part_of(domain: Domain, part: str, expected: Any, get: Callable[[], _Part]) -> _Part:
    """Return what ``get`` returns, which is the member ``part`` of ``domain``.

    Raises ConfigError, which names both, if ``get`` raises or its result is not of the type ``expected``.
    """
    try:
        found = get()
        if not is_of(expected, found):
            in_words = expected.__name__ if isinstance(expected, type) else expected
            raise TypeError(f"it is {found!r:.80}, which is not of type {in_words}")
    except AiotrainError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"the part {part} of the domain {domain.env_id} cannot be used: {type(error).__name__}: {error}. "
            f"See {type(domain).__module__}.{type(domain).__qualname__}"
        ) from error
    return found
