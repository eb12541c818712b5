"""A curriculum of your own: the difficulty grows with success.

python examples/curriculum.py
aiotrain --env examples.curriculum:Corridor --curriculum examples.curriculum:Further --metrics success --workers 2
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from aiotrain import Config, Curriculum, PPOConfig, RunServices, Trainer

FURTHEST = 20


class Corridor(gymnasium.Env[np.ndarray, int]):
    """Walk to cell 0 of a slippery corridor within 60 steps. The reward comes at the end only.

    The reset option ``start`` says in which cell the walk begins. Whoever walks at random from afar seldom arrives, and
    learns little.
    """

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.max_steps = 60

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin in the cell ``start``."""
        super().reset(seed=seed)
        self.cell = (options or {}).get("start", FURTHEST)
        self.steps = 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Go towards cell 0 (action 0) or away from it; in one step of ten it is the other way."""
        forward = (action == 0) != (self.np_random.random() < 0.1)
        self.cell = min(FURTHEST, self.cell + (-1 if forward else 1))
        self.steps += 1
        arrived, late = self.cell == 0, self.steps == self.max_steps
        info = {"success": arrived} if arrived or late else {}  # told at the end of an episode: a metric
        return self._observation(), float(arrived), arrived, late, info

    def _observation(self) -> np.ndarray:
        return np.array([self.cell / FURTHEST], np.float32)


class Further(Curriculum):
    """Begins near the end, and one cell further away after each batch in which nine of ten walks arrived."""

    def __init__(self, run: RunServices) -> None:
        super().__init__(run)
        self.start = 2

    def plan(self, batch: int) -> Sequence[Mapping[str, Any]]:
        """Reset all episodes of a batch alike. Two mappings would halve it."""
        return [{"start": self.start}]

    def label(self, batch: int) -> str:
        """Name the batch in updates.csv."""
        return f"from {self.start}"

    def learned(self, batch: int, episodes: np.ndarray, parts: np.ndarray) -> None:
        """Look at the episodes that the learner has just learned from."""
        if episodes["success"].mean() >= 0.9:
            self.start = min(self.start + 1, FURTHEST)

    def status(self) -> int:
        """Tell whoever asks the trainer."""
        return self.start

    def state_dict(self) -> dict[str, Any]:
        """Save what decides the next plan: a resumed run goes on from there."""
        return {"start": self.start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it."""
        self.start = int(state["start"])


async def main() -> None:
    """Train, and tell how far away walks begin."""
    config = Config(
        env=Corridor,
        curriculum=Further,
        metrics=("success",),
        workers=2,
        total_episodes=1_000,
        episodes_per_update=20,
        max_policy_lag=0,  # each batch is planned when the one before is learned
        ppo=PPOConfig(hidden_sizes=(16,), minibatch_size=256),
    )
    async with Trainer(config) as trainer:
        async for update in trainer:
            if update.update % 10 == 0:
                start, success = trainer.status().curriculum, update.metrics["success"].mean
                print(f"{update.episodes:5.0f} episodes: walks begin in cell {start:2d}, {success:4.0%} arrive")


if __name__ == "__main__":
    asyncio.run(main())
