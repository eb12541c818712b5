"""Replaying: flags to an episode, and how it is told, a line for each step."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import tyro

from aiotrain.app.console import printable
from aiotrain.app.output import Output
from aiotrain.app.signals import SignalsInterrupt
from aiotrain.errors import documented

if TYPE_CHECKING:
    from aiotrain.runs.playback import Playback, PlayedStep, Setting

__all__ = ["ReplayArguments", "print_lines", "replay", "show_episode"]


@documented
@dataclasses.dataclass(frozen=True)
class ReplayArguments:
    """Watch a policy play an episode: a line for each step. It is the first episode that aiotrain evaluate plays."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or one of its checkpoints."""
    greedy: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take the most probable action. Default: draw it, as training does."""
    seed: int = 0
    """Seed of all randomness: another one gives another episode."""
    env: str | None = None
    """Environment, where the run's cannot be found again: a Gymnasium id, or module:factory."""
    max_episode_steps: Annotated[int | None, tyro.conf.arg(aliases=("--steps",))] = None
    """Truncate the episode after so many steps. Default: as in training."""


def replay(arguments: Sequence[str]) -> int:
    """Tell an episode as ``arguments`` say; return the exit code. Raises AiotrainError."""
    chosen = tyro.cli(ReplayArguments, prog="aiotrain replay", args=arguments)

    def begin() -> Playback:
        from aiotrain.runs.load_run import load_run
        from aiotrain.runs.playback import play_back

        trained = load_run(chosen.run, chosen.env).limited_to(chosen.max_episode_steps)
        return play_back(trained, greedy=chosen.greedy, seed=chosen.seed)

    return show_episode(begin, lambda played, output: print_lines(_lines(played), output))


class _Closable(Protocol):
    def close(self) -> object: ...


_Episode = TypeVar("_Episode", bound=_Closable)


def show_episode(begin: Callable[[], _Episode], show: Callable[[_Episode, Output], None]) -> int:
    """Show the episode that ``begin`` returns, close it, and return the exit code. Raises what ``begin`` raises."""
    output, signals = Output(), SignalsInterrupt()
    try:
        with signals:
            with output.status("loading") if output.is_terminal else contextlib.nullcontext():
                episode = begin()
            with contextlib.closing(episode):
                show(episode, output)
    except KeyboardInterrupt:
        return 128 + signals.last
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return 128 + signal.SIGHUP  # the terminal was closed, and is not that of this session
    return 0


def _lines(played: Playback) -> Iterator[str]:
    """Tell what is played, and each step once it is played."""
    for step in played.play():
        if step.step == 1:
            yield _heading(played.setting)
        yield _plain_step(step)


def print_lines(lines: Iterable[str], output: Output) -> None:
    """Print each line once it is there, until whoever reads them has gone."""
    for text in lines:
        output.print(text.encode(output.encoding, "replace").decode(output.encoding), soft_wrap=True)
        if output.quiet:
            break


def _heading(setting: Setting) -> str:
    """Say what is played, on one line."""
    parts = [setting.environment, setting.player, setting.how, f"seed {setting.seed}"]
    return ", ".join(printable(part) for part in parts if part)


def _plain_step(step: PlayedStep) -> str:
    """Tell a step on one line: the action, the reward, the return so far, and the observation that followed."""
    numbers = f"reward {step.reward:.6g}, return {step.episode_return:.6g}"
    ending = f" | {step.ending}" if step.ending else ""
    seen = " ".join(str(step.observation).split())
    return printable(f"step {step.step}: action {step.action} | {numbers} | {seen}{ending}")
