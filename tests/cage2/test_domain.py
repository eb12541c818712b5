"""The settings of CAGE 2 check themselves, alone and together with those of the run."""

from __future__ import annotations

import ast
import inspect
import pickle
import subprocess
import sys
from typing import Any

import pytest

from aiotrain import Config, ConfigError, PPOConfig
from aiotrain.cage2 import CAGE2_ID, Cage2, SearchConfig
from aiotrain.cage2.scenario import HOST_TYPES
from aiotrain.domains import DEFAULT_ENV, domain_of


def config(env: Cage2 | None = None, **settings: Any) -> Config:
    return Config(env=env or Cage2(), **settings)


def test_its_id_means_its_defaults() -> None:
    assert domain_of(CAGE2_ID) == Cage2()
    assert Config(env=CAGE2_ID) == config()
    assert DEFAULT_ENV == CAGE2_ID


@pytest.mark.parametrize("cls", [Cage2, SearchConfig])
def test_every_setting_is_explained(cls: type) -> None:
    body = ast.parse(inspect.getsource(cls)).body[0].body  # type: ignore[attr-defined]
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
            explained = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            assert explained, f"{cls.__name__}.{ast.unparse(node.target)} has no sentence below it"


@pytest.mark.parametrize(
    "wrong",
    [
        {"rules": "leaderboard", "simulator": "cyborg"},
        {"rules": "mine"},
        {"red_shares": (1.0, 1.0, 1.0)},
        {"red_shares": (1.0, 1.0), "red_agent": "mixed"},
        {"red_shares": (0.0, 0.0, 0.0), "red_agent": "mixed"},
        {"red_shares": (1.0, -1.0, 1.0), "red_agent": "mixed"},
        {"red_shares": (1.0, float("nan"), 1.0), "red_agent": "mixed"},
        {"observation": "memories"},
        {"actions": "few"},
        {"workflow": "defender,enterprise"},
        {"workflow": "serch"},
    ],
    ids=str,
)
def test_what_cannot_work_names_the_flag(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        config(Cage2(**wrong))
    assert next(iter(wrong)).replace("_", "-") in str(caught.value)


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
def test_settings_of_the_search_name_the_flag(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        config(Cage2(workflow="none", search=SearchConfig(**wrong)))
    assert str(caught.value).startswith(next(iter(wrong)).replace("_", "-")), "the flag has no prefix"


@pytest.mark.parametrize("inherit", ["nearest", "none"])
def test_orders_that_are_trained_together_have_one_policy(inherit: Any) -> None:
    with pytest.raises(ConfigError, match=f"inherit {inherit} gives each order .* choose parallel-workflows 1"):
        config(Cage2(search=SearchConfig(parallel_workflows=2, inherit=inherit)))
    config(Cage2(search=SearchConfig(parallel_workflows=1, inherit=inherit)))
    config(Cage2(search=SearchConfig(parallel_workflows=2, inherit="latest")))


def test_half_of_the_orders_can_be_trained_together() -> None:
    config(Cage2(search=SearchConfig(parallel_workflows=60)))


def test_search_counts_batches_in_episodes() -> None:
    with pytest.raises(ConfigError, match="steps-per-update does not work with workflow search"):
        config(steps_per_update=1000)
    config(Cage2(workflow="none"), steps_per_update=1000)


@pytest.mark.parametrize("workflow", ["none", ",".join(HOST_TYPES)])
def test_another_curriculum_needs_a_workflow_that_is_not_searched_for(workflow: str) -> None:
    with pytest.raises(ConfigError, match=r"curriculum does not work with workflow search.*choose workflow none"):
        config(curriculum="curricula:Harder")
    config(Cage2(workflow=workflow), curriculum="curricula:Harder")


def test_compiled_simulator_takes_bits_as_they_are() -> None:
    with pytest.raises(ConfigError, match="normalize-observations does not work with simulator compiled"):
        config(ppo=PPOConfig(normalize_observations=True))
    config(ppo=PPOConfig(normalize_observations=False))
    config(Cage2(simulator="cyborg"), ppo=PPOConfig(normalize_observations=True))


def test_compiled_simulator_counts_no_more_steps_than_fit_16_bits() -> None:
    with pytest.raises(ConfigError, match=r"max-episode-steps \(65536\) is more than the 65,535"):
        config(max_episode_steps=2**16)
    config(max_episode_steps=2**16 - 1)
    config(Cage2(simulator="cyborg"), max_episode_steps=2**16)


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
        config(Cage2(workflow=workflow))
    for text in expected:
        assert text in str(caught.value)


def test_faults_of_domain_search_learner_and_run_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        config(
            Cage2(workflow="user,user", search=SearchConfig(compliance_threshold=95, alignment_lambda=-1)),
            ppo=PPOConfig(normalize_observations=True),
            workers=0,
        )
    lines = str(caught.value).splitlines()
    assert lines[0] == "5 settings cannot work:"
    for name in ("workflow", "normalize-observations", "compliance-threshold", "alignment-lambda", "workers"):
        assert sum(name in line for line in lines) == 1, name


@pytest.mark.parametrize("red_agent", ["B_linAgent", "my_agents:Red"])
def test_red_agent_that_the_compiled_simulator_does_not_have_is_refused_with_the_factory(red_agent: str) -> None:
    with pytest.raises(ConfigError, match=rf"red-agent: .*{red_agent}"):
        config(Cage2(red_agent=red_agent)).env_factory()


@pytest.mark.parametrize(
    ("workflow", "metrics", "bonus"),
    [("none", (), None), ("reverse", ("compliance",), 2.5), ("search", ("compliance",), 2.5)],
)
def test_compliance_is_its_metric_and_alignment_its_bonus_where_there_is_an_order(
    workflow: str, metrics: tuple[str, ...], bonus: float | None
) -> None:
    factory = config(Cage2(workflow=workflow, search=SearchConfig(alignment_lambda=2.5))).env_factory()
    assert factory.metrics == metrics
    assert dict(factory.kwargs).get("alignment_lambda") == bonus


@pytest.mark.parametrize("simulator", ["compiled", "cyborg"])
def test_only_names_and_plain_values_travel_to_the_workers(simulator: Any) -> None:
    sent = pickle.dumps(config(Cage2(simulator=simulator)).env_factory())
    assert b"aiotrain.cage2.domain" not in sent
    assert b"SearchConfig" not in sent


def imported(code: str) -> set[str]:
    """The modules that a fresh interpreter has imported after ``code``."""
    code += "\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.split())


def test_the_settings_import_neither_torch_nor_a_simulator() -> None:
    found = imported("from aiotrain.cage2 import Cage2\nCage2()")
    assert not found & {"torch", "numba", "csle_cyborg", "asyncio", "sklearn"}, "reading the settings takes seconds"


@pytest.mark.parametrize("simulator", ["compiled", "cyborg"])
def test_a_worker_makes_its_environment_without_the_domain(simulator: Any) -> None:
    sent = pickle.dumps(config(Cage2(simulator=simulator)).env_factory())
    found = imported(f"import pickle\npickle.loads({sent!r})().reset(seed=0)")
    assert "aiotrain.cage2.domain" not in found
    assert not {name for name in found if name.startswith(("aiotrain.cage2.search", "aiotrain.training"))}
