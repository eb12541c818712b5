"""The whole path learns."""

from __future__ import annotations

import asyncio

from aiotrain import Config, PPOConfig, Trainer


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
