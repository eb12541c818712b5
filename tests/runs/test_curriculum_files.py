"""What a curriculum writes into the folder of a run, and what a resume makes of it."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aiotrain import Config, Curriculum, PPOConfig, Trainer, train
from aiotrain.errors import AiotrainError
from envs import Toy


class Noting(Curriculum):
    """Writes a row at the end of the run, after the last checkpoint."""

    def end(self, reason: str) -> None:
        self.run.row("ends.csv", {"reason": reason, "batch": 1})


def config(folder: Path, curriculum: type[Curriculum], **changes: Any) -> Config:
    settings: dict[str, Any] = {"total_episodes": 10, "episodes_per_update": 10, "ppo": PPOConfig(hidden_sizes=(8,))}
    return Config(
        env=Toy, curriculum=curriculum, workers=1, collector="sequential", run_dir=str(folder), **(settings | changes)
    )


def writing(*rows: tuple[str, Mapping[str, Any]]) -> type[Curriculum]:
    class Writing(Curriculum):
        def end(self, reason: str) -> None:
            for name, values in rows:
                self.run.row(name, values)

    return Writing


def test_rows_that_were_written_after_the_checkpoint_do_not_stay_when_the_run_goes_on(tmp_path: Path) -> None:
    """The end of a run writes after its last checkpoint, which a resumed run goes on from."""
    folder = tmp_path / "run"
    asyncio.run(train(config(folder, Noting)))

    async def go_on() -> None:
        async with Trainer.resume(folder, total_episodes=20, env=Toy, curriculum=Noting) as trainer:
            async for _ in trainer:
                pass

    asyncio.run(go_on())
    assert list(csv.reader((folder / "ends.csv").read_text().splitlines())) == [["reason", "batch"], ["budget", "1"]]


def test_values_go_to_the_columns_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    rows = [("a.csv", {"n": 1, "b": 0}), ("a.csv", {"b": 3, "n": 2})]
    asyncio.run(train(config(folder, writing(*rows))))
    assert list(csv.DictReader((folder / "a.csv").read_text().splitlines())) == [
        {"n": "1", "b": "0"},
        {"n": "2", "b": "3"},
    ]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a.csv", {"n": 1}), ("a.csv", {"m": 1})], "a row of a.csv has the columns n, not m"),
        ([("updates.csv", {"n": 1})], "is no file for rows of a curriculum"),
        ([("a", {"n": 1})], "is no file for rows of a curriculum"),
        ([("../a.csv", {"n": 1})], "is no name of a file in the folder"),
        ([("", {"n": 1})], "is no"),
    ],
)
def test_rows_that_cannot_be_written_are_refused(
    rows: list[tuple[str, Mapping[str, Any]]], words: str, tmp_path: Path
) -> None:
    with pytest.raises((AiotrainError, ValueError), match=words):
        asyncio.run(train(config(tmp_path / "run", writing(*rows))))
    assert (tmp_path / "run" / "weights.safetensors").exists(), "what was learned is saved all the same"


@pytest.mark.parametrize("name", ["config.json", "updates.csv", "checkpoints", "", "a/b.safetensors"])
def test_policies_go_to_files_of_their_own(name: str, tmp_path: Path) -> None:
    class Saving(Curriculum):
        def end(self, reason: str) -> None:
            self.run.save_policy(name)

    with pytest.raises((AiotrainError, ValueError), match="is no"):
        asyncio.run(train(dataclasses.replace(config(tmp_path / "run", Saving))))
