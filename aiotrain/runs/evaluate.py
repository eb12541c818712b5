"""Playing episodes with a finished policy, to see what it is worth.

    evaluation = aiotrain.evaluate("runs/NAME", episodes=1_000)
    print(evaluation.mean_return, evaluation.standard_error)

It takes the caller's process and thread: in an event loop, leave it to ``asyncio.to_thread``. Its episodes are none
that the run trained on, whatever the seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from aiotrain.cage2.domain import Cage2
from aiotrain.cage2.official.baselines import GREEDY_ORDER
from aiotrain.cage2.official.protocol import CELLS, EPISODES, Cell, total_score
from aiotrain.cage2.registration import CAGE2_ID
from aiotrain.cage2.workflows import order_text
from aiotrain.config import Config
from aiotrain.errors import ConfigError
from aiotrain.runs.evaluation_episodes import (
    Evaluation,
    PolicyFor,
    Progress,
    fresh_seed,
    play,
    play_greedily,
    sleeping,
    uniform,
)
from aiotrain.runs.load import load_run, order_of

__all__ = [
    "BASELINES",
    "Baseline",
    "ChallengeEvaluation",
    "Evaluation",
    "Rules",
    "Simulator",
    "evaluate",
    "evaluate_cage2",
]

Simulator = Literal["compiled", "cyborg"]
Rules = Literal["main", "leaderboard"]
Baseline = Literal["sleep", "random", "greedy-heuristic"]
BASELINES: Final[tuple[Baseline, ...]] = ("sleep", "random", "greedy-heuristic")
"""Agents of CAGE 2 that have learned nothing."""


@dataclass(frozen=True)
class ChallengeEvaluation:
    """What came of the official protocol of CAGE Challenge 2."""

    settings: Mapping[str, Any]
    """What was evaluated and how, as plain values."""
    cells: Mapping[Cell, Evaluation]
    """The evaluation of each of ``aiotrain.cage2.official.protocol.CELLS``."""

    @property
    def total(self) -> tuple[float, float]:
        """The sum of the nine mean returns, and the half width of its 95% confidence interval."""
        evaluations = self.cells.values()
        return total_score([each.mean_return for each in evaluations], [each.standard_error for each in evaluations])

    def summary(self) -> dict[str, Any]:
        """The numbers of each cell and the total."""
        total, half_width = self.total
        cells = [{**cell._asdict(), **evaluation.summary()} for cell, evaluation in self.cells.items()]
        return {"cells": cells, "total": total, "total_half_width_95": half_width}


def evaluate(
    run: str | Path,
    *,
    episodes: int = 100,
    greedy: bool = False,
    workflow: str | None = None,
    seed: int = 0,
    env: str | Callable[..., Any] | None = None,
    max_episode_steps: int | None = None,
    simulator: Simulator | None = None,
    rules: Rules | None = None,
    progress: Progress = lambda count, of: None,
) -> Evaluation:
    """Play ``episodes``, at least 2, with the policy of the finished run in the folder ``run``, or of a checkpoint.

    The environment is made as the run's config.json says, unless ``env`` (as of Config) and ``max_episode_steps`` say
    otherwise; where it or its red_agent is a module:name, that module is imported, so let nobody else's run name it.
    ``greedy``: take the most probable action, or the Gaussian's mean, instead of drawing one. For CAGE 2, ``workflow``
    is the order that the policy is shown (default: that of the run, of a search the best in workflows.csv),
    ``simulator`` the one to play on, and ``rules`` those to play by (default: the run's). ``seed``: of all randomness.

    Raises ConfigError, EnvError or InvalidStepError.
    """
    _refuse(episodes, seed)
    trained = load_run(Path(run), workflow, env)
    if greedy:
        trained = trained.greedy()
    config = trained.config
    is_cage2 = isinstance(config.env, Cage2)
    if not is_cage2 and (simulator is not None or rules is not None):
        raise ConfigError(f"simulator and rules are for {CAGE2_ID}, but {run} was trained on another environment")
    if isinstance(config.env, Cage2):
        asked: dict[str, Any] = {
            name: value for name, value in {"simulator": simulator, "rules": rules}.items() if value is not None
        }
        config = dataclasses.replace(config, env=dataclasses.replace(config.env, **asked))
    if max_episode_steps is not None:
        config = dataclasses.replace(config, max_episode_steps=max_episode_steps)
    factory = config.env_factory()
    settings: dict[str, Any] = {"run": str(run), "environment": factory.name}
    if isinstance(config.env, Cage2):
        settings |= {name: getattr(config.env, name) for name in ("red_agent", "simulator", "rules", "workflow")}
    settings |= {"actions": trained.actions, "episodes": episodes, "seed": seed}
    return Evaluation(settings, *play(factory, trained.policy_for, episodes, fresh_seed(seed, 0), progress))


def evaluate_cage2(
    run: str | Path | None = None,
    *,
    agent: Baseline | None = None,
    episodes: int = EPISODES,
    greedy: bool = False,
    workflow: str | None = None,
    seed: int = 0,
    simulator: Simulator = "compiled",
    rules: Rules | None = None,
    progress: Progress = lambda count, of: None,
) -> ChallengeEvaluation:
    """Evaluate a run, or one of BASELINES, by the official protocol of CAGE Challenge 2.

    The same agent plays ``episodes``, at least 2, of 30, 50 and 100 steps against each red agent of the challenge, and
    is not told which. The ``rules`` "leaderboard" gave the scores in ``aiotrain.cage2.official.protocol.LEADERBOARD``;
    "main" are those of csle-cyborg, and of CybORG since (default: the run's; of an agent, main). The greedy heuristic
    follows a ``workflow`` too (default: critical_first). All else is as for `evaluate`.
    """
    _refuse(episodes, seed)
    if (run is None) == (agent is None):
        raise ConfigError(f"the protocol evaluates either a run or one of the agents {', '.join(BASELINES)}")
    if agent is not None and agent not in BASELINES:
        raise ConfigError(f"there is no agent {agent}; choose from {', '.join(BASELINES)}")
    if agent is not None and greedy:
        raise ConfigError(f"greedy is a way of acting by a trained policy, which the agent {agent} has not")
    if agent in ("sleep", "random") and workflow is not None:
        raise ConfigError(f"workflow means nothing to the agent {agent}")
    settings: dict[str, Any] = {"protocol": "cage2", "run": None, "agent": agent}
    trained = None
    policy_for: PolicyFor = sleeping if agent == "sleep" else uniform
    if run is not None:
        trained = load_run(Path(run), workflow)
        if greedy:
            trained = trained.greedy()
        if not isinstance(trained.config.env, Cage2):
            raise ConfigError(f"{run} was trained on another environment than {CAGE2_ID}, which the protocol plays")
        policy_for = trained.policy_for
        settings |= {"run": str(run), "workflow": trained.config.env.workflow, "actions": trained.actions}
    elif agent == "greedy-heuristic":
        settings["workflow"] = order_text(order_of(workflow or GREEDY_ORDER))
    base = Config(env=Cage2(workflow="none")) if trained is None else trained.config
    assert isinstance(base.env, Cage2)
    rules = rules or base.env.rules
    settings |= {"simulator": simulator, "rules": rules, "episodes": episodes, "seed": seed}
    fixed: dict[str, Any] = {"simulator": simulator, "rules": rules, "red_shares": Cage2.red_shares}
    cells: dict[Cell, Evaluation] = {}
    for number, cell in enumerate(CELLS):
        env = dataclasses.replace(base.env, **fixed, red_agent=cell.red_agent)
        factory = dataclasses.replace(base, env=env, max_episode_steps=cell.steps).env_factory()
        run_seed = fresh_seed(seed, 1 + number)  # chance of its own for each, so that their errors are independent

        def told(count: int, of: int, before: int = number * episodes) -> None:
            progress(before + count, of * len(CELLS))

        if agent == "greedy-heuristic":
            arrays = play_greedily(factory, order_of(settings["workflow"]), cell.steps, episodes, run_seed, told)
        else:
            arrays = play(factory, policy_for, episodes, run_seed, told)
        cells[cell] = Evaluation({**settings, **cell._asdict()}, *arrays)
    return ChallengeEvaluation(settings, cells)


def _refuse(episodes: int, seed: int) -> None:
    """Raise ConfigError for numbers that cannot be."""
    if episodes < 2:
        raise ConfigError(f"episodes must be at least 2, not {episodes}: one alone has no standard error")
    if seed < 0:
        raise ConfigError(f"seed cannot be negative ({seed})")
