"""The gradients of PPO's loss written out by hand: on a CPU, an update takes a quarter to a half less time.

In layers this small, autograd's overhead is as long as the matrix products. The loss is the one of ppo.py; tests hold
terms and gradients to it. N is the number of steps in a minibatch, U that of its distinct observations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from aiotrain.learn.distributions import Categorical, Gaussian
from aiotrain.learn.minibatch import Bits, Minibatch
from aiotrain.learn.networks import ActorCritic, Perceptron
from aiotrain.learn.settings import PPOConfig

__all__ = ["differentiating_by_hand"]


@contextmanager
def differentiating_by_hand(threads: int) -> Iterator[Callable[[ActorCritic, Minibatch, PPOConfig], Tensor]]:
    """Yield a function that does what `ppo.differentiate` does.

    With more than one of ``threads``, a thread differentiates the value loss meanwhile; the results are the same bits.
    """
    if threads < 2:
        yield partial(_differentiate, None)
    else:
        with ThreadPoolExecutor(1, "aiotrain-critic") as beside:
            yield partial(_differentiate, beside)


def _differentiate(beside: Executor | None, network: ActorCritic, minibatch: Minibatch, config: PPOConfig) -> Tensor:
    differentiate_values = partial(_differentiate_values, network.critic, minibatch, config.value_coef)
    value_loss = None if beside is None else beside.submit(differentiate_values)

    inputs, advantages, clip = minibatch.inputs, minibatch.advantages, config.clip_range
    count = len(advantages)
    activations = network.actor.activations(inputs.distinct)
    policy = network.distribution(activations[-1], inputs)
    log_ratio = policy.log_prob(minibatch.actions) - minibatch.old_log_probs
    ratio = log_ratio.exp()
    surrogate = ratio * advantages
    clipped = ratio.clamp(1 - clip, 1 + clip) * advantages
    of_log_prob = torch.where(surrogate <= clipped, surrogate, 0) / -count  # d ratio / d log p = ratio
    of_entropy = -config.entropy_coef / count
    if isinstance(policy, Categorical):
        of_outputs = _of_logits(policy, minibatch.actions, of_log_prob, of_entropy)
    else:
        of_outputs = _of_means(policy, minibatch.actions, of_log_prob, of_entropy)
    _backward(network.actor, inputs.distinct, activations, of_outputs)

    excess = ratio - 1
    return torch.stack(
        [
            -torch.minimum(surrogate, clipped).sum(),
            differentiate_values() if value_loss is None else value_loss.result(),
            policy.entropy().sum(),
            (excess - log_ratio).sum(),
            (excess.abs() > clip).sum(),
        ]
    )


@torch.no_grad()  # which holds for a thread
def _differentiate_values(critic: Perceptron, minibatch: Minibatch, value_coef: float) -> Tensor:
    """Overwrite the gradients of the value network; return the sum of error² / 2 over the steps."""
    inputs, returns = minibatch.inputs, minibatch.returns
    activations = critic.activations(inputs.distinct)
    values = activations[-1].view(-1)
    error = values.index_select(0, inputs.rows) - returns
    of_values = torch.zeros_like(values).index_add_(0, inputs.rows, error, alpha=value_coef / len(returns))
    _backward(critic, inputs.distinct, activations, of_values[:, None])
    return 0.5 * error.square().sum()


def _of_logits(policy: Categorical, actions: Tensor, of_log_prob: Tensor, of_entropy: float) -> Tensor:
    """Return the gradient ``[U, actions]`` of the logits.

    Given are those of each log-probability, ``of_log_prob`` ``[N]``, and of each entropy. With p the probabilities and
    H the entropy: d log p_a / dz = 1_a - p and dH / dz = -p (log p + H).
    """
    zeros, rows = torch.zeros_like(policy.row_entropy), policy.rows
    times = zeros.index_add(0, rows, torch.ones_like(of_log_prob))
    total = zeros.index_add(0, rows, of_log_prob)
    of_logits: Tensor = policy.log_probs + policy.row_entropy[:, None]
    of_logits.mul_((-of_entropy * times)[:, None]).sub_(total[:, None]).mul_(policy.probs)
    of_logits.view(-1).index_add_(0, rows * of_logits.shape[1] + actions, of_log_prob)
    return of_logits


def _of_means(policy: Gaussian, actions: Tensor, of_log_prob: Tensor, of_entropy: float) -> Tensor:
    """Return the gradient ``[U, outputs]`` of the means, as `_of_logits`; overwrite the one of ``log_std``."""
    deviation = policy.deviation(actions)
    torch.sum((deviation.square() - 1) * of_log_prob[:, None] + of_entropy, 0, out=policy.log_std.grad)
    of_means = deviation * torch.exp(-policy.log_std) * of_log_prob[:, None]
    return torch.zeros_like(policy.means).index_add_(0, policy.rows, of_means)


def _backward(network: Perceptron, inputs: Tensor | Bits, activations: list[Tensor], gradient: Tensor) -> None:
    """Overwrite the gradients of the parameters, given the ``gradient`` ``[U, outputs]`` of the outputs.

    ``activations`` are what ``network`` returned for ``inputs`` ``[U, inputs]``.
    """
    for index in reversed(range(len(network.dense))):
        weight, bias = network.dense[index]
        torch.sum(gradient, 0, out=bias.grad)
        if index > 0:
            below = activations[index - 1]
            torch.mm(gradient.T, below, out=weight.grad)
            gradient = torch.ops.aten.tanh_backward(gradient @ weight, below)
        elif isinstance(inputs, Bits):
            torch.t_copy(inputs.transposed_times(gradient), out=weight.grad)
        else:
            torch.mm(gradient.T, inputs, out=weight.grad)
