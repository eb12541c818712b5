"""bench.champion: trains by the program itself, goes on where it was interrupted, and refuses early."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import champion

SMALL = shlex.split(
    "--rules main --seeds 0 --plain --learner-threads 1 --episodes-per-update 32 --checkpoint-every 1 "
    "--episodes 4 --last-episodes 4 --cyborg-episodes 2"
)


def run(out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.champion", *SMALL, "--out", str(out), *flags]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=Path(__file__).parents[2]
    )


def test_a_champion_goes_on_where_it_was_and_is_evaluated(tmp_path: Path) -> None:
    begun = run(tmp_path, "--total-episodes", "64")
    assert begun.returncode == 0, begun.stderr
    (first,) = json.loads((tmp_path / "totals.json").read_text())
    assert [point["episodes"] for point in first["curve"]] == [32, 64]
    (tmp_path / "totals.json").write_text(json.dumps([first | {"seed": 5}]))
    checkpoints = tmp_path / "main-0" / "checkpoints"
    shutil.copy(checkpoints / "update-000001.safetensors", checkpoints / "update-000000.safetensors")  # of no update
    resumed = run(tmp_path, "--total-episodes", "96")
    assert resumed.returncode == 0, resumed.stderr
    result, other = json.loads((tmp_path / "totals.json").read_text())
    assert other == first | {"seed": 5}, "an earlier result was forgotten"
    assert [point["episodes"] for point in result["curve"]] == [32, 64, 96]
    assert [point["total"] for point in result["curve"][:2]] == [point["total"] for point in first["curve"]]
    assert len(result["last"]["cells"]) == len(result["cyborg"]["cells"]) == 9
    assert (tmp_path / "totals.png").stat().st_size > 10_000
    assert "total on csle-cyborg" in resumed.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--last-episodes", "1"], "must be at least 2, not 1"),
        (["--cyborg-episodes", "1"], "must be at least 2, not 1"),
        (["--seed=7"], "--seeds and --out say"),
        (["--run_dir", "x"], "--seeds and --out say"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_training(
    flags: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["champion", *SMALL, "--out", str(tmp_path), *flags])
    with pytest.raises(SystemExit, match="2"):
        champion.main()
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_settings_of_the_trainer_are_refused_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["champion", *SMALL, "--out", str(tmp_path), "--workers", "0"])
    assert champion.main() == 2
    assert "workers must be at least 1, not 0" in capsys.readouterr().err
