"""Settings check themselves."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
from typing import Any

import pytest

from aiotrain.config import Config, PPOConfig, SearchConfig
from aiotrain.errors import ConfigError
from envs import Toy


def test_defaults_are_valid() -> None:
    Config()


@pytest.mark.parametrize("cls", [Config, PPOConfig, SearchConfig])
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
        {"max_episode_steps": 2**16},
        {"max_episode_steps": 0},
        {"episode_timeout_s": 0},
        {"start_timeout_s": -1},
        {"tensorboard": True},
        {"red_agent": "SleepAgent", "env": "CartPole-v1"},
        {"red_agent": "SleepAgent", "env": Toy},
        {"workflow": "reverse", "env": "CartPole-v1"},
        {"observation": "memory", "env": "CartPole-v1"},
        {"rules": "leaderboard", "env": "CartPole-v1"},
        {"rules": "leaderboard", "simulator": "cyborg"},
        {"rules": "mine"},
        {"red_shares": (1.0, 1.0, 1.0)},
        {"red_shares": (1.0, 1.0), "red_agent": "mixed"},
        {"red_shares": (0.0, 0.0, 0.0), "red_agent": "mixed"},
        {"red_shares": (1.0, -1.0, 1.0), "red_agent": "mixed"},
        {"red_shares": (1.0, float("nan"), 1.0), "red_agent": "mixed"},
        {"actions": "compact", "env": "CartPole-v1"},
        {"observation": "memories"},
        {"actions": "few"},
        {"workflow": "defender,enterprise"},
        {"workflow": "serch"},
    ],
    ids=str,
)
def test_what_cannot_work_names_the_flag(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
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
        Config(ppo=PPOConfig(**wrong))
    assert str(caught.value).startswith(next(iter(wrong)).replace("_", "-")), "the flag has no prefix"


@pytest.mark.parametrize(
    "wrong",
    [
        {"gp_beta": -1.0},
        {"gp_beta": float("inf")},
        {"gp_beta": float("nan")},
        {"gp_beta": "theory"},
        {"alignment_lambda": -0.1},
        {"alignment_lambda": float("nan")},
        {"compliance_threshold": 1.01},
        {"compliance_threshold": -0.01},
        {"patience": 0},
        {"max_episodes_per_workflow": 0},
        {"fixed_episodes": 0},
        {"parallel_workflows": 0},
        {"parallel_workflows": 121},
        {"search": "grid"},
        {"inherit": "all"},
    ],
    ids=str,
)
def test_search_settings_name_the_flag(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(workflow="none", workflow_search=SearchConfig(**wrong))
    assert str(caught.value).startswith(next(iter(wrong)).replace("_", "-")), "the flag has no prefix"


@pytest.mark.parametrize("inherit", ["nearest", "none"])
def test_orders_that_are_trained_together_have_one_policy(inherit: Any) -> None:
    with pytest.raises(ConfigError, match=f"inherit {inherit} gives each order .* choose parallel-workflows 1"):
        Config(workflow_search=SearchConfig(parallel_workflows=2, inherit=inherit))
    Config(workflow_search=SearchConfig(parallel_workflows=1, inherit=inherit))
    Config(workflow_search=SearchConfig(parallel_workflows=2, inherit="latest"))


def test_half_of_the_orders_can_be_trained_together() -> None:
    Config(workflow_search=SearchConfig(parallel_workflows=60))


def test_search_counts_batches_in_episodes() -> None:
    with pytest.raises(ConfigError, match="steps-per-update cannot be had with workflow search"):
        Config(steps_per_update=1000)
    Config(steps_per_update=1000, workflow="none")


def test_cage_2_is_searched_for_its_best_order_unless_told_otherwise() -> None:
    assert Config().searches
    assert not Config(workflow="none").searches
    assert not Config(env="CartPole-v1").searches
    assert not Config(env="CartPole-v1", workflow="none").searches


def test_compiled_simulator_takes_bits_as_they_are() -> None:
    with pytest.raises(ConfigError, match="normalize-observations cannot be had with simulator compiled"):
        Config(simulator="compiled", ppo=PPOConfig(normalize_observations=True))
    Config(simulator="compiled", ppo=PPOConfig(normalize_observations=False))
    Config(env="CartPole-v1", ppo=PPOConfig(normalize_observations=True))


@pytest.mark.parametrize(
    ("workflow", "expected"),
    [
        ("defender,defender,op_server,op_host,user", ["defender is there 2 times", "enterprise is missing"]),
        ("defender,enterprise,op_server,op_host,router", ["'router'", "user is missing"]),
        ("defender,enterprise,op_server,op_host", ["user is missing"]),
        ("serch", ["serch", "or search, or none"]),
    ],
)
def test_what_is_no_order_is_told_with_all_that_is_wrong_with_it(workflow: str, expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(workflow=workflow)
    for text in expected:
        assert text in str(caught.value)


def test_faults_of_a_search_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Config(
            simulator="compiled",
            workflow="user,user",
            ppo=PPOConfig(normalize_observations=True),
            workflow_search=SearchConfig(compliance_threshold=95, alignment_lambda=-1),
        )
    lines = str(caught.value).splitlines()
    assert lines[0] == "4 settings cannot work:"
    for name in ("workflow", "normalize-observations", "compliance-threshold", "alignment-lambda"):
        assert sum(name in line for line in lines) == 1, name


def test_all_faults_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Config(workers=0, seed=-1, ppo=PPOConfig(gamma=2))
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
        ({"env": 5}, "env must be of type str | Callable[..., Any], not 5 (int)"),
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
        Config(**wrong)
    assert str(caught.value) == message


def test_wrong_types_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Config(workers="8", device=None, ppo=PPOConfig(epochs=None))  # type: ignore[arg-type]
    assert [line.split()[1] for line in str(caught.value).splitlines()[1:]] == ["workers", "device", "epochs"]


def test_right_types_are_taken() -> None:
    Config(env=Toy, episode_timeout_s=30, slot_steps=None, ppo=PPOConfig(gamma=1, target_kl=None, hidden_sizes=()))


def test_counting_in_steps_needs_no_full_batch_of_episodes() -> None:
    Config(workflow="none", total_episodes=10, episodes_per_update=100, steps_per_update=1000)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().workers = 3  # type: ignore[misc]


def test_resolved_settings_can_be_written_to_a_file() -> None:
    values = Config(env=Toy, run_dir="x").resolved()
    assert json.loads(json.dumps(values))["env"] == "envs:Toy"
    assert values["ppo"]["hidden_sizes"] == PPOConfig().hidden_sizes
