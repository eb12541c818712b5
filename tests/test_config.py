"""Settings check themselves."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
from typing import Any

import pytest

from aiotrain import Config, ConfigError, PPOConfig
from envs import Toy


def config(env: Any = Toy, **settings: Any) -> Config:
    return Config(env=env, **settings)


def test_environment_is_the_only_setting_without_a_default() -> None:
    config()
    with pytest.raises(TypeError, match="'env'"):
        Config()  # type: ignore[call-arg]


@pytest.mark.parametrize("cls", [Config, PPOConfig])
def test_every_setting_is_explained(cls: type) -> None:
    body = ast.parse(inspect.getsource(cls)).body[0].body  # type: ignore[attr-defined]
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            explained = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            assert explained, f"{cls.__name__}.{ast.unparse(node.target)} has no sentence below it"


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": 0},
        {"envs_per_worker": 0},
        {"total_episodes": 0},
        {"episodes_per_update": 0},
        {"episodes_per_update": 11, "total_episodes": 10},
        {"steps_per_update": 11, "total_steps": 10},
        {"steps_per_update": 0},
        {"max_policy_lag": -1},
        {"seed": -1},
        {"device": "tpu"},
        {"learner_threads": 0},
        {"slot_steps": 0},
        {"run_dir": ""},
        {"max_episode_steps": 0},
        {"episode_timeout_s": 0},
        {"start_timeout_s": -1},
        {"tensorboard": True},
        {"metrics": ("success", "success")},
        {"metrics": ("not a name",)},
        {"metrics": ("episode_return",)},
    ],
    ids=str,
)
def test_what_cannot_work_names_the_flag(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**wrong)
    assert next(iter(wrong)).replace("_", "-") in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0},
        {"final_learning_rate": -1},
        {"gamma": 1.1},
        {"gae_lambda": -0.1},
        {"clip_range": 0},
        {"entropy_coef": -1},
        {"final_entropy_coef": -1.0},
        {"final_entropy_coef": float("nan")},
        {"horizons": (30, 0)},
        {"value_coef": -1},
        {"epochs": 0},
        {"minibatch_size": 1},
        {"max_grad_norm": 0},
        {"target_kl": 0},
        {"hidden_sizes": (64, 0)},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"max_grad_norm": float("inf")},
        {"gamma": float("nan")},
    ],
    ids=str,
)
def test_learner_settings_name_the_flag(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        config(ppo=PPOConfig(**wrong))
    assert str(caught.value).startswith(next(iter(wrong)).replace("_", "-")), "the flag has no prefix"


def test_all_faults_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        config(workers=0, seed=-1, ppo=PPOConfig(gamma=2))
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 settings cannot work:"
    assert [line.split()[1] for line in lines[1:]] == ["workers", "seed", "gamma"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"workers": "8"}, "workers must be of type int, not '8' (str)"),
        ({"total_episodes": 2.5}, "total-episodes must be of type int, not 2.5 (float)"),
        ({"seed": True}, "seed must be of type int, not True (bool)"),
        ({"episode_timeout_s": False}, "episode-timeout-s must be of type float, not False (bool)"),
        ({"slot_steps": "9"}, "slot-steps must be of type int | None, not '9' (str)"),
        ({"tensorboard": 1}, "tensorboard must be of type bool, not 1 (int)"),
        ({"env": 5}, "env must be of type str | Callable[..., Any] | Domain, not 5 (int)"),
        ({"ppo": None}, "ppo must be of type PPOConfig, not None (NoneType)"),
        ({"ppo": PPOConfig(gamma=None)}, "gamma must be of type float, not None (NoneType)"),  # type: ignore[arg-type]
        (
            {"ppo": PPOConfig(hidden_sizes=(64, 6.4))},  # type: ignore[arg-type]
            "hidden-sizes must be of type tuple[int, ...], not (64, 6.4) (tuple)",
        ),
    ],
    ids=str,
)
def test_wrong_types_are_told_with_the_type_expected(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**wrong)
    assert str(caught.value) == message


def test_wrong_types_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        config(workers="8", device=None, ppo=PPOConfig(epochs=None))
    assert [line.split()[1] for line in str(caught.value).splitlines()[1:]] == ["workers", "device", "epochs"]


def test_right_types_are_taken() -> None:
    config(episode_timeout_s=30, slot_steps=None, ppo=PPOConfig(gamma=1, target_kl=None, hidden_sizes=()))


def test_counting_in_steps_needs_no_full_batch_of_episodes() -> None:
    config(total_episodes=10, episodes_per_update=100, steps_per_update=1000)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config().workers = 3  # type: ignore[misc]


def test_resolved_settings_can_be_written_to_a_file() -> None:
    values = config(run_dir="x").resolved()
    assert json.loads(json.dumps(values))["env"] == "envs:Toy"
    assert values["ppo"]["hidden_sizes"] == PPOConfig().hidden_sizes
