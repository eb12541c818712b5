"""The official protocol of CAGE Challenge 2, played by a run or by an agent that has learned nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiotrain.cage2.domain import Cage2
from aiotrain.cage2.official.baselines import (
    BASELINES,
    Baseline,
    baseline_order,
    play_greedily,
    sleeping,
    uniform,
)
from aiotrain.cage2.official.protocol import CELLS, EPISODES, Cell, total_score
from aiotrain.cage2.scenario import Rules, Simulator
from aiotrain.cage2.trained_runs import load_run, played_by, settings_of
from aiotrain.cage2.workflows import Order, order_text
from aiotrain.config import Config
from aiotrain.errors import ConfigError
from aiotrain.runs.evaluate import Evaluation, refuse_numbers
from aiotrain.runs.evaluation_episodes import PolicyFor, Progress, fresh_seed, play

__all__ = ["OfficialEvaluation", "evaluate_official"]


@dataclass(frozen=True)
class OfficialEvaluation:
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
        """Return the numbers of each cell and the total."""
        total, half_width = self.total
        cells = [{**cell._asdict(), **evaluation.summary()} for cell, evaluation in self.cells.items()]
        return {"cells": cells, "total": total, "total_half_width_95": half_width}


def evaluate_official(
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
) -> OfficialEvaluation:
    """Evaluate a run, or one of BASELINES, by the official protocol of CAGE Challenge 2.

    The same agent plays ``episodes``, at least 2, of 30, 50 and 100 steps against each red agent of the challenge, and
    is not told which.

    Args:
        run: The folder of a run, or a file in its folder ``checkpoints``.
        agent: One of BASELINES instead.
        episodes: How many to play in each of the nine cells.
        greedy: Take the most probable action instead of drawing one.
        workflow: The order that the policy is shown, or that the greedy heuristic follows (default: critical_first).
        seed: Seed of all randomness.
        simulator: What to play on.
        rules: "leaderboard" gave the scores in ``aiotrain.cage2.official.protocol.LEADERBOARD``; "main" are those of
            csle-cyborg, and of CybORG since. Default: the run's; of an agent, main.
        progress: Is told now and then how many episodes have been played, and of how many.

    Raises ConfigError, CheckpointError or EnvError.
    """
    refuse_numbers(episodes, seed)
    config, contender, policy_for, order = _contender(run, agent, greedy, workflow)
    config = played_by(config, None, simulator=simulator, rules=rules)
    settings = {"protocol": "cage2", **contender, "simulator": simulator, "rules": settings_of(config).rules}
    settings |= {"episodes": episodes, "seed": seed}
    cells: dict[Cell, Evaluation] = {}
    for number, cell in enumerate(CELLS):
        factory = played_by(config, cell.steps, red_agent=cell.red_agent).env_factory()
        run_seed = fresh_seed(seed, 1 + number)  # chance of its own for each, so that their errors are independent

        def told(count: int, of: int, before: int = number * episodes) -> None:
            progress(before + count, of * len(CELLS))

        if order is None:
            arrays = play(factory, policy_for, episodes, run_seed, told)
        else:
            arrays = play_greedily(factory, order, cell.steps, episodes, run_seed, told)
        cells[cell] = Evaluation({**settings, **cell._asdict()}, *arrays)
    return OfficialEvaluation(settings, cells)


def _contender(
    run: str | Path | None, agent: Baseline | None, greedy: bool, workflow: str | None
) -> tuple[Config, dict[str, Any], PolicyFor, Order | None]:
    """Return what is evaluated: what it plays, what is told of it, its policy, the order that the heuristic follows.

    Raises CheckpointError or ConfigError.
    """
    if (run is None) == (agent is None):
        raise ConfigError(f"the protocol evaluates either a run or one of the agents {', '.join(BASELINES)}")
    if run is not None:
        trained = load_run(Path(run), workflow)
        trained = trained.greedy() if greedy else trained
        shown = settings_of(trained.config).workflow
        told = {"run": str(run), "agent": None, "workflow": shown, "actions": trained.actions}
        return trained.config, told, trained.policy_for, None
    order = baseline_order(str(agent), greedy, workflow)
    told = {"run": None, "agent": agent, **({} if order is None else {"workflow": order_text(order)})}
    return Config(env=Cage2(workflow="none")), told, sleeping if agent == "sleep" else uniform, order
