"""The older winner, whole: what ran 74.3 episodes/s on 100 cores, as a collector to measure others against.

One ProcessPoolExecutor. For every episode its worker makes the environment anew and a policy of torch, into which it
loads weights that were pickled into the task; it acts for one state at a time, asks for the whole true state at every
step, and returns the episode as lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aiotrain.collect.executor_collector import ExecutorCollector
from aiotrain.collect.protocol import Launch
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.player import Assignment, episode_streams
from aiotrain.play.private_ring_player import Played
from aiotrain.transport.slot_ring import header_dtype
from aiotrain.transport.trajectories import Trajectories

Episode = dict[str, Any]


class State(NamedTuple):
    """What the older winner pickles into every task."""

    state_dict: dict[str, npt.NDArray[np.float32]]
    version: int


class OlderWinner(ExecutorCollector):
    """Plays stock environments by ``play_older``, and makes trajectories of its lists."""

    def publish(self, parameters: npt.NDArray[np.float32], version: int) -> None:
        """See Collector."""
        _, _, *layers = self._assignment.policy.split(parameters.copy())
        names = (f"{2 * layer}.{kind}" for layer in range(len(layers) // 2) for kind in ("weight", "bias"))
        self._policy = State({name: values.T for name, values in zip(names, layers, strict=True)}, version)

    @staticmethod
    def _task(*args: Any) -> Any:
        return play_older(*args)

    async def _play(self, worker: int, launch: Launch) -> Played:
        episodes: Any = await super()._play(worker, launch)
        if isinstance(episodes, Played):  # none of them was begun
            return episodes
        return Played(Trajectories.join([as_trajectory(episode, self._assignment) for episode in episodes]), (), ())


def play_older(
    clock: Any,
    task: int,
    assignment: Assignment,
    factory: EnvFactory,
    state_dict: Mapping[str, npt.NDArray[np.float32]],
    version: int,
    episodes: Sequence[int],
    *_: Any,
) -> list[Episode]:
    """The task of a worker."""
    clock.take(assignment.worker, task)
    import torch

    played = []
    for episode in episodes:
        env = factory()
        policy = make_policy(assignment)
        policy.load_state_dict({name: torch.tensor(values) for name, values in state_dict.items()})
        played.append(play_episode(env, policy, assignment, episode, version))
    return played


def make_policy(assignment: Assignment) -> Any:
    import torch

    layers: list[Any] = []
    for fan_in, fan_out in assignment.policy.layers:
        layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


def play_episode(env: Any, policy: Any, assignment: Assignment, episode: int, version: int) -> Episode:
    import torch

    seed, _ = episode_streams(assignment.run_seed, episode)
    torch.manual_seed(seed)
    observation, _ = env.reset(seed=seed)
    told: Episode = {"episode": episode, "version": version, "seed": seed}
    states, actions, log_probs, rewards, over = [list(map(float, observation))], [], [], [], False
    while not over:
        with torch.no_grad():
            drawn = torch.distributions.Categorical(logits=policy(torch.tensor([states[-1]])))
            action = drawn.sample()
        env.unwrapped.true_state()  # from which compliance was judged
        observation, reward, terminated, truncated, _ = env.step(int(action))
        over = terminated or truncated
        states.append(list(map(float, observation)))
        actions.append(int(action))
        log_probs.append(float(drawn.log_prob(action)))
        rewards.append(reward)
    return told | {"states": states, "actions": actions, "log_probs": log_probs, "rewards": rewards}


def as_trajectory(told: Episode, assignment: Assignment) -> Trajectories:
    """An episode's lists as a trajectory."""
    header = np.zeros(1, header_dtype(assignment.spec.metrics))
    for name in ("episode", "version", "seed"):
        header[name] = told[name]
    header["ended"] = True
    header["length"] = header["episode_steps"] = len(told["rewards"])
    header["episode_return"] = sum(told["rewards"])
    states = np.array(told["states"], assignment.spec.observation_dtype)
    return Trajectories(
        header,
        states[:-1],
        states[-1:],
        np.array(told["actions"], assignment.spec.ring_action_dtype),
        np.array(told["log_probs"], np.float32),
        np.array(told["rewards"], np.float32),
        np.zeros(len(told["rewards"]), np.float32),
        np.zeros((len(told["rewards"]), 0), np.int8),
    )
