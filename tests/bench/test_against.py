"""bench.against: its verdicts, and that each tree's own aiotrain is run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench import against
from bench.tools import checkouts
from bench.tools.figures import Figure


def figure(name: str, ratios: list[float]) -> Figure:
    return Figure("job", name, "", ratios, "abc", [1.0] * len(ratios))


@pytest.mark.parametrize(
    ("name", "ratios", "verdict"),
    [
        ("steps_per_s", [0.90, 0.93, 0.95, 0.99, 0.92], "slower"),
        ("steps_per_s", [1.10, 1.03, 1.05, 1.09, 1.02], "faster"),
        ("cpu_s", [1.10, 1.03, 1.05, 1.09, 1.02], "slower"),
        ("cpu_s", [0.90, 0.93, 0.95, 0.99, 0.92], "faster"),
        ("cpu_s", [1.10, 1.03, 1.05, 1.09, 0.99], "within noise"),
        ("cpu_s", [1.02, 1.03, 1.01, 1.04, 1.02], "within noise"),
        ("cpu_s", [1.10, 1.20, 1.30], "within noise"),
        ("cpu_s", [1.40, 1.50, 1.30], "slower"),
        ("cpu_s", [2.0, 2.0], "too few repeats"),
    ],
)
def test_a_figure_is_slower_if_all_repeats_say_so_and_by_more_than_is_noise(
    name: str, ratios: list[float], verdict: str
) -> None:
    assert against.verdict(figure(name, ratios)) == verdict


def test_every_figure_of_every_job_has_a_unit() -> None:
    assert {name for job in against.JOBS.values() for name in job.figures} <= against.UNITS.keys()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project with an aiotrain of its own, one commit, and changes since."""
    root = tmp_path / "project"
    (root / "aiotrain").mkdir(parents=True)
    (root / "aiotrain" / "__init__.py").write_text("version = 1\n")
    (root / "gone.py").touch()
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "1"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / "aiotrain" / "__init__.py").write_text("version = 2\n")
    (root / "new.py").touch()
    (root / "gone.py").unlink()
    monkeypatch.setattr(checkouts, "ROOT", root)
    return root


def test_a_commit_and_the_working_tree_are_extracted_beside_each_other(project: Path, tmp_path: Path) -> None:
    commit = checkouts.commit_of("HEAD")
    other, this = checkouts.extract(commit, tmp_path / "other"), checkouts.extract_working_tree(tmp_path / "this")
    versions = [(tree / "aiotrain" / "__init__.py").read_text() for tree in (other, this)]
    assert versions == ["version = 1\n", "version = 2\n"]
    assert sorted(path.name for path in other.iterdir() if path.is_file()) == ["gone.py"]
    assert sorted(path.name for path in this.iterdir() if path.is_file()) == ["new.py"]


def test_a_tree_whose_aiotrain_is_not_the_one_that_python_imports_is_refused(tmp_path: Path) -> None:
    (tmp_path / "aiotrain").mkdir()  # without __init__.py, a package further down the path wins
    with pytest.raises(SystemExit, match="instead"):
        checkouts.check_imports(tmp_path)


def test_a_name_that_is_no_commit_is_refused(project: Path) -> None:
    with pytest.raises(SystemExit, match="nowhere is no commit"):
        checkouts.commit_of("nowhere")
