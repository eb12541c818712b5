"""Curricula: with which options the episodes of a batch are reset.

A curriculum plans each batch before its episodes are played, hears what the learner made of it, and may go on from
there. It is saved and restored with the run.

docs/curriculum.md has an example. ``--curriculum module:Class`` or ``Config(curriculum=Class)`` trains by one.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aiotrain.config import Config
from aiotrain.errors import AiotrainError, ConfigError, CurriculumError, documented
from aiotrain.play.env_factory import named
from aiotrain.runs.checkpoints import refuse_unsavable
from aiotrain.runs.tensor_files import Unfit

if TYPE_CHECKING:  # torch takes seconds to import
    from aiotrain.learn.ppo import Learner

__all__ = ["CheckedCurriculum", "Curriculum", "RunServices", "curriculum_maker"]

Options = Mapping[str, Any]
"""What ``env.reset(options=…)`` is given."""


@documented
@dataclass(frozen=True)
class RunServices:
    """What a curriculum may use of the run."""

    learner: Learner
    """The learner. Only `Curriculum.advance` and `Curriculum.end` may change it."""
    event: Callable[..., None]
    """``event(kind, **details)`` notes an event in events.jsonl."""
    row: Callable[[str, Mapping[str, Any]], None]
    """``row(name, values)`` appends a row to the file of that name in the run's folder, as CSV."""
    save_policy: Callable[[str], None]
    """``save_policy(name)`` writes the policy, as it is now, to the file of that name in the run's folder."""


class Curriculum:
    """Resets every episode without options; to be derived from.

    All methods are called one after the other. `advance` and `end` are called in the learner's thread and may take
    time; all others are called in the event loop and must be quick.
    """

    def __init__(self, run: RunServices) -> None:
        """Make a curriculum before the learner learns, or restores, anything."""
        self.run = run

    def plan(self, batch: int) -> Sequence[Options] | None:
        """Return the reset options of batch number ``batch``: equal parts of its episodes get one each.

        A batch is planned once before its first episode, and once more after a resume. None: not now; ask again after
        the next update.
        """
        return ({},)

    def label(self, batch: int) -> str:
        """Return what a planned batch consists of, for its row in updates.csv."""
        return ""

    def learned(self, batch: int, episodes: npt.NDArray[np.void], parts: npt.NDArray[np.int64]) -> None:
        """Take in what an update learned from.

        Args:
            batch: Number of the batch. Batches are learned in their order.
            episodes: ``[E]``, the headers of the episodes that ended in the batch: ``episode_return``,
                ``episode_steps``, ``episode_bonus``, each named metric, and more (`header_dtype`).
            parts: ``[E]``, the part of the plan that each belongs to.
        """

    def advance(self, *, has_more: bool) -> None:
        """Decide what comes next, after `learned` and before the policy is published; the policy may be exchanged.

        It is also called once before the first batch. ``has_more``: whether further batches will be planned.
        """

    def published(self) -> None:
        """Note that the policy that `advance` left is published: what is planned from now on is played with it."""

    def end(self, reason: str) -> None:
        """Conclude what is under way. ``reason``: ``budget``, ``stopped``, ``interrupted`` or ``failed``."""

    def status(self) -> Any:
        """Return what the domain's panel shows; None for nothing. It is called at any time."""
        return None

    def state_dict(self) -> Mapping[str, Any]:
        """Return everything that decides what comes next, as plain values and arrays, for `load_state_dict`."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned. Raises KeyError, RuntimeError, TypeError or ValueError."""


def curriculum_maker(config: Config) -> Callable[[RunServices], Curriculum]:
    """Return what makes the curriculum that ``config`` asks for: its own, else the domain's, else the plain one.

    Raises ConfigError for a name that cannot be imported. So does the maker for what is no curriculum; it raises
    CurriculumError if the user's code does not get as far as that.
    """
    wanted: Any = config.curriculum
    if isinstance(wanted, str):
        try:
            wanted = named(wanted)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(f"curriculum: {wanted} cannot be imported ({error}); name it as module:Class") from error

    def make(run: RunServices) -> Curriculum:
        giver: object = config.curriculum
        with _naming("curriculum: making it"):
            if wanted is not None:
                made = wanted(run) if callable(wanted) else wanted
            elif config.domain is not None and (made := config.domain.curriculum(config, run)) is not None:
                giver = config.domain.env_id
            else:
                made = Curriculum(run)
        if not isinstance(made, Curriculum):
            raise ConfigError(f"curriculum: {giver} gives {made!r}; derive it from aiotrain.Curriculum")
        return made

    return make


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    """Raise CurriculumError, which tells what was done, for an error in a curriculum's own code."""
    try:
        yield
    except AiotrainError:
        raise
    except Exception as error:
        raise CurriculumError(f"{what} raised {type(error).__name__}: {error}") from error


class CheckedCurriculum:
    """A curriculum as the run asks it: an error in a method becomes a CurriculumError, and what it returns is checked.

    ``episodes``: number of episodes in a batch; None if batches are counted in steps.
    """

    def __init__(self, curriculum: Curriculum, episodes: int | None) -> None:
        self._curriculum = curriculum
        self._episodes = episodes

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return functools.partial(self._call, method)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        with _naming(self._told(method)):
            return getattr(self._curriculum, method)(*args, **kwargs)

    def _told(self, call: str) -> str:
        return f"curriculum: {type(self._curriculum).__name__}.{call}"

    def plan(self, batch: int) -> Sequence[Options] | None:
        """Return what is planned for ``batch``, as a copy. Raises ConfigError for what is no plan."""
        parts = self._call("plan", batch)
        if parts is None:
            return None
        told = self._told(f"plan({batch}) returned")
        if not (isinstance(parts, list | tuple) and parts and all(isinstance(each, Mapping) for each in parts)):
            raise ConfigError(
                f"{told} {parts!r:.60}; return a list of one or more mappings, which reset is given as options, or "
                "None for not now"
            )
        if self._episodes is not None and len(parts) > self._episodes:
            raise ConfigError(
                f"{told} {len(parts)} options for a batch of {self._episodes} episodes, so that some would never be "
                "played; return fewer, or raise --episodes-per-update"
            )
        with _naming(f"{told} options, and copying them"):
            return copy.deepcopy([dict(each) for each in parts])

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state, as a copy. Raises CurriculumError for what cannot be saved."""
        state = self._call("state_dict")
        advice = "No checkpoint can be saved without it; return a mapping of plain values and arrays"
        if not isinstance(state, Mapping):
            raise CurriculumError(f"{self._told('state_dict')} returned {state!r:.40}, which is no mapping. {advice}")
        try:
            refuse_unsavable(state)
        except Unfit as error:
            raise CurriculumError(f"{self._told('state_dict')} cannot be saved: {error}. {advice}") from error
        with _naming(self._told("state_dict: copying it")):
            return copy.deepcopy(dict(state))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned. Raises KeyError, RuntimeError, TypeError or ValueError."""
        try:
            self._curriculum.load_state_dict(state)
        except (AiotrainError, KeyError, RuntimeError, TypeError, ValueError):
            raise
        except Exception as error:  # the state is to blame, as with those
            raise ValueError(f"{self._told('load_state_dict')} raised {type(error).__name__}: {error}") from error
