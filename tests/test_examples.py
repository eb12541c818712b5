"""The examples run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def python(*arguments: str, also: tuple[Path, ...] = (), cwd: Path = ROOT) -> str:
    """Return what a program prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *also)))},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("example", "last"),
    [
        ("custom_env.py", r" 2000 episodes, mean return +-\d+\.\d"),
        ("curriculum.py", r" 1000 episodes: walks begin in cell 20, +\d+% arrive"),
        ("embed.py", r" 2000 episodes, mean return +-\d+\.\d"),
    ],
)
def test_scripts_print_what_they_train(example: str, last: str) -> None:
    *_, line = python(str(EXAMPLES / example)).splitlines()
    assert re.fullmatch(last, line), line


def test_curriculum_is_named_as_a_flag(tmp_path: Path) -> None:
    flags = ["--env", "examples.curriculum:Corridor", "--curriculum", "examples.curriculum:Further"]
    budget = ["--workers", "1", "--total-episodes", "40", "--episodes-per-update", "20", "--plain"]
    run = ["--run-dir", str(tmp_path / "run"), "--metrics", "success"]
    printed = python("-m", "aiotrain", *flags, *budget, *run)
    assert "success=" in printed
    assert (tmp_path / "run" / "updates.csv").read_text().splitlines()[1].endswith(",from 2")


def test_own_domain_is_found_and_trained(tmp_path: Path) -> None:
    """Announced as ``pip install examples/own_domain`` does."""
    project = tomllib.loads((EXAMPLES / "own_domain" / "pyproject.toml").read_text())["project"]
    about = tmp_path / f"{project['name']}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (group, entries) = next(iter(project["entry-points"].items()))
    (about / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{a} = {b}\n" for a, b in entries.items()))
    flags = ["--env", "tank/Tank-v0", "--leak", "0.02", "--workers", "1", "--total-episodes", "40", "--plain"]
    also = (EXAMPLES / "own_domain", tmp_path)
    printed = python("-m", "aiotrain", *flags, "--episodes-per-update", "20", also=also, cwd=tmp_path)
    assert "leak        2.0% a step" in printed
    assert "steady=" in printed
