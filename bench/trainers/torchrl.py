"""TorchRL: PPO on a MultiAsyncCollector, an environment and a copy of the policy in each worker process.

What each worker played is taken as it comes, until a batch is full. They play on while it is learned.
"""

from __future__ import annotations

import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.collectors import MultiAsyncCollector
from torchrl.data import LazyTensorStorage, SamplerWithoutReplacement, TensorDictReplayBuffer
from torchrl.envs import EnvBase, GymWrapper
from torchrl.modules import MLP, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from bench import trainers


def main() -> None:
    arguments, ppo = trainers.parse(), trainers.PPO
    factory = trainers.factory_for(arguments.env)

    def make_env() -> EnvBase:
        return GymWrapper(trainers.Floats(factory()), categorical_action_encoding=True, device="cpu")

    env = make_env()
    sizes = {"in_features": env.observation_spec["observation"].shape[-1], "num_cells": list(ppo.hidden_sizes)}
    actor = ProbabilisticActor(
        TensorDictModule(
            MLP(out_features=env.action_spec.space.n, activation_class=nn.Tanh, **sizes), ["observation"], ["logits"]
        ),
        in_keys=["logits"],
        distribution_class=Categorical,
        return_log_prob=True,
        spec=env.action_spec,
    )
    critic = ValueOperator(MLP(out_features=1, activation_class=nn.Tanh, **sizes), in_keys=["observation"])
    env.close()
    advantage = GAE(gamma=ppo.gamma, lmbda=ppo.gae_lambda, value_network=critic, average_gae=True)
    loss = ClipPPOLoss(
        actor,
        critic,
        clip_epsilon=ppo.clip_range,
        entropy_coeff=ppo.entropy_coef,
        critic_coeff=ppo.value_coef,
        loss_critic_type="l2",
    )
    optimizer = torch.optim.Adam(loss.parameters(), lr=ppo.learning_rate)
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(arguments.steps_per_update),
        sampler=SamplerWithoutReplacement(),
        batch_size=ppo.minibatch_size,
    )
    collector = MultiAsyncCollector(
        [make_env] * arguments.workers,
        actor,
        frames_per_batch=arguments.steps_per_update // arguments.workers,
        total_frames=-1,
        device="cpu",
    )
    steps = 0
    try:
        for played in collector:
            with torch.no_grad():
                advantage(played)
            buffer.extend(played)
            steps += len(played)
            if len(buffer) < arguments.steps_per_update // arguments.workers * arguments.workers:
                continue
            for _ in range(ppo.epochs):
                for minibatch in buffer:
                    terms = loss(minibatch)
                    (terms["loss_objective"] + terms["loss_critic"] + terms["loss_entropy"]).backward()
                    nn.utils.clip_grad_norm_(loss.parameters(), ppo.max_grad_norm)
                    optimizer.step()
                    optimizer.zero_grad()
            buffer.empty()
            collector.update_policy_weights_()
            trainers.report(steps)
    finally:
        collector.shutdown()


if __name__ == "__main__":
    main()
