"""The model behind bench.scaling: what it says holds up many cores, from made-up costs."""

import dataclasses

import pytest

from bench.scaling import Costs, collected, trained

PLAYED_SLOWLY = Costs(
    worker_ms=10.0,
    task_ms=0.8,
    episode_ms=0.1,
    learner_ms=0.4,
    bytes=1e5,
    bytes_per_s=1e10,
    main_pss=3e8,
    worker_pss=3e7,
    usual_task=8,
    batch=50,
    envs=1,
    lag=1,
)


def test_few_cores_are_all_used_and_each_process_takes_its_share() -> None:
    assert collected(PLAYED_SLOWLY, 2) == (pytest.approx(2000 / (10 + 0.8 / 8 + 0.1)), "cores")
    assert trained(PLAYED_SLOWLY, 2) == (pytest.approx(2000 / (10 + 0.8 / 8 + 0.1 + 0.4)), "cores")


def test_many_cores_are_held_up_by_the_one_event_loop() -> None:
    assert collected(PLAYED_SLOWLY, 512) == (pytest.approx(1000 / (0.8 / 8 + 0.1)), "event loop")


def test_tasks_for_many_workers_are_small_and_cost_the_loop_more() -> None:
    assert trained(PLAYED_SLOWLY, 64) == (pytest.approx(1000 / (0.8 + 0.1)), "event loop")


def test_a_slow_learner_holds_up_training_and_not_collecting() -> None:
    costs = dataclasses.replace(PLAYED_SLOWLY, learner_ms=5.0)
    assert trained(costs, 512) == (pytest.approx(200), "learner")
    assert collected(costs, 512) == collected(PLAYED_SLOWLY, 512)


def test_no_more_workers_play_than_an_update_has_episodes() -> None:
    costs = dataclasses.replace(PLAYED_SLOWLY, worker_ms=100.0)
    assert trained(costs, 512) == (pytest.approx(50 / 0.1), "episodes an update")
    assert trained(dataclasses.replace(costs, batch=100), 512).rate == pytest.approx(100 / 0.1)


def test_without_lag_playing_and_learning_take_turns() -> None:
    costs = dataclasses.replace(PLAYED_SLOWLY, lag=0)
    played = 10 + 0.8 / 8 + 0.1
    assert trained(costs, 2) == (pytest.approx(1000 / (played / 2 + 0.4)), "cores")
    assert trained(dataclasses.replace(costs, learner_ms=20.0), 2).bottleneck == "learner"


def test_memory_that_is_too_slow_holds_up_both() -> None:
    costs = dataclasses.replace(PLAYED_SLOWLY, bytes_per_s=1e7)
    assert collected(costs, 512) == trained(costs, 512) == (pytest.approx(100), "memory bandwidth")
