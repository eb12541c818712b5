"""Batchers, and what a collector makes of their launches, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from aiotrain.collect.protocol import Launch, Outcome
from aiotrain.play.player import LostEpisode
from aiotrain.training.batcher import Batcher
from aiotrain.transport.slot_ring import Trajectories
from sample_data import spec_of, trajectories

SPEC = spec_of()
SEEDS = st.integers(0, 10**6)


def batcher(**changes: Any) -> Batcher:
    settings: dict[str, Any] = {
        "episodes_per_update": 4,
        "steps_per_update": None,
        "max_policy_lag": 0,
        "total_episodes": 12,
        "total_steps": None,
        "slot_steps": 10,
    }
    return Batcher(**(settings | changes))


def length_of(episode: int) -> int:
    return 1 + episode * 7 % 5


def played(episodes: list[int], version: int = 0) -> Trajectories | None:
    """The trajectories of ``episodes``, which are a function of their number alone."""
    if not episodes:
        return None
    each = [
        trajectories(SPEC, [length_of(episode)], episodes=[episode], versions=[version], seed=episode)
        for episode in episodes
    ]
    return Trajectories.join(each)


def outcome(launch: Launch, unused: tuple[int, ...] = (), lost: tuple[int, ...] = (), version: int = 0) -> Outcome:
    finished = [episode for episode in launch.episodes if episode not in unused + lost]
    return Outcome(
        launch, played(finished, version), unused, tuple(LostEpisode(episode, "it broke") for episode in lost)
    )


def launches(batcher: Batcher, at_most: int) -> list[Launch]:
    found = []
    while batcher.wanted():
        found.append(batcher.next_launch(at_most))
    return found


def adds_up(batcher: Batcher) -> bool:
    """Whether the terms of its account, each counted for itself, give its sum."""
    counts = batcher.counts
    played = counts.learned + counts.waiting + counts.discarded + counts.lost
    return counts.played == played and counts.finished == counts.learned + counts.waiting


def cut_off(episodes: Sequence[int]) -> Trajectories:
    """A first fragment of 3 steps of each episode."""
    return trajectories(SPEC, [3] * len(episodes), episodes=episodes, ended=[False] * len(episodes))
