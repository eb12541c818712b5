"""Settings of the learner. Workers and the program read them, so nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from aiotrain.errors import Faults, documented

__all__ = ["PPOConfig"]


@documented
@dataclass(frozen=True)
class PPOConfig:
    """Settings of the learner."""

    learning_rate: float = 3e-3
    """Adam's step size at the start."""
    final_learning_rate: float = 3e-4
    """Step size at the end of the budget, reached along a straight line."""
    gamma: float = 0.98
    """Discount of a reward one step later."""
    gae_lambda: float = 0.9
    """Weight of longer advantage estimates, 0 to 1."""
    horizons: tuple[int, ...] = ()
    """Maximise the sum of an episode's returns up to each of these lengths in steps, instead of its whole return: with
    30, 50 and 100, one episode of 100 steps whose rewards count 3, 2 and 1 times. No episode may outlive the longest of
    them (max-episode-steps)."""
    clip_range: float = 0.3
    """How far the probability ratio counts beyond 1."""
    entropy_coef: float = 0.003
    """Weight of the entropy bonus at the start."""
    final_entropy_coef: float | None = None
    """Weight at the end of the budget, reached along a straight line. Default: the same."""
    value_coef: float = 0.5
    """Weight of the value loss."""
    epochs: int = 3
    """Passes over each batch."""
    minibatch_size: int = 1024
    """Steps in one gradient step."""
    max_grad_norm: float = 0.5
    """Gradients of a larger norm are scaled down to it."""
    target_kl: float | None = None
    """End an update once the policy has moved this far (approximate KL divergence)."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units in the layers of policy and value network."""
    normalize_observations: bool | None = None
    """Bring inputs to mean 0 and deviation 1. Default: Box observations of floats only."""
    scale_rewards: bool = True
    """Divide rewards by the running deviation of the discounted return."""

    def faults(self) -> list[str]:
        """Return what cannot work, a sentence each."""
        faults = Faults(self)
        if faults.of_right_type() and faults.finite():
            faults.positive("learning_rate")
            faults.not_negative("final_learning_rate")
            faults.between("gamma", 0, 1)
            faults.between("gae_lambda", 0, 1)
            faults.positive("horizons")
            faults.positive("clip_range")
            faults.not_negative("entropy_coef")
            faults.not_negative("final_entropy_coef")
            faults.not_negative("value_coef")
            faults.at_least("epochs", 1)
            faults.at_least("minibatch_size", 2)
            faults.positive("max_grad_norm")
            faults.positive("target_kl")
            faults.positive("hidden_sizes")
        return faults.found
