"""RLlib: PPO with an environment in each of the EnvRunner actors, which wait while the batch is learned."""

from __future__ import annotations

import tempfile

import gymnasium
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env

from bench import trainers


def main() -> None:
    arguments, ppo = trainers.parse(), trainers.PPO
    factory = trainers.factory_for(arguments.env)

    def make_env(_: object) -> gymnasium.Env:
        return trainers.Floats(factory())

    register_env("env", make_env)
    config = (
        PPOConfig()
        .environment("env")
        .framework("torch")
        .env_runners(num_env_runners=arguments.workers, create_local_env_runner=False)
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
    with tempfile.TemporaryDirectory() as folder:
        # As many processors as workers, said to be there: Ray would not start more than one worker on each.
        ray.init(
            num_cpus=arguments.workers + 1,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=folder,
        )
        algorithm = config.build_algo()
        try:
            while True:
                report = algorithm.train()
                trainers.report(report["num_env_steps_sampled_lifetime"])
        finally:
            algorithm.stop()
            ray.shutdown()


if __name__ == "__main__":
    main()
