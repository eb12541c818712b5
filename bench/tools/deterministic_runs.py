"""The configurations whose trained weights ``bench.same_weights`` compares, as flags of the program.

Each is deterministic, and small: seconds.
"""

from __future__ import annotations

import shlex
from typing import NamedTuple

from bench.tools.program import command_of

__all__ = ["CONFIGURATIONS", "ENVS", "ENVS_SOURCE", "Configuration"]

COMMON = "--deterministic --device cpu --plain"
CAGE2 = "--workers 2 --total-episodes 400"
CYBORG = "--simulator cyborg --workers 2 --total-episodes 24 --episodes-per-update 8"
CARTPOLE = "--env CartPole-v1 --workers 2 --total-episodes 120 --episodes-per-update 20"
PENDULUM = "--env Pendulum-v1 --workers 2 --total-episodes 60 --episodes-per-update 10"
IN_STEPS = "--total-episodes 1000000 --total-steps 8000 --steps-per-update 1000"
CUT = f"--env CartPole-v1 --slot-steps 16 {IN_STEPS}"
ENVS = "same_weights_envs"
"""Name of a module that is written into each checkout, and looks in each worker at what that imports."""
LOOKED_AT = f"{CARTPOLE} --env {ENVS}:cartpole"
ENVS_SOURCE = """
from pathlib import Path

import gymnasium

import aiotrain
from aiotrain.testing import faulty

here = Path(__file__).resolve().parent
assert Path(aiotrain.__file__).resolve().parent == here / "aiotrain", f"a worker imports {aiotrain.__file__}"
marks = here / "marks"
marks.mkdir(exist_ok=True)


def cartpole():
    return gymnasium.make("CartPole-v1")


killed = faulty("CartPole-v1", "kill", at="step", episodes=[3, 41, 42, 90], marks=marks)
given_up = faulty("CartPole-v1", "kill", at="step", episodes=[7, 63])
"""


class Configuration(NamedTuple):
    """Flags of the program, and what must be found in the records that the run leaves."""

    flags: str
    then: str = ""
    """Flags of a second run, with {run} for the folder of the first, which it resumes."""
    shows: str = ""
    """A regular expression that must match in events.jsonl or workflows.csv."""

    def commands(self, run_dir: str) -> list[list[str]]:
        """Return the commands of the runs, one or two."""
        runs = [f"{self.flags} --run-dir {shlex.quote(run_dir)}"]
        if self.then:
            runs.append(self.then.format(run=shlex.quote(run_dir)))
        return [command_of(shlex.split(f"{COMMON} {flags}")) for flags in runs]

    def __str__(self) -> str:
        return f"{self.flags}; then {self.then.format(run='RUN')}" if self.then else self.flags


ONE_BY_ONE = "--parallel-workflows 1 --max-episodes-per-workflow 60 --episodes-per-update 20 --patience 2"
FOUR_ENDED, TWENTY_ENDED = r"(?m)^4,", r"(?m)^20,"
"""Of workflows.csv: the line of the fourth training that has ended, and of the twentieth."""

CONFIGURATIONS = {
    # CAGE 2: the search over orders, and without it
    "search": Configuration(CAGE2),
    "search-memory-compact": Configuration(f"{CAGE2} --observation memory --actions compact"),
    "search-many-orders": Configuration(
        "--workers 3 --total-episodes 600 --max-episodes-per-workflow 20 --parallel-workflows 8", shows=TWENTY_ENDED
    ),
    "search-mixed": Configuration(f"{CAGE2} --red-agent mixed --red-shares 1 2 1 --seed 5"),
    "search-nearest": Configuration(f"{CAGE2} {ONE_BY_ONE} --inherit nearest", shows=FOUR_ENDED),
    "search-no-inheritance": Configuration(f"{CAGE2} {ONE_BY_ONE} --inherit none", shows=FOUR_ENDED),
    "search-schedule": Configuration(
        "--workers 2 --total-episodes 600 --parallel-workflows 1 --fixed-episodes 20 --episodes-per-update 20 "
        "--gp-beta schedule",
        shows=TWENTY_ENDED,
    ),
    "search-random": Configuration(
        f"{CAGE2} --search random --fixed-episodes 20 --parallel-workflows 4 --alignment-lambda 0", shows=FOUR_ENDED
    ),
    "one-order": Configuration(f"{CAGE2} --workflow critical_first"),
    "no-order": Configuration(f"{CAGE2} --workflow none --red-agent RedMeanderAgent"),
    "mixed-memory-compact": Configuration(
        f"{CAGE2} --workflow none --red-agent mixed --observation memory --actions compact --horizons 30 50 100"
    ),
    "leaderboard": Configuration(f"{CAGE2} --rules leaderboard --envs-per-worker 8"),
    "cage2-in-steps": Configuration(f"--workflow none --workers 2 --envs-per-worker 3 {IN_STEPS}"),
    "cage2-fragments": Configuration(
        f"{CAGE2} --workflow none --max-episode-steps 30 --slot-steps 11 --envs-per-worker 3"
    ),
    "cyborg": Configuration(CYBORG),
    "cyborg-mixed-memory-compact": Configuration(
        f"{CYBORG} --red-agent mixed --workflow none --observation memory --actions compact --envs-per-worker 2"
    ),
    # Gymnasium's environments
    "cartpole": Configuration(CARTPOLE),
    "cartpole-in-steps": Configuration(f"--env CartPole-v1 --workers 2 {IN_STEPS}"),
    "pendulum": Configuration(PENDULUM),
    "pendulum-in-steps": Configuration(f"--env Pendulum-v1 --workers 2 {IN_STEPS}"),
    "acrobot": Configuration("--env Acrobot-v1 --workers 2 --total-episodes 24 --episodes-per-update 6"),
    "frozenlake": Configuration("--env FrozenLake-v1 --workers 2 --total-episodes 400 --episodes-per-update 50"),
    "taxi": Configuration("--env Taxi-v4 --workers 2 --total-episodes 60 --episodes-per-update 15"),
    # how it is played
    "four-workers": Configuration(f"{LOOKED_AT} --workers 4"),
    "envs-per-worker": Configuration(f"{CARTPOLE} --envs-per-worker 4"),
    "fragments": Configuration(f"{PENDULUM} --slot-steps 64 --envs-per-worker 3"),
    # Counting steps, an episode's next fragment takes the place of what would be played next, so that workers which
    # share memory make batches that depend on timing. These two collectors do not.
    "fragments-sequential": Configuration(f"{CUT} --collector sequential --envs-per-worker 2"),
    "fragments-synchronous": Configuration(f"{CUT} --collector synchronous --workers 2"),
    "killed-workers": Configuration(f"{CARTPOLE} --env {ENVS}:killed", shows=r'"lost": [1-9]'),
    "given-up-episodes": Configuration(f"{CARTPOLE} --env {ENVS}:given_up", shows=r'"given_up": [1-9]'),
    "sequential": Configuration(f"{CARTPOLE} --collector sequential"),
    "synchronous": Configuration(f"{LOOKED_AT} --collector synchronous"),
    "process-per-episode": Configuration(f"{LOOKED_AT} --collector process_per_episode"),
    "executor": Configuration(f"{LOOKED_AT} --collector executor --rebuild-env"),
    "ray": Configuration(f"{LOOKED_AT} --collector ray"),
    "search-sequential": Configuration(f"{CAGE2} --collector sequential --envs-per-worker 2"),
    # how it is learned
    "horizons": Configuration(f"{CARTPOLE} --max-episode-steps 60 --horizons 20 60"),
    "target-kl": Configuration(f"{CARTPOLE} --target-kl 0.005 --final-entropy-coef 0 --minibatch-size 96 --epochs 6"),
    "plain-inputs": Configuration(
        f"{PENDULUM} --normalize-observations False --no-scale-rewards --hidden-sizes 32 16 8 --clip-range 0.1"
    ),
    "normalized-bits": Configuration(f"{CYBORG} --workflow none --normalize-observations True"),
    "learner-threads": Configuration(f"{PENDULUM} --learner-threads 2 --minibatch-size 500"),
    "learner-threads-four": Configuration(f"{CAGE2} --workflow none --learner-threads 4"),
    # in two runs
    "resumed": Configuration(
        f"{CARTPOLE} --total-episodes 60", then="--resume {run} --total-episodes 120", shows='"event": "resume"'
    ),
    "resumed-search": Configuration(
        f"--workers 2 {ONE_BY_ONE} --inherit nearest --total-episodes 200",
        then="--resume {run} --total-episodes 400",
        shows='"event": "resume"',
    ),
    "resumed-from-a-checkpoint": Configuration(
        f"{PENDULUM} --checkpoint-every 2",
        then="--resume {run}/checkpoints/update-000004.safetensors --workers 3",
        shows='"event": "resume"',
    ),
}
