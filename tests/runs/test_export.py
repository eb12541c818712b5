"""Exports: three files that do what the policy does, each without what trained it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from gymnasium import spaces
from onnx.reference import ReferenceEvaluator
from safetensors import safe_open

import aiotrain
from aiotrain import CheckpointError, Config, ConfigError, PPOConfig, load_policy
from aiotrain.app.main import main
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.checkpoints import load_checkpoint
from aiotrain.runs.export.export import FILES
from envs import Action, Masked, Observation, Toy
from exported_agents import answers, load_agent, play, write_run

SPACES = [(observation, action) for observation in ("box", "bits", "one_hot") for action in ("discrete", "gaussian")]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", Toy)


def observations_for(spec: EnvSpec, count: int) -> npt.NDArray[Any]:
    rng = np.random.default_rng(0)
    if spec.observation_kind == "one_hot":
        return spec.observation_start + rng.integers(spec.inputs, size=count)
    if spec.observation_kind == "bits":
        return rng.integers(0, 2, (count, *spec.observation_shape)).astype(np.float32)
    near, far = rng.normal(0, 1, (2, count, *spec.observation_shape)).astype(np.float32)
    return np.where(near < 0.5, near, 100 * far)  # some of it is clipped


# ------------------------------------------------------------------ they do the same


@pytest.mark.parametrize(
    ("env", "normalizes"),
    [
        ("CartPole-v1", True),
        ("Pendulum-v1", True),
        (Masked, False),
        (lambda: Toy("box", "gaussian"), False),
        (lambda: Toy("bits", "shifted"), True),
        (lambda: Toy("one_hot", "discrete"), False),
    ],
    ids=["CartPole", "Pendulum", "masked", "gaussian", "shifted", "one_hot"],
)
def test_an_agent_alone_with_numpy_does_what_the_policy_does(env: Any, normalizes: bool, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", env, normalizes=normalizes)
    config = Config(env=env)
    with config.env_factory()() as made:
        played = play(run, made, config, episodes=3, seed=5)
    *_, agent = aiotrain.export(run, tmp_path / "out")
    answered = answers(agent, played, 5, tmp_path)
    if answered.dtype.kind == "f":
        np.testing.assert_allclose(answered, played.actions, atol=1e-5)
    else:
        assert answered.tolist() == played.actions
    assert len(np.unique(answered)) > 1, "it always does the same, which shows little"


@pytest.mark.parametrize("normalizes", [False, True])
@pytest.mark.parametrize(("observation", "action"), SPACES)
def test_an_agent_computes_what_the_policy_computes(
    observation: Observation, action: Action, normalizes: bool, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", lambda: Toy(observation, action), normalizes=normalizes)
    policy, spec = load_policy(run / "weights.safetensors")
    module = load_agent(aiotrain.export(run, formats=["numpy"])[0])
    seen = observations_for(spec, 20)
    heads = [module.Policy(0, greedy=True).head(module.encode(each)) for each in seen]
    np.testing.assert_allclose(heads, policy.head(spec.encode(seen)), atol=1e-5)


@pytest.mark.parametrize("normalizes", [False, True])
@pytest.mark.parametrize(("observation", "action"), SPACES)
def test_onnx_gives_what_the_policy_gives(
    observation: Observation, action: Action, normalizes: bool, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", lambda: Toy(observation, action), normalizes=normalizes)
    policy, spec = load_policy(run / "weights.safetensors")
    (path,) = aiotrain.export(run, tmp_path / "out", formats=["onnx"])
    seen = observations_for(spec, 7)
    head, *log_std = ReferenceEvaluator(str(path)).run(None, {"observation": seen})
    np.testing.assert_allclose(head, policy.head(spec.encode(seen)), atol=1e-5)
    if action == "gaussian":
        np.testing.assert_array_equal(log_std, [policy.shape.split(policy.parameters)[-1]])
    described = {each.key: json.loads(each.value) for each in onnx.load(path).metadata_props if each.key != "format"}
    assert EnvSpec(**tuples(described["environment"])) == spec
    assert described["normalization"] == ({"clip": 10.0} if normalizes else None)


def test_onnx_bars_what_the_mask_bars(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Masked)
    policy, spec = load_policy(run / "weights.safetensors")
    (path,) = aiotrain.export(run, formats=["onnx"])
    seen = observations_for(spec, 20)
    mask = (np.random.default_rng(0).random((20, 5)) < 0.5).astype(np.int8)
    (logits,) = ReferenceEvaluator(str(path)).run(None, {"observation": seen, "action_mask": mask})
    expected = np.where(mask, policy.head(spec.encode(seen)), -np.inf)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_safetensors_is_read_again(run: Path, tmp_path: Path) -> None:
    (path,) = aiotrain.export(run, tmp_path / "out", formats=["safetensors"])
    (policy, spec), (expected, expected_spec) = load_policy(path), load_policy(run / "weights.safetensors")
    np.testing.assert_array_equal(policy.parameters, expected.parameters)
    assert (policy.shape, spec) == (expected.shape, expected_spec)


@pytest.mark.parametrize("normalizes", [False, True])
def test_safetensors_tells_all_that_is_needed_to_act(normalizes: bool, tmp_path: Path) -> None:
    """With NumPy, by nothing but what is in the file."""
    run = write_run(tmp_path / "run", Toy, normalizes=normalizes)
    path, *_ = aiotrain.export(run)
    with safe_open(path, "np") as file:
        known = {name: json.loads(text) for name, text in file.metadata().items() if name != "format"}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    policy, spec = load_policy(run / "weights.safetensors")
    seen = hidden = observations_for(spec, 9)
    if known["normalization"]:
        clip = known["normalization"]["clip"]
        hidden = np.clip((hidden - tensors["input_mean"]) * tensors["input_scale"], -clip, clip)
    layers = [known["policy"]["inputs"], *known["policy"]["hidden"], known["policy"]["outputs"]]
    for index, (fan_in, fan_out) in enumerate(pairwise(layers)):
        hidden = hidden if index == 0 else getattr(np, known["activation"])(hidden)
        assert tensors[f"actor.{2 * index}.weight"].shape == (fan_out, fan_in)
        hidden = hidden @ tensors[f"actor.{2 * index}.weight"].T + tensors[f"actor.{2 * index}.bias"]
    np.testing.assert_allclose(hidden, policy.head(spec.encode(seen)), atol=1e-5)
    assert known["about"]["environment"] == "Toy"
    assert not any(name.startswith("critic") for name in tensors)


def tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def test_equal_seeds_draw_the_same_and_an_agent_may_be_told_to_be_greedy(run: Path) -> None:
    *_, path = aiotrain.export(run)
    module = load_agent(path)
    seen = np.array([0.1, -0.2, 0.3])

    def some(agent: Any) -> list[int]:
        return [agent.get_action(seen) for _ in range(200)]

    assert some(module.Agent(seed=1)) == some(module.Agent(seed=1)) != some(module.Agent(seed=2))
    assert some(module.Agent()) != some(module.Agent())
    policy, _ = load_policy(run / "weights.safetensors")
    best = int(policy.head(seen.astype(np.float32)[None]).argmax())
    assert set(some(module.Agent(greedy=True))) == {best}
    *_, path = aiotrain.export(run, greedy=True)
    assert set(some(load_agent(path).Agent())) == {best}
    assert len(set(some(load_agent(path).Agent(greedy=False)))) > 1


# ---------------------------------------------------------------- what is exported


def test_a_checkpoint_is_exported_as_the_run_was_then(tmp_path: Path) -> None:
    config = Config(
        env="CartPole-v1",
        collector="sequential",
        total_episodes=6,
        episodes_per_update=2,
        checkpoint_every=1,
        keep_checkpoints=2,
        ppo=PPOConfig(hidden_sizes=(5,)),
        run_dir=str(tmp_path / "run"),
        device="cpu",
    )
    asyncio.run(aiotrain.train(config))
    earlier, last = sorted((tmp_path / "run" / "checkpoints").glob("update-*"))
    path, *_ = aiotrain.export(last)
    assert path == tmp_path / "run" / "export-update-000003" / "policy.safetensors"
    finished, spec = load_policy(tmp_path / "run" / "weights.safetensors")
    np.testing.assert_array_equal(load_policy(path)[0].parameters, finished.parameters)
    path, *_ = aiotrain.export(earlier)
    policy, its_spec = load_policy(path)
    assert its_spec == spec
    assert load_agent(path.with_name("agent.py")).ABOUT["run"] == "run, update-000002"
    assert (policy.parameters != finished.parameters).any()
    weight = load_checkpoint(earlier).state["learner"]["network"]["actor.0.weight"]
    np.testing.assert_array_equal(policy.shape.split(policy.parameters)[2], weight.T)
    (tmp_path / "run" / "weights.safetensors").unlink()
    with pytest.raises(ConfigError, match=f"writes its weights when it ends.* such as {last}"):
        aiotrain.export(tmp_path / "run")
    earlier.write_bytes(earlier.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut off"):
        aiotrain.export(earlier)


def test_an_environment_that_only_a_program_knew_can_be_exported(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", lambda: Toy("bits"))
    assert load_agent(aiotrain.export(run)[-1]).Agent(seed=0).get_action([0, 1, 0, 1, 1]) in range(3)


def test_what_foreign_runs_are_called_does_not_become_code(tmp_path: Path) -> None:
    hostile = '"""\n\'\'\'\nraise SystemExit("executed")\n"""'

    class Named(Toy):
        pass

    Named.__name__ = hostile
    run = write_run(tmp_path / hostile.replace("/", ""), Named)
    module = load_agent(aiotrain.export(run, tmp_path / "out")[-1])
    assert (module.ABOUT["environment"], module.ABOUT["run"]) == (hostile, run.name)


def test_unbounded_actions_stay_unbounded(tmp_path: Path) -> None:
    class Unbounded(Toy):
        def __init__(self) -> None:
            super().__init__(action="gaussian")
            self.action_space = spaces.Box(np.float32([-np.inf, -0.1]), np.float32([np.inf, 0.1]))

    agent = load_agent(aiotrain.export(write_run(tmp_path / "run", Unbounded))[-1]).Agent(seed=0)
    actions = np.array([agent.get_action([0.5, 0.5, 0.5]) for _ in range(50)])
    assert actions.dtype == np.float32
    assert np.abs(actions[:, 0]).max() > 0.5
    assert np.abs(actions[:, 1]).max() == np.float32(0.1)


# ------------------------------------------------------------------ what cannot be


@pytest.mark.parametrize(
    ("env", "given", "message"),
    [
        (Toy, {"observation": [1.0, 2.0]}, r"observation of shape \(2,\), not \(3,\)"),
        (Toy, {"observation": [1.0, np.nan, 0.0]}, "NaN or infinite"),
        (lambda: Toy("one_hot"), {"observation": 0}, "there is no observation 0"),
        (lambda: Toy("one_hot"), {"observation": 5}, "there is no observation 5"),
        (Masked, {"observation": [0, 0, 0]}, "needs the action_mask of each step"),
        (Masked, {"observation": [0, 0, 0], "action_mask": [1, 1]}, "a number for each of 5 actions"),
        (Masked, {"observation": [0, 0, 0], "action_mask": [0] * 5}, "not all of them 0"),
    ],
)
def test_an_agent_refuses_what_it_cannot_answer(env: Any, given: dict[str, Any], message: str, tmp_path: Path) -> None:
    agent = load_agent(aiotrain.export(write_run(tmp_path / "run", env))[-1]).Agent()
    with pytest.raises(ValueError, match=message):
        agent.get_action(**given)


@pytest.mark.parametrize(
    ("damage", "given", "message"),
    [
        (lambda run: (run / "config.json").unlink(), {}, "holds no run: there is no config.json"),
        (lambda run: (run / "weights.safetensors").unlink(), {}, "no file .*; a run writes its weights when it ends"),
        (lambda run: (run / "weights.safetensors").write_bytes(b"{}"), {}, "holds no policy"),
        (lambda run: None, {"formats": ["numpy", "pickle"]}, "no format pickle; choose from safetensors, onnx, numpy"),
        (lambda run: None, {"formats": []}, "formats is empty"),
        (lambda run: None, {"formats": ["onnx"], "greedy": True}, "of the formats onnx none acts"),
        (lambda run: (run / "export").write_bytes(b""), {}, "export.policy.safetensors cannot be written"),
        (lambda run: (run / "export" / "agent.py").mkdir(parents=True), {}, "agent.py is there, and no export wrote"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    damage: Callable[[Path], Any], given: dict[str, Any], message: str, run: Path
) -> None:
    damage(run)
    with pytest.raises(ConfigError, match=message):
        aiotrain.export(run, **given)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no .*nowhere: name the folder of a run, or a checkpoint in it"):
        aiotrain.export(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match="a checkpoint is a file in the folder checkpoints of its run"):
        aiotrain.export(tmp_path / "notes.txt")


@pytest.mark.parametrize("name", FILES.values())
def test_only_an_earlier_export_is_written_over(name: str, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    before = {path: path.read_bytes() for path in aiotrain.export(run, folder)}
    other = write_run(tmp_path / "other", "CartPole-v1")
    for path in aiotrain.export(other, folder):
        assert path.read_bytes() != before[path]
        path.unlink()
    (folder / name).write_text("somebody's work")
    with pytest.raises(ConfigError, match=f"{name} is there, and no export wrote it; move it away, or choose"):
        aiotrain.export(run, folder)
    assert [path.name for path in folder.iterdir()] == [name], "something was written nevertheless"
    assert (folder / name).read_text() == "somebody's work"


def test_without_onnx_the_other_formats_are_written(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"package onnx is not installed; pip install 'aiotrain\[onnx\]'"):
        aiotrain.export(run, formats=["numpy", "onnx"])
    assert not (run / "export").exists()
    assert main(["export", str(run)]) == 0
    *files, hint = capsys.readouterr().out.splitlines()
    assert files == [str(run / "export" / name) for name in ("policy.safetensors", "agent.py")]
    assert hint.startswith("without policy.onnx")
    assert "pip install 'aiotrain[onnx]'" in hint


def test_the_command_line_says_where_the_files_are(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(run / "export" / name) for name in FILES.values()]
    flags = ["--folder", str(tmp_path / "out"), "--formats", "numpy", "--greedy"]
    assert main(["export", str(run), *flags]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "out" / "agent.py")]
    assert load_agent(tmp_path / "out" / "agent.py").GREEDY
    assert main(["export", str(tmp_path / "nowhere")]) == 2
    assert "there is no" in capsys.readouterr().err
