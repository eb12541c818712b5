"""What policy and value network see of a batch, and what a gradient step is computed from.

N is the number of steps, M that of the trajectories, U that of the distinct observations.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from aiotrain.play.spaces import EnvSpec
from aiotrain.transport.trajectories import Trajectories

__all__ = ["MANY_BITS", "Bits", "Inputs", "Minibatch", "inputs_of"]

MANY_BITS = 128
"""Inputs from which on `Bits` are faster than a dense matrix (``python -m bench.learner``)."""


class Bits:
    """A matrix ``[N, inputs]`` of zeros and ones on the CPU, kept as the places of its ones.

    A product takes time in proportion to the ones. In tables of flags, few bits are ones: one in eight, say.
    """

    def __init__(self, dense: npt.NDArray[np.int8]) -> None:
        self._dense = dense
        self._of_rows = _ones(dense)

    def __len__(self) -> int:
        return len(self._dense)

    def __getitem__(self, rows: Tensor) -> Bits:
        return Bits(self._dense[rows.numpy()])

    def times(self, weight: Tensor) -> Tensor:
        """Return the product ``[N, outputs]`` with ``weight.T``, given ``weight`` ``[outputs, inputs]``."""
        columns, starts = self._of_rows
        return functional.embedding_bag(columns, weight.T.contiguous(), starts, mode="sum")

    def transposed_times(self, other: Tensor) -> Tensor:
        """Return the product ``[inputs, outputs]`` of the transposed matrix with ``other`` ``[N, outputs]``."""
        rows, starts = self._of_columns
        return functional.embedding_bag(rows, other, starts, mode="sum")

    @functools.cached_property
    def _of_columns(self) -> tuple[Tensor, Tensor]:
        return _ones(np.ascontiguousarray(self._dense.T))


def _ones(matrix: npt.NDArray[np.int8]) -> tuple[Tensor, Tensor]:
    """Return the columns of a matrix's ones, row after row, and the number of ones before each row."""
    rows, columns = np.divmod(np.flatnonzero(matrix.view(np.bool_)), matrix.shape[1])
    return torch.from_numpy(columns), torch.from_numpy(np.searchsorted(rows, np.arange(len(matrix))))


@dataclass(frozen=True)
class Inputs:
    """What N steps saw: each distinct observation once, and which one each step saw.

    The networks and their gradients are computed once for all steps that saw the same. In the built-in domain, only 3
    to 30 in 100 observations of a minibatch are distinct.
    """

    distinct: Tensor | Bits
    """Normalised observations ``[U, inputs]``, float32."""
    allowed: Tensor | None
    """Where an action may be taken, ``[U, actions]``, bool. None: all may."""
    rows: Tensor
    """The row of ``distinct`` that each step saw, ``[N]``, int64."""

    def first(self, count: int) -> Inputs:
        """Return the inputs of the first ``count`` steps."""
        return replace(self, rows=self.rows[:count])

    def at(self, steps: Tensor) -> Inputs:
        """Return the inputs of ``steps``, an int64 vector of places."""
        rows = self.rows[steps]
        if rows.is_cpu:
            needed, rows = torch.unique(rows, return_inverse=True)
        else:
            needed, rows = rows, torch.arange(len(rows), device=rows.device)
        allowed = None if self.allowed is None else self.allowed.index_select(0, needed)
        return Inputs(self.distinct[needed], allowed, rows)


@dataclass(frozen=True)
class Minibatch:
    """N steps to learn from; the whole batch has the same form."""

    inputs: Inputs
    actions: Tensor
    """``[N]``, int64, or ``[N, outputs]``, float32."""
    old_log_probs: Tensor
    """Log-probabilities ``[N]`` of the actions under the policy that the update begins with."""
    advantages: Tensor
    """Advantages ``[N]`` of the actions, times the importance weights of the steps."""
    returns: Tensor
    """What the value network should have said, ``[N]``, in units of the scaled reward."""

    def at(self, steps: Tensor) -> Minibatch:
        """Return ``steps`` of these, an int64 vector of places."""
        by_step = (self.actions, self.old_log_probs, self.advantages, self.returns)
        return Minibatch(self.inputs.at(steps), *(each.index_select(0, steps) for each in by_step))


def inputs_of(
    batch: Trajectories, spec: EnvSpec, device: torch.device, normalize: Callable[[Tensor], Tensor] | None
) -> Inputs:
    """Return the inputs of the N steps of ``batch``, followed by those of its M final observations.

    On a CPU, equal observations under equal masks share a row. On a GPU all count as distinct, because a sum over the
    steps of a row would have no fixed order. ``normalize`` is applied to ``[U, inputs]``; None: nothing is.
    """
    observations = np.concatenate([batch.observations, batch.final_observations])
    masks = np.concatenate([batch.masks, np.zeros((len(batch.headers), batch.masks.shape[1]), np.int8)])
    if device.type == "cpu":
        flat = np.ascontiguousarray(observations).reshape(len(observations), -1)
        if masks.size:
            flat = np.hstack([flat.view(np.uint8), masks.view(np.uint8)])
        keys = flat.view(f"V{flat.shape[1] * flat.itemsize}")[:, 0]
        _, first, rows = np.unique(keys, return_index=True, return_inverse=True)
    else:
        first = rows = np.arange(len(observations))
    allowed = torch.from_numpy(masks[first] != 0).to(device) if masks.size else None
    return Inputs(_encoded(observations[first], spec, device, normalize), allowed, torch.from_numpy(rows).to(device))


def _encoded(
    observations: npt.NDArray[Any], spec: EnvSpec, device: torch.device, normalize: Callable[[Tensor], Tensor] | None
) -> Tensor | Bits:
    if spec.observation_kind == "bits" and spec.inputs >= MANY_BITS and device.type == "cpu" and normalize is None:
        return Bits(observations.reshape(len(observations), -1))
    stored = torch.from_numpy(np.ascontiguousarray(observations)).to(device)  # in their own, smaller dtype
    if spec.observation_kind == "one_hot":
        dense = functional.one_hot(stored.long() - spec.observation_start, spec.inputs).float()
    else:
        dense = stored.reshape(len(stored), spec.inputs).float()
    return dense if normalize is None else normalize(dense)
