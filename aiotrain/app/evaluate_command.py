"""Evaluating: flags to an evaluation, its tables and its file."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from aiotrain.app.console import printable
from aiotrain.app.output import Output
from aiotrain.app.signals import SignalsInterrupt
from aiotrain.errors import ConfigError

__all__ = ["evaluate"]

_NOT_HOW = ("run", "protocol", "json")  # of EvaluateArguments: the rest goes to the function that evaluates
_LOG_WIDTH = 120  # columns of tables that go to no terminal


@dataclasses.dataclass(frozen=True)
class EvaluateArguments:
    """Play episodes with the policy of a finished run: its mean return, and how sure that is.

    With --protocol cage2 as CAGE Challenge 2 was judged: 30, 50 and 100 steps against each of three red agents, by one
    agent that is not told which, beside the leaderboard's scores.
    """

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    """Folder of the run, or one of its checkpoints. Left out with --agent."""
    protocol: Literal["cage2"] | None = None
    """How to evaluate. Default: episodes of the environment that the run trained on."""
    agent: Literal["sleep", "random", "greedy-heuristic"] | None = None
    """Evaluate, with --protocol, an agent that learned nothing; greedy-heuristic is told what red holds."""
    episodes: int | None = None
    """Episodes to play. Default: 100, and with --protocol the official 1,000 in each of its nine cells."""
    greedy: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take the most probable action, as the leaderboard's winner does. Default: draw it, as training does, so that
    its returns can be compared."""
    workflow: str | None = None
    """The order that the policy is shown. Default: the run's; of a search, the best in workflows.csv."""
    seed: int = 0
    """Seed of all randomness; none repeats episodes of the training."""
    simulator: Literal["compiled", "cyborg"] | None = None
    """What plays CAGE 2. Default: with --protocol the compiled engine, else what the run trained on."""
    rules: Literal["main", "leaderboard"] | None = None
    """CAGE 2's rules: today's, or the older ones of the leaderboard, which only the compiled engine has. Default: those
    of the training; with --agent, main."""
    env: str | None = None
    """Environment, where the run's cannot be found again: a Gymnasium id, or module:factory."""
    max_episode_steps: int | None = None
    """Truncate episodes after so many steps, where some never end. Default: as in training."""
    json: Path | None = None
    """File for the numbers. Default: evaluation.json in the run's folder; of a checkpoint or an agent, none."""


def evaluate(arguments: Sequence[str]) -> int:
    """Evaluate as ``arguments`` say, show what came of it, and write it down; the exit code. Raises AiotrainError."""
    chosen = tyro.cli(EvaluateArguments, prog="aiotrain evaluate", args=arguments)
    run = chosen.run
    if chosen.protocol is None and (run is None or chosen.agent is not None):
        raise ConfigError("evaluate: name the folder of a run, or both --protocol cage2 and an --agent")
    if chosen.protocol is not None and (chosen.env is not None or chosen.max_episode_steps is not None):
        raise ConfigError("evaluate: the protocol has an env and max-episode-steps of its own; leave these out, or it")
    path = chosen.json or (run / "evaluation.json" if run is not None and run.is_dir() else None)
    if path is not None and ((path.exists() and not path.is_file()) or not os.access(path.parent, os.W_OK)):
        raise ConfigError(f"json: {path} cannot be written: name a file in a folder that can be written to")
    from rich.progress import Progress

    from aiotrain.app.console.score_tables import challenge_tables, evaluation_table
    from aiotrain.runs import evaluate as evaluation
    from aiotrain.runs.checkpoints import write_whole

    output = Output()
    if not output.is_terminal:
        output.width = _LOG_WIDTH
    how = {name: value for name, value in vars(chosen).items() if name not in _NOT_HOW and value is not None}
    signals = SignalsInterrupt()
    try:
        with signals, Progress(console=output, transient=True, disable=not output.is_terminal) as progress:
            bar = progress.add_task("playing", total=None)
            how["progress"] = lambda count, of: progress.update(bar, completed=count, total=of)
            if chosen.protocol is not None:
                challenge = evaluation.evaluate_cage2(run, **how)
                table, numbers = challenge_tables(challenge), {**challenge.settings, **challenge.summary()}
            else:
                assert run is not None
                evaluated = evaluation.evaluate(run, **how)
                table, numbers = evaluation_table(evaluated), {**evaluated.settings, **evaluated.summary()}
    except KeyboardInterrupt:
        return 128 + signals.last
    output.print(table)
    if path is not None:
        try:
            write_whole(path, json.dumps(numbers, indent=2).encode() + b"\n")
        except OSError as error:
            raise ConfigError(f"json: {path} cannot be written: {error.strerror}") from error
        output.print(f"written to {printable(str(path))}", soft_wrap=True)
    return 0
