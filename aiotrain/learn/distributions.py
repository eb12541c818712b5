"""Distributions over actions: what the outputs of a policy network stand for.

Each object holds N distributions. Steps that saw the same share one of U rows; ``rows`` ``[N]`` (int64) has the row of
each step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Categorical", "Gaussian"]

_MASKED = -1e9  # the logit of a masked action: its probability is 0, and 0 times its logarithm is no NaN


class Categorical:
    """Distributions by ``logits`` ``[U, actions]``; an action has probability 0 where ``allowed`` is False."""

    def __init__(self, logits: Tensor, rows: Tensor, allowed: Tensor | None = None) -> None:
        if allowed is not None:
            logits = logits.where(allowed, _MASKED)
        self.rows = rows
        self.log_probs = functional.log_softmax(logits, dim=-1)  # [U, actions]
        self.probs = self.log_probs.exp()
        self.row_entropy: Tensor = -torch.linalg.vecdot(self.probs, self.log_probs)  # [U]

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probabilities ``[N]`` of ``actions`` ``[N]``, int64."""
        return self.log_probs.view(-1).index_select(0, self.rows * self.log_probs.shape[1] + actions)

    def entropy(self) -> Tensor:
        """Return the entropies ``[N]``, in nats."""
        return self.row_entropy.index_select(0, self.rows)


class Gaussian:
    """Normal distributions by ``means`` ``[U, outputs]``, and the logarithms of their deviations, ``[outputs]``."""

    def __init__(self, means: Tensor, rows: Tensor, log_std: nn.Parameter) -> None:
        self.means, self.rows, self.log_std = means, rows, log_std
        self._constant = log_std.sum() + 0.5 * math.log(2 * math.pi) * len(log_std)

    def deviation(self, actions: Tensor) -> Tensor:
        """Return the distances ``[N, outputs]`` of ``actions`` from their means, in standard deviations."""
        return (actions - self.means[self.rows]) * torch.exp(-self.log_std)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the logarithms ``[N]`` of the densities at ``actions`` ``[N, outputs]``, float32."""
        return -0.5 * self.deviation(actions).square().sum(-1) - self._constant

    def entropy(self) -> Tensor:
        """Return the entropies ``[N]``, in nats."""
        return (self._constant + 0.5 * len(self.log_std)).repeat(len(self.rows))
