"""Replaying: flags to an episode, and its ways to be watched: in a terminal, as lines of text, as a file."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import tyro

from aiotrain.app.console import can_draw, printable
from aiotrain.app.output import Output
from aiotrain.app.signals import SignalsInterrupt
from aiotrain.errors import ConfigError

if TYPE_CHECKING:
    from aiotrain.runs.playback import Replay

__all__ = ["replay"]

_NOT_WHAT = ("fps", "paused", "save")  # of ReplayArguments: the rest says what is played
_FILM_SIZE: Final = (100, 32)
"""Columns and lines of a saved picture."""


@dataclasses.dataclass(frozen=True)
class ReplayArguments:
    """Watch a policy play an episode.

    Of CAGE 2: a map of the network with what is true and what blue sees, both sides' actions and whether they succeed,
    the reward and what it is made of. Of other environments: a line for each step. So it is, too, where the output is
    no terminal. Of a run against its own red agent, it is the first episode that aiotrain evaluate plays.

    Keys: space pauses and goes on, → and Enter go a step on, ← goes back, q quits.
    """

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    """Folder of the run, or one of its checkpoints. Left out with --agent."""
    agent: Literal["sleep", "random", "greedy-heuristic"] | None = None
    """Watch, on CAGE 2, an agent that learned nothing; greedy-heuristic is told what red holds."""
    greedy: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take the most probable action. Default: draw it, as training does."""
    workflow: str | None = None
    """The order that the policy is shown. Default: the run's; of a search, the best in workflows.csv."""
    seed: int = 0
    """Seed of all randomness: another one gives another episode."""
    red_agent: str | None = None
    """CAGE 2's red agent. Default: that of the training."""
    simulator: Literal["compiled", "cyborg"] | None = None
    """What plays CAGE 2. Default: what the run trained on."""
    rules: Literal["main", "leaderboard"] | None = None
    """CAGE 2's rules, as evaluate has them. Default: those of the training."""
    env: str | None = None
    """Environment, where the run's cannot be found again: a Gymnasium id, or module:factory."""
    max_episode_steps: Annotated[int | None, tyro.conf.arg(aliases=("--steps",))] = None
    """Truncate the episode after so many steps. Default: as in training."""
    fps: float = 2.0
    """Steps shown a second."""
    paused: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Begin paused: each step waits for a key."""
    save: Path | None = None
    """Write an animated picture (.svg) to this file instead, of an episode of CAGE 2."""


def replay(arguments: Sequence[str]) -> int:
    """Show an episode as ``arguments`` say; the exit code. Raises AiotrainError."""
    chosen = tyro.cli(ReplayArguments, prog="aiotrain replay", args=arguments)
    if not (math.isfinite(chosen.fps) and chosen.fps > 0):
        raise ConfigError(f"fps must be more than 0, not {chosen.fps:g}")
    if chosen.save is not None and chosen.save.suffix != ".svg":
        raise ConfigError(f"save: {chosen.save} does not end in .svg, the only kind of picture that is written")
    from aiotrain.runs.playback import Replay

    what = {name: value for name, value in vars(chosen).items() if name not in _NOT_WHAT}
    output, signals = Output(), SignalsInterrupt()
    try:
        with signals:
            with output.status("loading") if output.is_terminal else contextlib.nullcontext():
                played = Replay(**what)
            with contextlib.closing(played):
                _show(played, chosen, output)
    except KeyboardInterrupt:
        return 128 + signals.last
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return 128 + signal.SIGHUP  # the terminal was closed, and is not that of this session
    return 0


def _show(played: Replay, chosen: ReplayArguments, output: Output) -> None:
    """Show the episode in one of the ways that there are."""
    drawn = chosen.save is None and bool(played.setting.simulator) and can_draw(output)
    if chosen.paused and not (drawn and sys.stdin is not None and sys.stdin.isatty()):
        raise ConfigError("paused: what waits for keys is an episode of CAGE 2, in a terminal")
    if chosen.save is not None:
        _save(played, chosen.save, chosen.fps)
        output.print(f"written to {printable(str(chosen.save))}", soft_wrap=True)
    elif drawn:
        from aiotrain.app.console.episode_viewer import Keys, watch

        moments = list(played.play())
        with Keys() as keys:
            watch(played.setting, moments, output, fps=chosen.fps, paused=chosen.paused, wait=keys.wait)
    else:
        _tell(played, output)


def _tell(played: Replay, output: Output) -> None:
    """Print a line for each step, once it is played."""
    from aiotrain.cage2.playback.screen import heading, plain_moment

    for moment in played.play():
        lines = [heading(played.setting, moment.scene)] if moment.step == 1 else []
        text = "\n".join([*lines, plain_moment(moment)])
        output.print(text.encode(output.encoding, "replace").decode(output.encoding), soft_wrap=True)
        if output.quiet:  # whoever reads it has gone
            break


def _save(played: Replay, path: Path, fps: float) -> None:
    """Write the episode as an animated picture. Raises ConfigError."""
    from aiotrain.app.console.svg_animation import film
    from aiotrain.cage2.playback.screen import heading, render_moment
    from aiotrain.runs.checkpoints import write_whole

    setting, (width, height) = played.setting, _FILM_SIZE
    if not setting.simulator:
        raise ConfigError(
            f"save: a picture is of CAGE 2's network; {setting.environment} is told in lines of text alone"
        )
    moments = list(played.play())
    frames = [render_moment(setting, moments[:count], width, height) for count in range(1, len(moments) + 1)]
    title = heading(setting, moments[0].scene)
    try:
        write_whole(path, film(frames, title=title, width=width, height=height, frame_s=1 / fps).encode())
    except OSError as error:
        raise ConfigError(f"save: {path} cannot be written: {error.strerror}") from error
