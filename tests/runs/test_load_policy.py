"""Weights of a run read again: what the learner acted by, and nothing from a file that is not ours."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from aiotrain import ConfigError, load_policy
from aiotrain.learn.networks import ActorCritic
from aiotrain.play.policy import PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.checkpoints import Checkpoints
from aiotrain.runs.policy_files import save_weights
from envs import Action, Observation
from sample_data import spec_of


def saved(path: Path, observation: Observation = "box", action: Action = "discrete") -> tuple[ActorCritic, EnvSpec]:
    """A file as a run leaves it, and what lies in it."""
    spec = spec_of(observation, action)
    generator = torch.Generator().manual_seed(0)
    network = ActorCritic(PolicyShape.of(spec, (7, 5)), generator)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator))
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    save_weights(path, tensors, network.shape, spec)
    return network, spec


@pytest.mark.parametrize("action", ["discrete", "shifted", "gaussian"])
@pytest.mark.parametrize("observation", ["box", "bits", "one_hot"])
def test_it_is_what_was_saved(observation: Observation, action: Action, tmp_path: Path) -> None:
    network, spec = saved(tmp_path / "weights.safetensors", observation, action)
    policy, loaded = load_policy(tmp_path / "weights.safetensors")
    assert (loaded, policy.shape) == (spec, network.shape)
    np.testing.assert_array_equal(policy.parameters, network.flat_parameters())
    inputs = np.random.default_rng(0).standard_normal((6, spec.inputs)).astype(np.float32)
    network.normalizes = True
    with torch.no_grad():
        head = network.actor(network.normalize(torch.from_numpy(inputs)))
    np.testing.assert_allclose(policy.head(inputs), head.numpy(), atol=1e-5)


def resaved(path: Path, tensors: dict[str, Any] | None = None, **changes: dict[str, Any]) -> None:
    """Save the file at ``path`` again, with other ``tensors`` or changes to its metadata."""
    saved(path)
    spec = spec_of()
    shape = PolicyShape.of(spec, (7, 5))
    described = {"policy": dataclasses.asdict(shape), "environment": dataclasses.asdict(spec)}
    metadata = {name: json.dumps(values | changes.get(name, {})) for name, values in described.items()}
    save_file({**load_file(path), **(tensors or {})}, path, metadata)


def as_folder(path: Path) -> None:
    path.mkdir()


def as_checkpoint(path: Path) -> None:
    Checkpoints(path.parent, 1).save(1, {"learner": np.zeros(3)}, 0.0)
    (path.parent / "checkpoints" / "best.safetensors").rename(path)


def as_pickle(path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return pytest.fail, ("the file was executed",)

    path.write_bytes(pickle.dumps(Trap()))


def truncated(path: Path) -> None:
    saved(path)
    path.write_bytes(path.read_bytes()[:-100])


def somebody_elses(path: Path) -> None:
    save_file({"weight": np.zeros((3, 3), np.float32)}, path)


def lacking(path: Path) -> None:
    resaved(path)
    tensors = load_file(path)
    del tensors["actor.2.bias"]
    metadata = {"policy": json.dumps(dataclasses.asdict(PolicyShape.of(spec_of(), (7, 5))))}
    metadata["environment"] = json.dumps(dataclasses.asdict(spec_of()))
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: None, "there is no file .*weights.safetensors; a run writes its weights when it ends"),
        (as_folder, "is a folder: name a file in it, such as .*weights.safetensors/weights.safetensors"),
        (as_checkpoint, "is a checkpoint: name the policy.safetensors that aiotrain.export makes of it"),
        (as_pickle, "holds no policy"),
        (truncated, "holds no policy"),
        (somebody_elses, "metadata lack"),
        (lacking, "actor.2.bias"),
        (lambda path: resaved(path, {"actor.0.weight": np.zeros((7, 4), np.float32)}), r"actor.0.weight .*\[7, 3\]"),
        (lambda path: resaved(path, {"actor.4.bias": np.full(3, np.nan, np.float32)}), "actor.4.bias .* finite"),
        (lambda path: resaved(path, {"input_mean": np.zeros(3)}), "input_mean is no float32"),
        (lambda path: resaved(path, policy={"hidden": [7, 10**12]}), r"actor.2.weight"),
        (lambda path: resaved(path, policy={"hidden": "wide"}), "holds no policy"),
        (lambda path: resaved(path, policy={"outputs": 4}), "not those of its environment"),
        (lambda path: resaved(path, environment={"smell": "faint"}), "smell"),
    ],
)
def test_what_is_not_ours_is_refused(damage: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    damage(path)
    with pytest.raises(ConfigError, match=said) as refused:
        load_policy(path)
    assert str(path) in str(refused.value)
