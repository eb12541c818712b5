"""The official protocol: known agents score what they are known to score, and the total is as sure as it says."""

from __future__ import annotations

import io
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from aiotrain.cage2 import OfficialEvaluation, evaluate_official
from aiotrain.cage2.commands.evaluate import evaluate as command
from aiotrain.cage2.official.baselines import Baseline
from aiotrain.cage2.official.protocol import CELLS, LEADERBOARD, total_score
from aiotrain.cage2.scenario import Rules
from aiotrain.cage2.screen.official_tables import official_tables
from aiotrain.errors import ConfigError

EPISODES = 1_000
_, RANDOM, SLEEPER = LEADERBOARD[-3:]

# Mean and standard error of each of CELLS on csle-cyborg, from evaluate_official(simulator="cyborg", seed=1).
ON_CSLE_CYBORG: dict[Baseline, list[tuple[float, float]]] = {
    "sleep": [
        *((-218.59, 0.57), (-39.35, 0.61), (0, 0)),
        *((-481.03, 0.56), (-266.95, 2.21), (0, 0)),
        *((-1135.19, 0.56), (-971.06, 2.28), (0, 0)),
    ],
    "random": [
        *((-158.77, 2.40), (-33.75, 0.51), (-2.70, 0.05)),
        *((-338.98, 5.10), (-163.91, 2.86), (-4.54, 0.06)),
        *((-755.63, 11.08), (-584.56, 9.11), (-8.82, 0.09)),
    ],
}


@pytest.fixture(scope="module")
def known() -> dict[tuple[Baseline, Rules], OfficialEvaluation]:
    agents: tuple[Baseline, ...] = ("sleep", "random")
    rules: tuple[Rules, ...] = ("main", "leaderboard")
    return {
        (agent, each): evaluate_official(agent=agent, rules=each, episodes=EPISODES, seed=153)
        for agent in agents
        for each in rules
    }


def deviations(evaluation: OfficialEvaluation, theirs: list[tuple[float, float]]) -> list[float]:
    """By how many standard errors each cell differs."""
    result = []
    for cell, (mean, error) in zip(CELLS, theirs, strict=True):
        ours = evaluation.cells[cell]
        both = math.hypot(ours.standard_error, error)
        result.append((ours.mean_return - mean) / both if both else ours.mean_return - mean)
    return result


@pytest.mark.parametrize("agent", ["sleep", "random"])
def test_known_agents_score_by_main_rules_what_csle_cyborg_gives_them(agent: Baseline, known: Any) -> None:
    z = deviations(known[agent, "main"], ON_CSLE_CYBORG[agent])
    assert max(map(abs, z)) < 3, z


@pytest.mark.parametrize(("agent", "entry"), [("sleep", SLEEPER), ("random", RANDOM)])
def test_known_agents_score_by_leaderboard_rules_what_the_leaderboard_gives_them(
    agent: Baseline, entry: Any, known: Any
) -> None:
    """The leaderboard has as many episodes, so its standard errors are ours."""
    evaluation = known[agent, "leaderboard"]
    errors = [each.standard_error for each in evaluation.cells.values()]
    z = deviations(evaluation, list(zip(entry.means, errors, strict=True)))
    assert max(map(abs, z)) < 3, z
    total, half_width = evaluation.total
    assert abs(total - entry.total) < 3 / 1.96 * math.hypot(half_width, entry.half_width)
    assert half_width == pytest.approx(entry.half_width, rel=0.1)


def test_rules_differ_where_decoys_or_restores_are_used(known: Any) -> None:
    sleeping = [known["sleep", rules] for rules in ("main", "leaderboard")]
    assert sleeping[0].total == sleeping[1].total, "nothing that the rules differ in happens to a sleeper"
    greedy = [evaluate_official(agent="greedy-heuristic", rules=rules) for rules in ("main", "leaderboard")]
    assert greedy[0].cells[CELLS[6]].mean_return == pytest.approx(-52.2, abs=0.3)
    assert greedy[1].cells[CELLS[6]].mean_return == pytest.approx(-36.5, abs=3)


def test_csle_cyborg_gives_the_same_scores() -> None:
    stock = evaluate_official(agent="greedy-heuristic", simulator="cyborg", episodes=3)
    compiled = evaluate_official(agent="greedy-heuristic", episodes=1_000)
    for cell, ours in compiled.cells.items():
        error = ours.returns.std() / math.sqrt(3)
        assert abs(stock.cells[cell].mean_return - ours.mean_return) <= 5 * error, cell


def test_cells_have_no_random_numbers_in_common(known: Any) -> None:
    """Else an episode of 30 steps would be the beginning of one of 50, and the total less sure than it says."""
    cells = [each.returns for cell, each in known["random", "main"].cells.items() if cell.red_agent != "SleepAgent"]
    for first, second in itertools.combinations(cells, 2):
        assert abs(np.corrcoef(first, second)[0, 1]) < 4 / math.sqrt(EPISODES)


def test_more_episodes_begin_with_the_same(known: Any) -> None:
    fewer = evaluate_official(agent="random", episodes=7, seed=153)
    for cell, evaluation in fewer.cells.items():
        assert (evaluation.returns == known["random", "main"].cells[cell].returns[:7]).all()
        assert (evaluation.lengths == cell.steps).all()
    assert evaluate_official(agent="random", episodes=7, seed=154).total != fewer.total


def test_the_total_and_its_interval() -> None:
    assert total_score([-1.0, -2.5], [0.3, 0.4]) == (-3.5, pytest.approx(1.96 * 0.5, abs=1e-4))


def test_the_leaderboard_is_whole() -> None:
    assert len(LEADERBOARD) == 20
    assert [entry.total for entry in LEADERBOARD] == sorted((entry.total for entry in LEADERBOARD), reverse=True)
    for entry in LEADERBOARD:
        assert len(entry.means) == len(CELLS)
        if entry.team != "UTS_CIBCI":  # the repository's own scores do not add up there
            assert sum(entry.means) == pytest.approx(entry.total, abs=0.05), "the parts do not make the whole"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either a run or one of the agents sleep, random, greedy-heuristic"),
        ({"run": "somewhere", "agent": "sleep"}, "either a run or"),
        ({"run": "no/such/run"}, "there is no no/such/run: name the folder of a run"),
        ({"agent": "sleep", "greedy": True}, "greedy"),
        ({"agent": "random", "workflow": "reverse"}, "workflow means nothing to the agent random"),
        ({"agent": "greedy-heuristic", "workflow": "revers"}, "did you mean reverse"),
        (
            {"agent": "sleep", "simulator": "cyborg", "rules": "leaderboard"},
            "csle-cyborg plays by the rules main only",
        ),
        ({"agent": "sleep", "episodes": 1}, "at least 2, not 1"),
        ({"agent": "sleep", "seed": -1}, "negative"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate_official(**settings)


@pytest.mark.parametrize("rules", ["main", "leaderboard"])
def test_tables_fit_a_terminal_and_say_what_may_be_compared(rules: Rules, known: Any) -> None:
    output = Console(file=io.StringIO(), width=80)
    output.print(official_tables(known["random", rules]))
    lines = output.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(cell_len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    evaluation = known["random", rules]
    total, half_width = evaluation.total
    assert f"total {total:,.2f} ± {half_width:.2f} (95% confidence)" in text
    for each in evaluation.cells.values():
        assert f"{each.mean_return:.2f} ± {each.standard_error:.2f}" in text
    for number in ("-54.57 ±0.43", "-11.39", "-2016 ±30.93"):
        assert number in text
    assert ("--rules leaderboard" in text) == (rules == "main"), "a score by other rules is shown as if comparable"


def test_the_command_line_shows_it_and_writes_it_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "numbers.json"
    flags = ["--protocol", "cage2", "--agent", "random", "--rules", "leaderboard", "--episodes", "5"]
    assert command([*flags, "--json", str(path)]) == 0
    official = evaluate_official(agent="random", rules="leaderboard", episodes=5)
    assert json.loads(path.read_text()) == {**official.settings, **official.summary()}
    out = capsys.readouterr().out
    assert "CardiffUni" in out
    assert f"written to {path}" in out


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "name the folder of a run"),
        (["--agent", "sleep"], "both --protocol cage2 and an --agent"),
        (["--protocol", "cage2"], "either a run or one of the agents"),
        (["--protocol", "cage2", "--agent", "sleep", "--max-episode-steps", "9"], "max-episode-steps of its own"),
        (["--protocol", "cage2", "--agent", "sleep", "--episodes", "2", "--json", "/proc/x"], "/proc/x cannot be wri"),
        (["nothing"], "there is no nothing: name the folder of a run, or a checkpoint in it"),
    ],
)
def test_what_cannot_work_is_refused(flags: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        command(flags)
