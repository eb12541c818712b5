"""stable-baselines3: PPO on a SubprocVecEnv, an environment in each worker process, acting in lockstep."""

from __future__ import annotations

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import SubprocVecEnv, VecMonitor
from torch import nn

from bench import trainers
from bench.tools.runs import factory_of


class Report(BaseCallback):
    def _on_rollout_start(self) -> None:  # what was collected before is learned
        if self.num_timesteps:
            trainers.report(self.num_timesteps)

    def _on_step(self) -> bool:
        return True


def main() -> None:
    arguments, ppo = trainers.parse(), trainers.PPO
    envs = VecMonitor(SubprocVecEnv([factory_of(arguments.env)] * arguments.workers))
    model = PPO(
        "MlpPolicy",
        envs,
        n_steps=arguments.steps_per_update // arguments.workers,
        batch_size=ppo.minibatch_size,
        n_epochs=ppo.epochs,
        learning_rate=ppo.learning_rate,
        gamma=ppo.gamma,
        gae_lambda=ppo.gae_lambda,
        clip_range=ppo.clip_range,
        ent_coef=ppo.entropy_coef,
        vf_coef=ppo.value_coef,
        max_grad_norm=ppo.max_grad_norm,
        policy_kwargs={"net_arch": list(ppo.hidden_sizes), "activation_fn": nn.Tanh},
        device="cpu",
    )
    try:
        model.learn(10**12, callback=Report())
    finally:
        envs.close()


if __name__ == "__main__":
    main()
