"""Numbers that an environment tells in info, and a bonus apart from the reward: from the step to every report."""

from __future__ import annotations

import csv
import functools
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_runs import config, run, updates_of

from aiotrain import Config, ConfigError, InvalidStepError, MetricSummary, Trainer, Update, train
from aiotrain.play.player import episode_streams
from aiotrain.training.reports import GROUPS, columns_of
from collector_harness import COLLECTORS, Play, assert_same_play
from envs import Telling, Toy, told_by

LIMIT = 20  # steps, more than Toy plays: some collectors need a limit
TOLD: tuple[dict[str, Any], ...] = (
    {"success": True, "score": 3},
    {"success": np.bool_(False), "score": np.float32(0.5)},
    {"success": False},
    {"score": np.int64(-2), "success": None},
    {"score": math.nan},
)
"""Every kind of number, and every way to tell none."""


def telling(*told: dict[str, Any], metrics: tuple[str, ...] = ("success", "score"), **changes: Any) -> Config:
    env = functools.partial(Telling, *told)
    return config(env, **{"metrics": metrics, "max_episode_steps": LIMIT, "max_policy_lag": 0} | changes)


def expected(name: str, episodes: range) -> MetricSummary | None:
    """Return the summary of a metric in ``TOLD`` over ``episodes`` of the run with seed 0."""
    told = [told_by(TOLD, episode_streams(0, episode)[0]).get(name) for episode in episodes]
    numbers = [float(value) for value in told if value is not None and not math.isnan(value)]
    return MetricSummary(float(np.mean(numbers)), len(numbers)) if numbers else None


@pytest.mark.parametrize("collector", COLLECTORS)
@pytest.mark.usefixtures("one_ray")
@pytest.mark.asyncio
async def test_the_same_headers_and_bonuses_whoever_plays(collector: str) -> None:
    async def played(by: str) -> Any:
        settings = {"metrics": ("success", "score"), "max_episode_steps": LIMIT}
        async with Play(functools.partial(Telling, *TOLD), by, workers=2, envs=2, **settings) as one:
            await one.open()
            return await one.play(10)

    got = await played(collector)
    assert_same_play(got, await played("sequential"))
    assert (got.bonuses == 0.25).all()
    np.testing.assert_array_equal(got.headers["episode_bonus"], 0.25 * got.headers["episode_steps"])
    for name in ("success", "score"):
        told = [told_by(TOLD, int(seed)).get(name) for seed in got.headers["seed"]]
        np.testing.assert_array_equal(got.headers[name], [math.nan if each is None else each for each in told])


@pytest.mark.parametrize("collector", ["shared_memory", "sequential", "synchronous"])
def test_updates_tell_mean_and_count_of_the_episodes_that_told_a_metric(collector: str) -> None:
    updates, _ = run(updates_of(telling(*TOLD, collector=collector)))
    for number, update in enumerate(updates):
        episodes = range(10 * number, 10 * number + 10)
        assert dict(update.metrics) == {name: expected(name, episodes) for name in ("success", "score")}


def test_a_metric_that_no_episode_told_is_absent() -> None:
    updates, _ = run(updates_of(telling({"success": True})))
    assert [dict(update.metrics) for update in updates] == [{"success": MetricSummary(1.0, 10)}] * 3


@pytest.mark.parametrize("collector", ["shared_memory", "executor"])
@pytest.mark.parametrize(
    ("told", "words"),
    [("often", "success = 'often'"), (math.inf, "success = inf"), (np.ones(1), r"success = array\(\[1\.\]\)")],
    ids=str,
)
def test_what_is_no_finite_number_is_refused_by_name(told: Any, words: str, collector: str) -> None:
    with pytest.raises(InvalidStepError, match=rf"{words} in info, where a finite number belongs") as caught:
        run(train(telling({"success": told}, collector=collector)))
    error = caught.value
    assert error.episode is not None
    assert error.seed == episode_streams(0, error.episode)[0]
    assert error.worker in (0, 1)
    assert 3 <= (error.step or 0) <= 12, "a metric is told in the last step"
    for part in (f"worker {error.worker}", f"episode {error.episode}", f"seed {error.seed}", f"step {error.step}"):
        assert part in str(error)


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (("not a name",), "'not a name' is no name; use letters, digits and underscores"),
        (("episode_return",), "episode_return is a field of every episode already; rename it"),
        (("success", "success"), "success is named twice; leave one out"),
        (("episodes",), "episodes needs a column episodes, which updates.csv has already"),
        (("success", "success_count"), "success_count needs a column success_count, which updates.csv has already"),
        (("success_count", "success"), "success needs a column success_count"),
        (("curriculum",), "curriculum needs a column curriculum"),
        (("best",), "best needs the name best, which the log or an evaluation gives to another number; rename it"),
    ],
    ids=str,
)
def test_names_that_cannot_be_are_refused_before_anything_starts(metrics: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Trainer(telling(metrics=metrics))
    assert str(caught.value).startswith(f"metrics: {words}")


def test_columns_of_metrics_come_last() -> None:
    assert list(columns_of(("success",))) == [*GROUPS, "success", "success_count"]


@pytest.mark.parametrize("collector", ["shared_memory", "sequential", "process_per_episode"])
def test_numbers_that_nobody_named_are_told_once_in_a_run_with_the_flag(collector: str) -> None:
    told = {"success": True, "score": 2.5, "name": "level 3", "two words": 1, "seed": 4}

    async def warnings() -> list[str]:
        async with Trainer(telling(told, metrics=("success",), collector=collector)) as trainer:
            async for _ in trainer:
                pass
        return [each for each in trainer.status().warnings if "--metrics" in each]

    (warning,) = run(warnings())
    assert "the environment tells score at the end of an episode" in warning, warning
    assert "--metrics score" in warning, "what cannot be a metric is suggested as one"


class _Rewarding(Toy):
    """Rewards an action, and gives a bonus for it."""

    def __init__(self, reward: float, bonus: Any) -> None:
        super().__init__()
        self.paid = (reward, bonus)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, _, *over, info = super().step(action)
        return observation, self.paid[0] * action, *over, info | {"bonus": self.paid[1] * action}  # type: ignore[return-value]


def test_reward_and_bonus_are_told_apart_and_learned_together() -> None:
    def rewarding(reward: float, bonus: float) -> Any:
        return run(updates_of(config(functools.partial(_Rewarding, reward, bonus), max_policy_lag=0)))

    (apart, result), (together, result_together) = rewarding(0.5, 0.25), rewarding(0.75, 0.0)
    np.testing.assert_array_equal(result.weights, result_together.weights)
    for told, whole in zip(apart, together, strict=True):
        assert told.mean_return == pytest.approx(2 * told.mean_bonus)
        assert told.mean_return + told.mean_bonus == pytest.approx(whole.mean_return)
        assert whole.mean_bonus == 0


@pytest.mark.parametrize("bonus", [math.nan, math.inf], ids=str)
def test_a_bonus_is_a_finite_number(bonus: float) -> None:
    with pytest.raises(InvalidStepError, match=r"step \d+: the environment returned a bonus of (nan|inf)"):
        run(train(config(functools.partial(_Rewarding, 0.5, bonus))))


class _Paying(Toy):
    """Gives the same bonus in each step."""

    def __init__(self, bonus: Any) -> None:
        super().__init__()
        self.bonus = bonus

    def step(self, action: Any) -> Any:
        *step, info = super().step(action)
        return *step, info | {"bonus": self.bonus}


@pytest.mark.parametrize("bonus", ["high", {}, 1j, [1.0]], ids=repr)
def test_a_bonus_is_a_number(bonus: Any) -> None:
    with pytest.raises(InvalidStepError, match="the environment returned a bonus of"):
        run(train(config(functools.partial(_Paying, bonus))))


@pytest.mark.parametrize("bonus", [np.int8(100), np.uint8(200), np.float16(20_000)], ids=repr)
def test_bonuses_of_narrow_types_are_added_up_without_overflow(bonus: Any) -> None:
    updates, _ = run(updates_of(config(functools.partial(_Paying, bonus))))
    for update in updates:
        assert update.mean_bonus == pytest.approx(float(bonus) * update.mean_length)


def test_keys_of_info_that_are_no_names_are_left_alone() -> None:
    class Keyed(Toy):
        def step(self, action: Any) -> Any:
            *step, info = super().step(action)
            return *step, {**info, 0: 1.0, ("two",): 2.0}

    _, result = run(updates_of(config(Keyed)))
    assert result.lost == 0


@pytest.mark.parametrize("told", [10**400, np.timedelta64(3, "s")], ids=repr)
def test_a_metric_beyond_all_floats_is_refused(told: Any) -> None:
    with pytest.raises(InvalidStepError, match="where a finite number belongs"):
        run(train(telling({"success": told})))


def test_a_metric_without_a_value_leaves_a_cell_empty(tmp_path: Path) -> None:
    updates, _ = run(updates_of(telling(*TOLD[:2], metrics=("success", "depth"), run_dir=str(tmp_path / "run"))))
    with (tmp_path / "run" / "updates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*columns_of(("success", "depth")), "curriculum"]
    for row, update in zip(rows, updates, strict=True):
        assert float(row["success"]) == pytest.approx(update.metrics["success"].mean, rel=1e-5)
        assert (row["success_count"], row["depth"], row["depth_count"]) == ("10", "", "0")


def test_tensorboard_has_a_group_of_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def add_scalar(self, *scalar: Any) -> None:
            told.append(scalar)  # type: ignore[arg-type]

        def close(self) -> None: ...

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    settings = telling({"success": True}, run_dir=str(tmp_path / "run"), tensorboard=True, total_episodes=10)
    updates: list[Update] = run(updates_of(settings))[0]
    values = {tag: value for tag, value, episodes in told}
    assert {episodes for *_, episodes in told} == {10}
    assert values["metrics/success"] == 1.0
    assert values["metrics/success_count"] == 10
    assert values["return/mean_bonus"] == updates[0].mean_bonus > 0
    assert "metrics/score" not in values, "a metric that no episode told has a scalar"
