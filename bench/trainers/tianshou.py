"""Tianshou: PPO on a ShmemVectorEnv, an environment in each worker process, acting in lockstep."""

from __future__ import annotations

from tianshou.algorithm import PPO
from tianshou.algorithm.algorithm_base import policy_within_training_step
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import ShmemVectorEnv
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from tianshou.utils.torch_utils import torch_train_mode
from torch import nn
from torch.distributions import Categorical

from bench import trainers
from bench.tools.runs import factory_of


def main() -> None:
    arguments, ppo = trainers.parse(), trainers.PPO
    factory = factory_of(arguments.env)
    envs = ShmemVectorEnv([lambda: trainers.make_env(factory)] * arguments.workers)
    observation_space, action_space = envs.observation_space[0], envs.action_space[0]

    def hidden() -> Net:
        return Net(state_shape=observation_space.shape, hidden_sizes=ppo.hidden_sizes, activation=nn.Tanh)

    policy = ProbabilisticActorPolicy(
        actor=DiscreteActor(preprocess_net=hidden(), action_shape=action_space.n, softmax_output=False),
        dist_fn=lambda logits: Categorical(logits=logits, validate_args=False),
        action_space=action_space,
        observation_space=observation_space,
        action_scaling=False,
    )
    algorithm = PPO(
        policy=policy,
        critic=DiscreteCritic(preprocess_net=hidden()),
        optim=AdamOptimizerFactory(lr=ppo.learning_rate),
        eps_clip=ppo.clip_range,
        vf_coef=ppo.value_coef,
        ent_coef=ppo.entropy_coef,
        max_grad_norm=ppo.max_grad_norm,
        gae_lambda=ppo.gae_lambda,
        gamma=ppo.gamma,
        max_batchsize=arguments.steps_per_update,
    )
    collector = Collector(policy, envs, VectorReplayBuffer(arguments.steps_per_update, arguments.workers))
    collector.reset()
    steps = 0
    try:
        while True:
            with policy_within_training_step(policy):
                steps += collector.collect(n_step=arguments.steps_per_update).n_collected_steps
                with torch_train_mode(algorithm):
                    algorithm.update(collector.buffer, batch_size=ppo.minibatch_size, repeat=ppo.epochs)
            collector.reset_buffer(keep_statistics=True)
            trainers.report(steps)
    finally:
        envs.close()


if __name__ == "__main__":
    main()
