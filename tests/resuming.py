"""Trainings that are left half-way and resumed, and what they wrote."""

from __future__ import annotations

import asyncio
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from aiotrain import Config, PPOConfig, Result, Trainer, train

RUN = Path(__file__).parents[1] / "run.py"
WITHIN_S = 90
SMALL = PPOConfig(hidden_sizes=(8,), epochs=2, minibatch_size=64)
TIMES = ("elapsed_s", "collect_s", "learn_s", "episodes_per_s")
CHANCE = (*TIMES, "played", "discarded")
"""Columns that differ from run to run: these two by what workers had played when the run was interrupted."""


def config(folder: Path | None, env: Any = "envs:toy", **changes: Any) -> Config:
    settings: dict[str, Any] = {
        "workers": 2,
        "total_episodes": 60,
        "episodes_per_update": 10,
        "max_episode_steps": 20,  # more than Toy plays: it leaves the run nothing to warn of
        "deterministic": True,
        "checkpoint_every": 2,
        "ppo": SMALL,
        "device": "cpu",
    }
    return Config(env=env, run_dir=None if folder is None else str(folder), **(settings | changes))


def rows(folder: Path, name: str = "updates.csv") -> list[dict[str, str]]:
    """The rows of a file but for what chance decides."""
    with (folder / name).open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in CHANCE} for row in csv.DictReader(file)]


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def run(settings: Config) -> Result:
    result: Result = asyncio.run(asyncio.wait_for(train(settings), WITHIN_S))
    return result


async def _some(trainer: Trainer, updates: int | None) -> Trainer:
    async with asyncio.timeout(WITHIN_S), trainer:
        done = 0
        async for _ in trainer:
            done += 1
            assert trainer.status().adds_up
            if done == updates:
                break
    assert trainer.status().adds_up
    return trainer


def some(settings: Config, updates: int) -> Trainer:
    """Train for so many updates, and leave."""
    return asyncio.run(_some(Trainer(settings), updates))


def resume(folder: Path, updates: int | None = None, override: bool = False, **changes: Any) -> Trainer:
    return asyncio.run(_some(Trainer.resume(folder, override=override, **changes), updates))


def assert_same_in_parts(settings: dict[str, Any], whole: Path, parts: Path) -> None:
    """Train in one go and in three parts, with other numbers of workers: weights and files must be the same."""
    expected = run(config(whole, **settings))
    assert some(config(parts, **settings), 3).status().updates == 3
    assert resume(parts, 1, workers=3).status().updates == 4, "it goes on where it was"
    result = resume(parts, workers=1, envs_per_worker=4).result()
    np.testing.assert_array_equal(result.weights, expected.weights)
    assert (result.episodes, result.steps, result.updates) == (expected.episodes, expected.steps, expected.updates)
    assert rows(parts) == rows(whole)
    for path in whole.glob("weights*.safetensors"):
        np.testing.assert_equal(load_file(parts / path.name), load_file(path))


def assert_all_learned_with_lag(settings: dict[str, Any], folder: Path) -> None:
    """Interrupt and resume a run with policy lag: each episode of the budget must be learned, once."""
    settings = {**settings, "deterministic": False, "max_policy_lag": 2}
    some(config(folder, **settings), 2)
    trainer = resume(folder)
    status = trainer.status()
    assert status.phase == "finished"
    assert status.episodes_waiting == 0
    assert status.steps_finished == trainer.result().steps
    found = rows(folder)
    assert [int(row["update"]) for row in found] == list(range(1, len(found) + 1))
    assert sum(int(row["batch_episodes"]) for row in found) == status.episodes_learned
    assert max(int(row["max_policy_lag"]) for row in found) <= 2
    if "steps_per_update" not in settings:
        assert status.episodes_learned == settings.get("total_episodes", 60)
