"""Replaying on CAGE 2: flags to an episode, and its ways to be watched: in a terminal, as lines of text, as a file."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import tyro

from aiotrain.app import replay_command
from aiotrain.app.console import can_draw, printable
from aiotrain.app.output import Output
from aiotrain.app.replay_command import print_lines, show_episode
from aiotrain.cage2.official.baselines import Baseline
from aiotrain.cage2.scenario import Rules, Simulator
from aiotrain.errors import ConfigError, documented

if TYPE_CHECKING:
    from aiotrain.app.console.lines import Frame
    from aiotrain.cage2.playback.episode import Cage2Playback

__all__ = ["replay"]

_FILM_SIZE: Final = (100, 32)
"""Columns and lines of a saved picture."""


@documented
@dataclasses.dataclass(frozen=True)
class Cage2ReplayArguments(replay_command.ReplayArguments):
    """Watch a policy play an episode.

    Of CAGE 2: a map of the network with what is true and what blue sees, both sides' actions and whether they succeed,
    the reward and what it is made of. Of other environments: a line for each step. So it is, too, where the output is
    no terminal. Of a run against its own red agent, it is the first episode that aiotrain evaluate plays.

    Keys: space pauses and goes on, → and Enter go a step on, ← goes back, q quits.
    """

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None  # type: ignore[assignment]
    """Folder of the run, or one of its checkpoints. Left out with --agent."""
    agent: Baseline | None = None
    """Watch, on CAGE 2, an agent that learned nothing; greedy-heuristic is told what red holds."""
    workflow: str | None = None
    """The order that the policy is shown. Default: the run's; of a search, the best in workflows.csv."""
    red_agent: str | None = None
    """CAGE 2's red agent. Default: that of the training."""
    simulator: Simulator | None = None
    """What plays CAGE 2. Default: what the run trained on."""
    rules: Rules | None = None
    """CAGE 2's rules, as evaluate has them. Default: those of the training."""
    fps: float = 2.0
    """Steps shown a second."""
    paused: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Begin paused: each step waits for a key."""
    save: Path | None = None
    """Write an animated picture (.svg) to this file instead, of an episode of CAGE 2."""


def replay(arguments: Sequence[str]) -> int:
    """Show an episode as ``arguments`` say; the exit code. Raises AiotrainError."""
    chosen = tyro.cli(Cage2ReplayArguments, prog="aiotrain replay", args=arguments)
    if not (math.isfinite(chosen.fps) and chosen.fps > 0):
        raise ConfigError(f"fps must be more than 0, not {chosen.fps:g}")
    if chosen.save is not None and chosen.save.suffix != ".svg":
        raise ConfigError(f"save: {chosen.save} does not end in .svg, the only kind of picture that is written")
    if chosen.env is not None:  # of which there is no map
        return replay_command.replay(arguments)

    def begin() -> Cage2Playback:
        from aiotrain.cage2.playback.episode import Cage2Playback

        shown = ("env", "fps", "paused", "save")
        return Cage2Playback.open(**{name: value for name, value in vars(chosen).items() if name not in shown})

    return show_episode(begin, lambda played, output: _show(played, chosen, output))


def _show(played: Cage2Playback, chosen: Cage2ReplayArguments, output: Output) -> None:
    """Show the episode in one of the ways that there are."""
    drawn = chosen.save is None and can_draw(output)
    if chosen.paused and not (drawn and sys.stdin is not None and sys.stdin.isatty()):
        raise ConfigError("paused: what waits for keys is an episode of CAGE 2, in a terminal")
    if chosen.save is not None:
        _save(played, chosen.save, chosen.fps)
        output.print(f"written to {printable(str(chosen.save))}", soft_wrap=True)
    elif drawn:
        from aiotrain.app.console.episode_viewer import Keys, watch
        from aiotrain.cage2.screen.network_map import render_step

        setting, steps = played.setting, list(played.play())

        def frame(place: int, width: int, height: int, keys: bool) -> Frame:
            return render_step(setting, steps[: place + 1], width, height, keys)

        with Keys() as keys:
            watch(frame, len(steps), output, fps=chosen.fps, paused=chosen.paused, wait=keys.wait)
    else:
        print_lines(_lines(played), output)


def _lines(played: Cage2Playback) -> Iterator[str]:
    from aiotrain.cage2.screen.network_map import heading, plain_step

    for step in played.play():
        if step.step == 1:
            yield heading(played.setting, step.scene)
        yield plain_step(step)


def _save(played: Cage2Playback, path: Path, fps: float) -> None:
    """Write the episode as an animated picture. Raises ConfigError."""
    from aiotrain.app.console.svg_animation import film
    from aiotrain.cage2.screen.network_map import heading, render_step
    from aiotrain.runs.tensor_files import write_whole

    setting, (width, height) = played.setting, _FILM_SIZE
    steps = list(played.play())
    frames = [render_step(setting, steps[:count], width, height) for count in range(1, len(steps) + 1)]
    title = heading(setting, steps[0].scene)
    try:
        write_whole(path, film(frames, title=title, width=width, height=height, frame_s=1 / fps).encode())
    except OSError as error:
        raise ConfigError(f"save: {path} cannot be written: {error.strerror}") from error
