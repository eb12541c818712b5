"""Evaluating a run: it plays what was trained, on what it was trained on, and says what it cannot play."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from aiotrain import (
    AiotrainError,
    Config,
    ConfigError,
    EnvError,
    InvalidStepError,
    SearchConfig,
    evaluate,
    evaluate_cage2,
    train,
)
from aiotrain.app.main import main
from aiotrain.cage2.official.protocol import Cell
from aiotrain.cage2.scenario import HOST_TYPES, action_index
from aiotrain.cage2.search.workflow_search import Training
from aiotrain.cage2.workflows import NAMED_ORDERS, ORDERS, order_text
from aiotrain.config import PPOConfig
from aiotrain.play.factory import make_factory
from aiotrain.play.inspection import inspect_env
from aiotrain.play.player import episode_streams
from aiotrain.play.policy import PolicyShape
from aiotrain.runs.checkpoints import save_weights
from aiotrain.runs.journals import Records
from aiotrain.testing import Fault, faulty
from envs import Action, Masked, Observation, Toy

ROOT = Path(__file__).parents[2]
REVERSE = NAMED_ORDERS["reverse"]


class Counting(gymnasium.Env[Any, Any]):
    """An episode of some hundred steps, as its seed says. The reward is the action, 0 to 2."""

    observation_space = spaces.MultiBinary(2)
    action_space = spaces.Discrete(3)
    seeds: list[int | None] = []  # noqa: RUF012 (of all instances)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.left = self.length = int(self.np_random.integers(1, 400))
        return np.zeros(2, np.int8), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.left -= 1
        return np.zeros(2, np.int8), float(action), self.left == 0, False, {}


class FiveActions(Toy):
    """Masked without masks."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Discrete(5)


class Interrupted(Counting):
    """Ctrl-C arrives in the middle of an episode."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self.left == self.length // 2:
            signal.raise_signal(signal.SIGINT)
        return super().step(action)


def write_run(
    folder: Path, env: Any = Counting, bias: Callable[[int], float] = lambda output: 0.0, **settings: Any
) -> Path:
    """What a run leaves behind, with a policy that looks at nothing; ``bias`` gives the logit of each action."""
    config = Config(env=env, ppo=PPOConfig(hidden_sizes=()), **settings)
    factory = make_factory(config)
    made, spec = inspect_env(factory)
    made.close()
    shape = PolicyShape.of(spec, ())
    tensors = {
        "input_mean": np.zeros(shape.inputs, np.float32),
        "input_scale": np.ones(shape.inputs, np.float32),
        "actor.0.weight": np.zeros((shape.outputs, shape.inputs), np.float32),
        "actor.0.bias": np.array([bias(output) for output in range(shape.outputs)], np.float32),
    }
    if shape.kind == "gaussian":
        tensors["log_std"] = np.zeros(shape.outputs, np.float32)
    Records(folder, config.resolved(), tensorboard=False).close()
    save_weights(folder / "weights.safetensors", tensors, shape, spec)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", bias=lambda output: [0.0, 1.0, 2.0][output])


# ------------------------------------------------------------------- what is played


def test_greedy_and_sampled_actions_earn_what_they_should(run: Path) -> None:
    greedy = evaluate(run, episodes=50, greedy=True)
    assert (greedy.returns == 2 * greedy.lengths).all(), "not always the most probable action"
    assert (greedy.lengths.min(), greedy.lengths.max()) > (0, 128), "no episode outgrows what is kept at a time"
    sampled = evaluate(run, episodes=50)
    assert (sampled.lengths == greedy.lengths).all(), "other episodes"
    probabilities = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    mean = probabilities @ [0, 1, 2]
    variance = probabilities @ [0, 1, 4] - mean**2
    steps = sampled.lengths.sum()
    assert abs(sampled.returns.sum() - steps * mean) < 4 * math.sqrt(steps * variance)
    numbers = sampled.summary()
    assert numbers["mean_return"] == pytest.approx(sampled.returns.mean())
    assert numbers["standard_error"] == pytest.approx(np.std(sampled.returns, ddof=1) / math.sqrt(50))
    assert numbers["mean_length"] == pytest.approx(steps / 50)
    assert "compliance" not in numbers


def test_episodes_are_a_function_of_their_number_and_the_seed(run: Path) -> None:
    told: list[tuple[int, int]] = []
    many = evaluate(run, episodes=40, seed=5, progress=lambda count, of: told.append((count, of)))
    few = evaluate(run, episodes=3, seed=5)
    assert (many.returns[:3] == few.returns).all()
    assert (evaluate(run, episodes=3, seed=6).returns != few.returns).any()
    assert told == sorted(told)
    assert told[-1] == (40, 40)


def test_no_episode_is_one_that_was_trained_on(run: Path) -> None:
    Counting.seeds.clear()
    evaluate(run, episodes=100, seed=0)
    trained = {episode_streams(Config.seed, episode)[0] for episode in range(10_000)}
    _, *played = Counting.seeds  # the first reset is for a look at what the environment tells
    assert len(set(played)) == 100
    assert not trained & set(played)


@pytest.mark.parametrize("action", ["discrete", "shifted", "gaussian"])
@pytest.mark.parametrize("observation", ["box", "bits", "one_hot"])
def test_every_kind_of_space_is_played(observation: Observation, action: Action, tmp_path: Path) -> None:
    def make() -> Toy:  # refuses actions that its space does not have
        return Toy(observation, action)

    run = write_run(tmp_path / "run", make, bias=lambda output: 0.25)
    greedy = evaluate(run, env=make, episodes=400, greedy=True)
    if action == "gaussian":  # the reward is the sum of both, and normal noise
        mean = greedy.returns.sum() / greedy.lengths.sum()
        assert mean == pytest.approx(0.5, abs=4 / math.sqrt(greedy.lengths.sum()))
    assert np.isfinite(evaluate(run, env=make, episodes=10).returns).all()


def test_masks_bind_a_finished_policy_too(tmp_path: Path) -> None:
    """The environment refuses what its mask bars, and bars what this policy likes best."""
    run = write_run(tmp_path / "run", Masked, bias=lambda output: float(output))
    for greedy in (True, False):
        assert np.isfinite(evaluate(run, env=Masked, episodes=30, greedy=greedy).returns).all()
    with pytest.raises(ConfigError, match=r"other spaces .* has action mask True, now False"):
        evaluate(run, env=lambda: FiveActions(), episodes=2)


def test_the_environment_is_made_as_in_training(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "envs:toy", max_episode_steps=5)
    evaluation = evaluate(run, episodes=30)
    assert evaluation.lengths.max() == 5, "the training's limit is forgotten"
    assert evaluate(run, episodes=30, max_episode_steps=4).lengths.max() == 4
    assert evaluation.settings["environment"] == "envs:toy"


# --------------------------------------------------------------------- CAGE 2


def test_a_policy_is_shown_the_order_that_it_is_evaluated_by(tmp_path: Path) -> None:
    """With a type in the first place, it restores a host of a number of its own; that costs 1 a step."""
    run = write_run(tmp_path / "run", env=Config.env, red_agent="SleepAgent", workflow="reverse", max_episode_steps=9)
    first_bit = 52 + HOST_TYPES.index("defender")

    def show(path: Path) -> None:
        from safetensors.numpy import load_file

        from aiotrain import load_policy

        policy, spec = load_policy(path)
        tensors = load_file(path)
        tensors["actor.0.weight"][action_index("Restore", "User1"), first_bit] = 100
        tensors["actor.0.bias"][action_index("Sleep")] = 50
        save_weights(path, tensors, policy.shape, spec)

    show(run / "weights.safetensors")
    for simulator in ("compiled", "cyborg"):
        mine = evaluate(run, episodes=3, simulator=simulator)
        assert mine.settings["workflow"] == order_text(REVERSE)
        assert mine.returns.tolist() == [0, 0, 0], "the order of the training begins with user"
        other = evaluate(run, episodes=3, simulator=simulator, workflow="critical_first", rules="main")
        assert other.returns.tolist() == [-9, -9, -9]
    challenge = evaluate_cage2(run, episodes=2, workflow="critical_first", rules="leaderboard")
    asleep = [each.mean_return for cell, each in challenge.cells.items() if cell.red_agent == "SleepAgent"]
    assert asleep == [-30, -50, -100]
    assert challenge.settings["workflow"] == order_text(NAMED_ORDERS["critical_first"])


def test_compact_actions_are_masked_in_evaluation(tmp_path: Path) -> None:
    """Where red sleeps, nothing has happened on any host, so that this policy may not restore any."""
    view: dict[str, Any] = {"observation": "memory", "actions": "compact"}
    run = write_run(tmp_path / "run", Config.env, lambda output: 20.0 * (17 <= output < 25), workflow="none", **view)
    challenge = evaluate_cage2(run, episodes=2)
    means = {cell: each.mean_return for cell, each in challenge.cells.items()}
    assert [mean for cell, mean in means.items() if cell.red_agent == "SleepAgent"] == [0, 0, 0]
    assert means[Cell(100, "B_lineAgent")] < -10, "nothing is restored where it may be"
    assert evaluate(run, episodes=2, simulator="cyborg").mean_return < -10


def test_a_run_is_evaluated_by_its_own_rules_and_at_each_of_its_checkpoints(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = Config(
        red_agent="mixed",
        rules="leaderboard",
        workflow="none",
        actions="compact",
        workers=1,
        total_episodes=30,
        episodes_per_update=10,
        checkpoint_every=1,
        run_dir=str(run),
        ppo=PPOConfig(hidden_sizes=(8,), learning_rate=0.05, horizons=(30, 50, 100)),
    )
    asyncio.run(asyncio.wait_for(train(config), 60))
    last = evaluate_cage2(run, episodes=10)
    assert last.settings["rules"] == "leaderboard"
    assert evaluate_cage2(run, episodes=10, rules="main").total != last.total
    checkpoints = sorted((run / "checkpoints").glob("update-*.safetensors"))
    totals = [evaluate_cage2(each, episodes=10).total for each in checkpoints]
    assert len(set(totals)) == 3
    assert totals[-1] == last.total
    assert evaluate(checkpoints[-1], episodes=10).returns.tolist() == evaluate(run, episodes=10).returns.tolist()
    with pytest.raises(ConfigError, match="csle-cyborg plays by the rules main only"):
        evaluate(run, simulator="cyborg")
    assert evaluate(run, episodes=2, simulator="cyborg", rules="main").settings["red_agent"] == "mixed"
    checkpoints[0].write_bytes(checkpoints[0].read_bytes()[:-1])
    with pytest.raises(AiotrainError, match="cut off"):
        evaluate(checkpoints[0])
    with pytest.raises(ConfigError, match=r"update-7|no file|there is no"):
        evaluate(run / "checkpoints" / "update-7.safetensors")


def search_run(folder: Path, trainings: list[tuple[str, float, bool]], **search: Any) -> Path:
    """A search that came to ``trainings``: order, return, and whether it complied and was learned from."""
    run = write_run(folder, env=Config.env, workflow_search=SearchConfig(**search))
    for row, (order, value, good) in enumerate(trainings):
        training = Training(row, order, 0.0, 0.0, 1.0, value, 1.0, 0.9, 100, "compliance", good, good)
        with (run / "workflows.csv").open("a") as file:
            if not row:
                file.write(",".join(training._fields) + "\n")
            file.write(",".join(f'"{value}"' for value in training) + "\n")
    return run


def test_of_a_search_the_best_order_is_evaluated(tmp_path: Path) -> None:
    found = [
        (order_text(ORDERS[7]), -30.0, True),
        (order_text(ORDERS[100]), -12.0, True),
        (order_text(REVERSE), -1.0, False),
    ]
    run = search_run(tmp_path / "run", found)
    assert evaluate(run, episodes=2).settings["workflow"] == order_text(ORDERS[100])
    assert evaluate(run, episodes=2, workflow="reverse").settings["workflow"] == order_text(REVERSE)


def test_an_order_with_a_policy_of_its_own_is_played_by_that(tmp_path: Path) -> None:
    found = [(order_text(ORDERS[7]), -30.0, True)]
    run = search_run(tmp_path / "run", found, inherit="nearest", parallel_workflows=1)
    (run / "weights.safetensors").rename(run / f"weights-{'-'.join(ORDERS[7])}.safetensors")
    assert evaluate(run, episodes=2).settings["workflow"] == order_text(ORDERS[7])
    with pytest.raises(ConfigError, match=f"there is no file .*weights-{'-'.join(REVERSE)}.safetensors"):
        evaluate(run, workflow="reverse")


def test_a_search_that_came_to_nothing_asks_for_an_order(tmp_path: Path) -> None:
    run = search_run(tmp_path / "run", [])
    with pytest.raises(ConfigError, match=r"no training of an order has ended; name one by workflow \(--workflow\)"):
        evaluate(run)
    (run / "workflows.csv").write_text("workflow,value\nuser,1\n")
    with pytest.raises(ConfigError, match=r"workflows.csv is damaged \(KeyError"):
        evaluate(run)


def test_a_policy_of_another_environment_plays_cage2_without_a_workflow(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", env=lambda: gymnasium.make(Config.env, simulator="compiled"))
    assert evaluate(run, env=Config.env, episodes=2).lengths.tolist() == [100, 100]


# ------------------------------------------------------------------ what cannot be


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (lambda: Counting(), r"<lambda> is an environment that a program gave .* module:factory \(--env\)"),
        ("no_such_module:make", "no module 'no_such_module'"),
        ("CartPole-v11", "not registered"),
    ],
)
def test_an_environment_that_cannot_be_found_again_is_asked_for(env: Any, message: str, run: Path) -> None:
    values = Config(env=env).resolved()
    (run / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=message):
        evaluate(run)
    assert len(evaluate(run, env=Counting, episodes=2).returns) == 2


@pytest.mark.parametrize(
    ("name", "also"),
    [("weights.safetensors", ""), (f"weights-{'-'.join(REVERSE)}.safetensors", f", and {order_text(REVERSE)} by wo")],
)
def test_for_weights_the_folder_of_their_run_is_asked_for(name: str, also: str, run: Path) -> None:
    (run / "weights.safetensors").rename(run / name)
    with pytest.raises(ConfigError, match=f"holds weights alone: name the folder of their run, {run}{also}"):
        evaluate(run / name)


def test_an_environment_with_other_spaces_is_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"other spaces .* in training, .*observation shape \(2,\), now \(3,\)"):
        evaluate(run, env=Toy)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "config.json").unlink(), "holds no run: there is no config.json"),
        (lambda run: (run / "config.json").write_text("{"), "config.json is damaged"),
        (lambda run: (run / "config.json").write_text("[]"), "config.json is damaged"),
        (lambda run: (run / "config.json").write_text('{"wrokers": 1}'), "of another version .*wrokers"),
        (lambda run: (run / "config.json").write_text('{"workers": 0}'), "workers must be at least 1"),
        (lambda run: (run / "weights.safetensors").unlink(), "a run writes its weights when it ends"),
    ],
)
def test_a_folder_that_holds_no_finished_run_is_refused(damage: Any, message: str, run: Path) -> None:
    damage(run)
    with pytest.raises(ConfigError, match=message):
        evaluate(run)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"episodes": 1}, "at least 2"),
        ({"seed": -1}, "negative"),
        ({"workflow": "reverse"}, "trained without any"),
        ({"simulator": "cyborg"}, "simulator and rules are for aiotrain/Cage2-v0"),
        ({"rules": "leaderboard"}, "simulator and rules are for aiotrain/Cage2-v0"),
        ({"max_episode_steps": 0}, "at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "envs:toy")
    with pytest.raises(ConfigError, match=message):
        evaluate(run, **settings)
    if "rules" in settings:
        with pytest.raises(ConfigError, match="another environment than aiotrain/Cage2-v0"):
            evaluate_cage2(run)


@pytest.mark.parametrize(("fault", "error"), [("raise", EnvError), ("nan", InvalidStepError)])
def test_an_episode_that_breaks_off_names_itself(fault: Fault, error: type[Exception], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "envs:toy")
    with pytest.raises(error, match=r"episode \d+, seed \d+, step \d+"):
        evaluate(run, env=faulty(Toy, fault), episodes=5)


def test_ctrl_c_leaves_nothing_behind(run: Path) -> None:
    """What is left, the fixture of all tests finds."""
    with pytest.raises(KeyboardInterrupt):
        evaluate(run, env=Interrupted)


# ------------------------------------------------------------------ command line


def test_the_command_line_shows_it_and_writes_it_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    run = write_run(tmp_path / "run[" / "red]:smile:", "envs:toy")  # which Rich would take for markup
    assert main(["evaluate", str(run), "--episodes", "20", "--greedy", "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    expected = evaluate(run, episodes=20, greedy=True, seed=3)
    written = json.loads((run / "evaluation.json").read_text())
    assert written == {**expected.settings, **expected.summary()}
    assert "mean return" in out
    assert "standard error" in out
    assert f"written to {run / 'evaluation.json'}" in out
    assert err == ""
    other = tmp_path / "numbers.json"
    flags = ["--protocol", "cage2", "--agent", "random", "--rules", "leaderboard", "--episodes", "5"]
    assert main(["evaluate", *flags, "--json", str(other)]) == 0
    challenge = evaluate_cage2(agent="random", rules="leaderboard", episodes=5)
    assert json.loads(other.read_text()) == {**challenge.settings, **challenge.summary()}
    assert "CardiffUni" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "name the folder of a run"),
        (["--agent", "sleep"], "both --protocol cage2 and an --agent"),
        (["--protocol", "cage2"], "either a run or one of the agents"),
        (["nothing"], "there is no nothing: name the folder of a run, or a checkpoint in it"),
        (["--protocol", "cage2", "--agent", "sleep", "--max-episode-steps", "9"], "max-episode-steps of its own"),
        (
            ["--protocol", "cage2", "--agent", "sleep", "--episodes", "2", "--json", "/proc/x"],
            "json: /proc/x cannot be",
        ),
        (["nothing", "--json", "nowhere/x.json"], "json: nowhere/x.json cannot be written: name a file in a folder"),
        (["nothing", "--json", "/"], "json: / cannot be written"),
    ],
)
def test_what_cannot_work_ends_with_2_and_the_reason(
    flags: list[str], expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["evaluate", *flags]) == 2
    err = capsys.readouterr().err
    assert err.startswith("aiotrain: ")
    assert expected in err


ENDLESS = """
from pathlib import Path
import gymnasium, numpy as np

class Endless(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.MultiBinary(2), gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.int8), {}

    def step(self, action):
        Path("stepping").touch()
        return np.zeros(2, np.int8), 0.0, False, False, {}

    def close(self):
        print("closed", flush=True)
"""


@pytest.mark.parametrize(("which", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_in_order(which: signal.Signals, code: int, run: Path, tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(ENDLESS)
    process = subprocess.Popen(
        [sys.executable, "-m", "aiotrain", "evaluate", "run", "--env", "endless:Endless", "--episodes", "2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "stepping").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no step within a minute"
        time.sleep(0.01)
    process.send_signal(which)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (code, "closed\nclosed\n", "")
    assert not (run / "evaluation.json").exists()
