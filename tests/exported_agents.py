"""Runs with random policies, and what an exported agent does in a process where there is nothing but NumPy."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import numpy.typing as npt

from aiotrain import Config, PPOConfig, load_policy
from aiotrain.cage2 import Cage2
from aiotrain.cage2.blue_view import actions_of
from aiotrain.play.inspection import inspect_env
from aiotrain.play.policy import NumpyPolicy, PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.journals import Journals
from aiotrain.runs.policy_files import save_weights, tensors_of
from aiotrain.training.reports import columns_of
from sample_data import weights_for

ALONE = """
import sys

class OnlyNumPy:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy", "agent"}:
            raise ModuleNotFoundError(f"{name} is imported", name=name)

sys.meta_path.insert(0, OnlyNumPy())
folder, played, answered = sys.argv[1:]
sys.path.insert(0, folder)

import numpy as np
from agent import Agent

given = np.load(played)
for greedy in (False, True):
    agent, actions = Agent(seed=int(given["seed"]), greedy=greedy), []
    for row in np.flatnonzero(given["greedy"] == greedy):
        masks = [given["masks"][row]] if "masks" in given else []
        actions.append(agent.get_action(given["observations"][row], 145, *masks))
        if given["ended"][row]:
            agent.end_episode()
    np.save(f"{answered}-{greedy}.npy", actions)
"""


DEFENDED = Cage2(workflow="none")


def write_run(folder: Path, env: Any = DEFENDED, *, normalizes: bool = False, **settings: Any) -> Path:
    """What a run leaves behind, with a random policy."""
    config = Config(env=env, ppo=PPOConfig(hidden_sizes=(12, 9)), **settings)
    made, spec = inspect_env(config.env_factory())
    made.close()
    policy = NumpyPolicy(PolicyShape.of(spec, config.ppo.hidden_sizes))
    policy.parameters[:] = weights_for(policy.shape)
    if not normalizes:
        mean, scale = policy.shape.split(policy.parameters)[:2]
        mean[...], scale[...] = 0, 1
    Journals(folder, config.resolved(), columns_of(spec.metrics)).close()
    save_weights(folder / "weights.safetensors", tensors_of(policy), policy.shape, spec)
    return folder


class Played(NamedTuple):
    """Steps of a policy: what an agent is shown of each, and what it should answer."""

    observations: npt.NDArray[Any]
    masks: npt.NDArray[Any] | None
    ended: list[bool]
    greedy: list[bool]
    actions: list[Any]
    rewards: list[float]


def play(run: Path, env: gymnasium.Env[Any, Any], config: Config, *, episodes: int, seed: int) -> Played:
    """Whole episodes by the policy of ``run``, drawing by ``seed``, and then as many greedily."""
    policy, spec = load_policy(run / "weights.safetensors")
    drawing, generator = policy.parameters.copy(), np.random.default_rng(seed)
    observations, masks, ended, greedily, actions, rewards = [], [], [], [], [], []
    for greedy in (False, True):
        policy.parameters[:] = policy.shape.greedy(drawing) if greedy else drawing
        policy.refresh()
        for episode in range(episodes):
            observation, info = env.reset(seed=episode)
            over = False
            while not over:
                mask = info["action_mask"][None] if spec.has_action_mask else None
                inputs = spec.encode(np.asarray(observation)[None])
                (action,), _ = policy.act(inputs, policy.noise(generator, 1), mask)
                given = as_given(action, spec)
                observations.append(observation)
                masks.append(np.array(info.get("action_mask", ())))
                observation, reward, terminated, truncated, info = env.step(given)
                over = terminated or truncated
                ended.append(over)
                greedily.append(greedy)
                actions.append(given)
                rewards.append(float(reward))
    if isinstance(config.env, Cage2):  # the challenge shows and wants these
        actions = actions_of(config.env.actions)[actions].tolist()
        return Played(np.array(observations)[:, :52], None, ended, greedily, actions, rewards)
    told = np.array(masks) if spec.has_action_mask else None
    return Played(np.array(observations), told, ended, greedily, actions, rewards)


def as_given(action: Any, spec: EnvSpec) -> Any:
    """A drawn action as the environment takes it."""
    if spec.action_kind == "gaussian":
        return np.clip(action, np.float32(spec.action_low), np.float32(spec.action_high))
    return int(action) + spec.action_start


def load_agent(path: Path) -> Any:
    """The module in an agent's file."""
    module = types.ModuleType("exported_agent")  # compiled anew: two exports may be of one size and second
    exec(compile(path.read_text(), path, "exec"), vars(module))
    return module


def answers(agent: Path, played: Played, seed: int, folder: Path) -> npt.NDArray[Any]:
    """What the agent in the file ``agent`` does in the steps that were ``played``, in a process without aiotrain."""
    masks = {} if played.masks is None else {"masks": played.masks}
    given = {"observations": played.observations, "ended": played.ended, "greedy": played.greedy, "seed": seed}
    np.savez(folder / "played.npz", **given, **masks)
    command = [sys.executable, "-I", "-W", "error", "-c", ALONE, agent.parent, folder / "played.npz", folder / "answer"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    return np.concatenate([np.load(folder / f"answer-{greedy}.npy") for greedy in (False, True)])
