"""RLlib: PPO with environments in EnvRunner actors, which wait while the batch is learned."""

from __future__ import annotations

import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env

from bench import trainers
from bench.tools.runs import factory_of


def main() -> None:
    arguments, ppo = trainers.parse(), trainers.PPO
    factory = factory_of(arguments.env)

    register_env("env", lambda _: trainers.make_env(factory))
    config = (
        PPOConfig()
        .environment("env")
        .framework("torch")
        .env_runners(
            num_env_runners=arguments.workers,
            num_envs_per_env_runner=arguments.envs_per_worker,
            create_local_env_runner=False,
        )
        .learners(num_learners=0)
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=list(ppo.hidden_sizes), fcnet_activation="tanh", vf_share_layers=False
            )
        )
        .training(
            train_batch_size_per_learner=arguments.steps_per_update,
            minibatch_size=ppo.minibatch_size,
            num_epochs=ppo.epochs,
            lr=ppo.learning_rate,
            gamma=ppo.gamma,
            lambda_=ppo.gae_lambda,
            clip_param=ppo.clip_range,
            vf_clip_param=float("inf"),
            entropy_coeff=ppo.entropy_coef,
            vf_loss_coeff=ppo.value_coef,
            use_kl_loss=False,
            grad_clip=ppo.max_grad_norm,
        )
    )
    # Ray starts one worker on each processor; it is told that there are enough.
    ray.init(
        "local", num_cpus=arguments.workers + 1, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    try:
        algorithm = config.build_algo()
        while True:
            result = algorithm.train()
            trainers.report(result["num_env_steps_sampled_lifetime"])
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
