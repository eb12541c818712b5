"""Evaluating on CAGE 2: flags to an evaluation, or to the official protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from aiotrain.app import evaluate_command
from aiotrain.cage2.official.baselines import Baseline
from aiotrain.cage2.scenario import Rules, Simulator
from aiotrain.errors import ConfigError, documented

if TYPE_CHECKING:
    from rich.console import RenderableType

    from aiotrain.runs.evaluation_episodes import Progress

__all__ = ["evaluate"]

_NOT_HOW = ("run", "protocol", "json")  # of the flags: the rest goes to the function that evaluates


@documented
@dataclasses.dataclass(frozen=True)
class Cage2EvaluateArguments(evaluate_command.EvaluateArguments):
    """Play episodes with the policy of a finished run: its mean return, and how sure that is.

    With --protocol cage2 as CAGE Challenge 2 was judged: 30, 50 and 100 steps against each of three red agents, by one
    agent that is not told which, beside the leaderboard's scores.
    """

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None  # type: ignore[assignment]
    """Folder of the run, or one of its checkpoints. Left out with --agent."""
    protocol: Literal["cage2"] | None = None
    """How to evaluate. Default: episodes of the environment that the run trained on."""
    agent: Baseline | None = None
    """Evaluate, with --protocol, an agent that learned nothing; greedy-heuristic is told what red holds."""
    episodes: int | None = None  # type: ignore[assignment]
    """Episodes to play. Default: 100, and with --protocol the official 1,000 in each of its nine cells."""
    greedy: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take the most probable action, as the leaderboard's winner does. Default: draw it, as training does, so that
    its returns can be compared."""
    workflow: str | None = None
    """The order that the policy is shown. Default: the run's; of a search, the best in workflows.csv."""
    simulator: Simulator | None = None
    """What plays CAGE 2. Default: with --protocol the compiled engine, else what the run trained on."""
    rules: Rules | None = None
    """CAGE 2's rules: today's, or the older ones of the leaderboard, which only the compiled engine has. Default: those
    of the training; with --agent, main."""


def evaluate(arguments: Sequence[str]) -> int:
    """Evaluate as ``arguments`` say, show what came of it, and write it down; the exit code. Raises AiotrainError."""
    chosen = tyro.cli(Cage2EvaluateArguments, prog="aiotrain evaluate", args=arguments)
    if chosen.protocol is None and (chosen.run is None or chosen.agent is not None):
        raise ConfigError("evaluate: name the folder of a run, or both --protocol cage2 and an --agent")
    if chosen.protocol is not None and (chosen.env is not None or chosen.max_episode_steps is not None):
        raise ConfigError("evaluate: the protocol has an env and max-episode-steps of its own; leave these out, or it")
    if chosen.env is not None:  # where nothing is known of CAGE 2's settings
        return evaluate_command.evaluate(arguments)
    how = {name: value for name, value in vars(chosen).items() if name not in _NOT_HOW and value is not None}

    def play(progress: Progress) -> tuple[RenderableType, Mapping[str, Any]]:
        from aiotrain.app.console.score_tables import evaluation_table
        from aiotrain.cage2 import trained_runs
        from aiotrain.cage2.official.evaluation import evaluate_official
        from aiotrain.cage2.screen.official_tables import official_tables

        if chosen.run is None or chosen.protocol is not None:
            official = evaluate_official(chosen.run, **how, progress=progress)
            return official_tables(official), {**official.settings, **official.summary()}
        evaluation = trained_runs.evaluate(chosen.run, **how, progress=progress)
        return evaluation_table(evaluation), {**evaluation.settings, **evaluation.summary()}

    return evaluate_command.show_evaluation(play, chosen.run, chosen.json)
