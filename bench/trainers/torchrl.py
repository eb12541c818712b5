"""TorchRL: PPO on a MultiAsyncCollector, environments and a copy of the policy in each worker process.

What the workers played is taken as it comes, until there are as many parts as workers. They play on while it is
learned.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.collectors import MultiAsyncCollector
from torchrl.envs import EnvBase, GymWrapper
from torchrl.modules import MLP, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from bench import trainers
from bench.tools.runs import factory_of


def main() -> None:
    arguments, ppo = trainers.parse(), trainers.PPO
    factory = factory_of(arguments.env)

    def make_env() -> EnvBase:
        one = partial(trainers.make_env, factory)
        env = one()
        if arguments.envs_per_worker > 1:
            env = SyncVectorEnv([one] * arguments.envs_per_worker, autoreset_mode=AutoresetMode.DISABLED)
        return GymWrapper(env, categorical_action_encoding=True, device="cpu")

    inputs, outputs = trainers.sizes(factory)
    hidden = {"num_cells": list(ppo.hidden_sizes), "activation_class": nn.Tanh}
    actor = ProbabilisticActor(
        TensorDictModule(MLP(inputs, outputs, **hidden), ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=Categorical,
        return_log_prob=True,
    )
    critic = ValueOperator(MLP(inputs, 1, **hidden), in_keys=["observation"])
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
    collector = MultiAsyncCollector(
        [make_env] * arguments.workers,
        actor,
        frames_per_batch=arguments.steps_per_update // arguments.workers,
        total_frames=-1,
        device="cpu",
    )
    parts, steps = [], 0
    try:
        for played in collector:
            with torch.no_grad():
                advantage(played)
            parts.append(played.reshape(-1))
            if len(parts) < arguments.workers:
                continue
            batch = torch.cat(parts)
            parts.clear()
            minibatches = math.ceil(len(batch) / ppo.minibatch_size)
            for _ in range(ppo.epochs):
                for rows in torch.randperm(len(batch)).tensor_split(minibatches):
                    terms = loss(batch[rows])
                    (terms["loss_objective"] + terms["loss_critic"] + terms["loss_entropy"]).backward()
                    nn.utils.clip_grad_norm_(loss.parameters(), ppo.max_grad_norm)
                    optimizer.step()
                    optimizer.zero_grad()
            collector.update_policy_weights_()
            steps += len(batch)
            trainers.report(steps)
    finally:
        collector.shutdown()


if __name__ == "__main__":
    main()
