"""What is made of a finished run on CAGE 2: it is loaded with an order to show, evaluated and exported.

    evaluation = aiotrain.cage2.evaluate("runs/NAME", workflow="critical_first")

Without the arguments that only CAGE 2 has, `aiotrain.evaluate` and `aiotrain.export` do the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from aiotrain.cage2.domain import Cage2
from aiotrain.cage2.registration import CAGE2_ID
from aiotrain.cage2.scenario import Rules, Simulator
from aiotrain.cage2.search.best_order import with_order
from aiotrain.config import Config
from aiotrain.errors import ConfigError
from aiotrain.runs.evaluate import Evaluation, evaluate_policy, refuse_numbers
from aiotrain.runs.evaluation_episodes import Progress
from aiotrain.runs.export.export import Format, export_policy
from aiotrain.runs.load_run import Trained, find_run

__all__ = ["evaluate", "export", "load_run", "played_by", "settings_of"]

_TOLD: Final = ("red_agent", "simulator", "rules", "workflow")
"""Settings that an evaluation tells."""


def load_run(run: Path, workflow: str | None = None) -> Trained:
    """Load the policy of a run on CAGE 2, or of a checkpoint, with the order that it is shown.

    ``workflow`` is as of `with_order`. Raises CheckpointError or ConfigError.
    """
    if run.is_file() and run.name.startswith("weights-"):
        order = run.stem.partition("-")[2].replace("-", ",")
        raise ConfigError(
            f"{run} holds weights alone: name the folder of their run, {run.parent}, and {order} by workflow "
            "(--workflow)"
        )
    found = find_run(run)
    if not isinstance(found.config.env, Cage2):
        raise ConfigError(f"{run} was trained on another environment than {CAGE2_ID}")
    settings, weights = with_order(found.config.env, found.folder, workflow)
    return found.load(dataclasses.replace(found.config, env=settings), weights)


def settings_of(config: Config) -> Cage2:
    """Return the settings of CAGE 2. Raises ConfigError if another environment is played."""
    if not isinstance(config.env, Cage2):
        raise ConfigError(f"{config.env} is played, and not {CAGE2_ID}")
    return config.env


def played_by(config: Config, max_episode_steps: int | None, **asked: str | None) -> Config:
    """Return ``config`` with other settings of Cage2, ``asked``, and another limit; None: as they are.

    Raises ConfigError.
    """
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if "red_agent" in given:
        given["red_shares"] = Cage2.red_shares
    env = dataclasses.replace(settings_of(config), **given) if given else config.env
    limit = config.max_episode_steps if max_episode_steps is None else max_episode_steps
    return dataclasses.replace(config, env=env, max_episode_steps=limit)


def evaluate(
    run: str | Path,
    *,
    episodes: int = 100,
    greedy: bool = False,
    workflow: str | None = None,
    seed: int = 0,
    max_episode_steps: int | None = None,
    simulator: Simulator | None = None,
    rules: Rules | None = None,
    progress: Progress = lambda count, of: None,
) -> Evaluation:
    """Play ``episodes``, at least 2, of CAGE 2 with the policy of a finished run, or of a checkpoint.

    Args:
        run: As of `aiotrain.evaluate`, as are all arguments that are not told here.
        workflow: The order that the policy is shown. Default: that of the run; of a search, the best in workflows.csv.
        simulator: What to play on. Default: as in training.
        rules: What to play by. Default: as in training.

    Raises ConfigError, CheckpointError, EnvError or InvalidStepError.
    """
    refuse_numbers(episodes, seed)
    trained = load_run(Path(run), workflow)
    config = played_by(trained.config, max_episode_steps, simulator=simulator, rules=rules)
    trained = dataclasses.replace(trained.greedy() if greedy else trained, config=config)
    about = {name: getattr(config.env, name) for name in _TOLD}
    return evaluate_policy(trained, episodes=episodes, seed=seed, progress=progress, about=about)


def export(
    run: str | Path,
    folder: str | Path | None = None,
    *,
    formats: Sequence[Format] | None = None,
    greedy: bool = False,
    workflow: str | None = None,
) -> list[Path]:
    """Write the policy of a run on CAGE 2 to files, and return their paths. agent.py is an agent for the challenge.

    Arguments and errors are those of `aiotrain.export`; ``workflow`` is the order that the agent acts by (default: that
    of the run; of a search, the best in workflows.csv).
    """
    return export_policy(load_run(Path(run), workflow), folder, formats=formats, greedy=greedy)
