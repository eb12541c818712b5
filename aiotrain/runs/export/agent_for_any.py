"""An agent that aiotrain trained, in a file of its own: it needs Python 3.7 and NumPy 1.17, or later ones, alone.

    from agent import Agent

    agent = Agent(seed=0)  # with greedy=True it takes the most probable action instead of drawing one
    observation, info = env.reset()
    action = agent.get_action(observation)
    agent.end_episode()  # before the next one begins

ABOUT says what it was trained on. The weights are at the end of the file.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from aiotrain.runs.export.agent_policy import GAUSSIAN, GREEDY, LAYERS, Policy

# `agent_file` writes the run's values in place of these.
ONE_HOT: Final[bool] = False
OBSERVATION_SHAPE: Final[tuple[int, ...]] = ()
OBSERVATION_START: Final[int] = 0
MASKED: Final[bool] = False
ACTION_START: Final[int] = 0
ACTION_LOW: Final[tuple[float, ...]] = ()
ACTION_HIGH: Final[tuple[float, ...]] = ()
ACTION_DTYPE: Final[str] = "float32"

# ---- copied ----


class Agent:
    """Plays by the trained policy. ``seed`` is that of its draws; None: another one each time."""

    def __init__(self, seed: int | None = None, greedy: bool = GREEDY) -> None:
        self._policy = Policy(seed, greedy)

    def get_action(self, observation: Any, action_space: Any = None, action_mask: Any = None) -> Any:
        """The action for ``observation``, as the environment takes it: an int, or an array.

        ``action_space`` is not looked at. ``action_mask`` tells for each action whether it may be taken (1) or not (0).
        Raises ValueError for an observation that the environment does not have, and for a mask that is missing or
        allows nothing.
        """
        inputs = encode(observation)
        if MASKED and action_mask is None:
            raise ValueError("this policy was trained with action masks, and needs the action_mask of each step")
        if action_mask is not None and (np.shape(action_mask) != (LAYERS[-1],) or not np.any(action_mask)):
            raise ValueError(f"action_mask must have a number for each of {LAYERS[-1]} actions, not all of them 0")
        action = self._policy.act(inputs, action_mask)
        if GAUSSIAN:
            return np.clip(action, ACTION_LOW, ACTION_HIGH).astype(ACTION_DTYPE)
        return action + ACTION_START

    def end_episode(self) -> None:
        """Get ready for the next episode; this policy has nothing to forget."""


def encode(observation: Any) -> Any:
    """An observation as the network's inputs, float32 [inputs]. Raises ValueError."""
    if np.shape(observation) != OBSERVATION_SHAPE:
        raise ValueError(f"observation of shape {np.shape(observation)}, not {OBSERVATION_SHAPE}")
    if ONE_HOT:
        inputs = np.zeros(LAYERS[0], np.float32)
        place = int(observation) - OBSERVATION_START
        if not 0 <= place < len(inputs):
            raise ValueError(f"there is no observation {observation}")
        inputs[place] = 1
        return inputs
    inputs = np.asarray(observation, np.float32).ravel()
    if not np.isfinite(inputs).all():
        raise ValueError("observation with numbers that are NaN or infinite")
    return inputs
