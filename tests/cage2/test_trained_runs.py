"""Evaluating a run on CAGE 2: by the order, the simulator and the rules that are asked for, or by its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from safetensors.numpy import load_file

import aiotrain
from aiotrain import AiotrainError, Config, ConfigError, PPOConfig, load_policy, train
from aiotrain.cage2 import CAGE2_ID, Cage2, SearchConfig, evaluate, evaluate_official
from aiotrain.cage2.official.protocol import Cell
from aiotrain.cage2.scenario import HOST_TYPES, action_index
from aiotrain.cage2.search.workflow_search import Training
from aiotrain.cage2.workflows import NAMED_ORDERS, ORDERS, order_text
from aiotrain.runs.policy_files import save_weights
from finished_runs import write_run

REVERSE = NAMED_ORDERS["reverse"]


def test_a_policy_is_shown_the_order_that_it_is_evaluated_by(tmp_path: Path) -> None:
    """With a type in the first place, it restores a host of a number of its own; that costs 1 a step."""
    run = write_run(tmp_path / "run", Cage2(red_agent="SleepAgent", workflow="reverse"), max_episode_steps=9)
    first_bit = 52 + HOST_TYPES.index("defender")

    def show(path: Path) -> None:
        policy, spec = load_policy(path)
        tensors = load_file(path)
        tensors["actor.0.weight"][action_index("Restore", "User1"), first_bit] = 100
        tensors["actor.0.bias"][action_index("Sleep")] = 50
        save_weights(path, tensors, policy.shape, spec)

    show(run / "weights.safetensors")
    for simulator in ("compiled", "cyborg"):
        mine = evaluate(run, episodes=3, simulator=simulator)
        assert mine.settings["workflow"] == order_text(REVERSE)
        assert mine.returns.tolist() == [0, 0, 0], "the order of the training begins with user"
        other = evaluate(run, episodes=3, simulator=simulator, workflow="critical_first", rules="main")
        assert other.returns.tolist() == [-9, -9, -9]
    official = evaluate_official(run, episodes=2, workflow="critical_first", rules="leaderboard")
    asleep = [each.mean_return for cell, each in official.cells.items() if cell.red_agent == "SleepAgent"]
    assert asleep == [-30, -50, -100]
    assert official.settings["workflow"] == order_text(NAMED_ORDERS["critical_first"])


def test_compact_actions_are_masked_in_evaluation(tmp_path: Path) -> None:
    """Where red sleeps, nothing has happened on any host, so that this policy may not restore any."""
    env = Cage2(workflow="none", observation="memory", actions="compact")
    run = write_run(tmp_path / "run", env, lambda output: 20.0 * (17 <= output < 25))
    official = evaluate_official(run, episodes=2)
    means = {cell: each.mean_return for cell, each in official.cells.items()}
    assert [mean for cell, mean in means.items() if cell.red_agent == "SleepAgent"] == [0, 0, 0]
    assert means[Cell(100, "B_lineAgent")] < -10, "nothing is restored where it may be"
    assert evaluate(run, episodes=2, simulator="cyborg").mean_return < -10


def test_a_run_is_evaluated_by_its_own_rules_and_at_each_of_its_checkpoints(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = Config(
        env=Cage2(red_agent="mixed", rules="leaderboard", workflow="none", actions="compact"),
        workers=1,
        total_episodes=30,
        episodes_per_update=10,
        checkpoint_every=1,
        run_dir=str(run),
        ppo=PPOConfig(hidden_sizes=(8,), learning_rate=0.05, horizons=(30, 50, 100)),
    )
    asyncio.run(asyncio.wait_for(train(config), 60))
    last = evaluate_official(run, episodes=10)
    assert last.settings["rules"] == "leaderboard"
    assert evaluate_official(run, episodes=10, rules="main").total != last.total
    checkpoints = sorted((run / "checkpoints").glob("update-*.safetensors"))
    totals = [evaluate_official(each, episodes=10).total for each in checkpoints]
    assert len(set(totals)) == 3
    assert totals[-1] == last.total
    assert evaluate(checkpoints[-1], episodes=10).returns.tolist() == evaluate(run, episodes=10).returns.tolist()
    with pytest.raises(ConfigError, match="csle-cyborg plays by the rules main only"):
        evaluate(run, simulator="cyborg")
    assert evaluate(run, episodes=2, simulator="cyborg", rules="main").settings["red_agent"] == "mixed"
    checkpoints[0].write_bytes(checkpoints[0].read_bytes()[:-1])
    with pytest.raises(AiotrainError, match="cut off"):
        evaluate(checkpoints[0])
    with pytest.raises(ConfigError, match=r"update-7|no file|there is no"):
        evaluate(run / "checkpoints" / "update-7.safetensors")


def search_run(folder: Path, trainings: list[tuple[str, float, bool]], **search: Any) -> Path:
    """A search that came to ``trainings``: order, return, and whether it complied and was learned from."""
    run = write_run(folder, Cage2(search=SearchConfig(**search)))
    for row, (order, value, good) in enumerate(trainings):
        training = Training(row, order, 0.0, 0.0, 1.0, value, 1.0, 0.9, 100, "compliance", good, good)
        with (run / "workflows.csv").open("a") as file:
            if not row:
                file.write(",".join(training._fields) + "\n")
            file.write(",".join(f'"{value}"' for value in training) + "\n")
    return run


def test_of_a_search_the_best_order_is_evaluated(tmp_path: Path) -> None:
    found = [
        (order_text(ORDERS[7]), -30.0, True),
        (order_text(ORDERS[100]), -12.0, True),
        (order_text(REVERSE), -1.0, False),
    ]
    run = search_run(tmp_path / "run", found)
    best = evaluate(run, episodes=2)
    assert best.settings["workflow"] == order_text(ORDERS[100])
    assert aiotrain.evaluate(run, episodes=2).returns.tolist() == best.returns.tolist()
    assert evaluate(run, episodes=2, workflow="reverse").settings["workflow"] == order_text(REVERSE)


def test_an_order_with_a_policy_of_its_own_is_played_by_that(tmp_path: Path) -> None:
    found = [(order_text(ORDERS[7]), -30.0, True)]
    run = search_run(tmp_path / "run", found, inherit="nearest", parallel_workflows=1)
    (run / "weights.safetensors").rename(run / f"weights-{'-'.join(ORDERS[7])}.safetensors")
    assert evaluate(run, episodes=2).settings["workflow"] == order_text(ORDERS[7])
    with pytest.raises(ConfigError, match=f"there is no file .*weights-{'-'.join(REVERSE)}.safetensors"):
        evaluate(run, workflow="reverse")


def test_a_search_that_came_to_nothing_asks_for_an_order(tmp_path: Path) -> None:
    run = search_run(tmp_path / "run", [])
    with pytest.raises(ConfigError, match=r"no training of an order has ended; name one by workflow \(--workflow\)"):
        evaluate(run)
    (run / "workflows.csv").write_text("workflow,value\nuser,1\n")
    with pytest.raises(ConfigError, match=r"workflows.csv is damaged \(KeyError"):
        evaluate(run)


def test_a_policy_of_another_environment_plays_cage2_without_a_workflow(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", lambda: gymnasium.make(CAGE2_ID, simulator="compiled"))
    assert aiotrain.evaluate(run, env=Cage2(workflow="none"), episodes=2).lengths.tolist() == [100, 100]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workflow": "reverse"}, "trained without any"),
        ({"max_episode_steps": 0}, "at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Cage2(workflow="none"))
    with pytest.raises(ConfigError, match=message):
        evaluate(run, **settings)


def test_runs_on_other_environments_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "envs:toy")
    for play in (evaluate, evaluate_official):
        with pytest.raises(ConfigError, match="another environment than aiotrain/Cage2-v0"):
            play(run)


def test_for_weights_of_an_order_their_run_and_the_order_are_asked_for(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Cage2())
    own = (run / "weights.safetensors").rename(run / f"weights-{'-'.join(REVERSE)}.safetensors")
    told = f"holds weights alone: name the folder of their run, {run}, and {order_text(REVERSE)} by workflow"
    with pytest.raises(ConfigError, match=told):
        evaluate(own)
