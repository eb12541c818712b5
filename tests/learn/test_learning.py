"""The whole path learns."""

from __future__ import annotations

import asyncio

from aiotrain import Config, PPOConfig, Trainer
from envs import Obedient


def test_cartpole_is_learned() -> None:
    async def returns() -> list[float]:
        ppo = PPOConfig(learning_rate=3e-3, minibatch_size=256)
        settings = Config(
            env="CartPole-v1", workers=2, total_episodes=400, episodes_per_update=20, ppo=ppo, device="cpu"
        )
        async with Trainer(settings) as trainer:
            return [update.mean_return async for update in trainer]

    means = asyncio.run(returns())
    first, last = means[0], sum(means[-4:]) / 4
    assert last > 2 * first, f"mean return from {first:.0f} to {last:.0f}; by update: {[round(mean) for mean in means]}"


def test_masks_are_learned_with() -> None:
    """Nothing is to be seen: without masks, no policy gets more than 5, with them, 10 is possible."""

    async def returns() -> list[float]:
        ppo = PPOConfig(learning_rate=1e-2, minibatch_size=200, hidden_sizes=(8,))
        settings = Config(env=Obedient, workers=1, total_episodes=600, episodes_per_update=40, ppo=ppo, device="cpu")
        async with Trainer(settings) as trainer:
            return [update.mean_return async for update in trainer]

    means = asyncio.run(returns())
    assert means[0] < 4, "chance gives a third of 10"
    assert means[-1] > 7, f"mean return by update: {[round(mean, 1) for mean in means]}"
