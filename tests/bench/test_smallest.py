"""Every script runs in its smallest form and reports in the one shape; figures are looked at, never for their speed."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.tools.script import ROOT, Script, scripts

HEAD = {"what", "command", "commit", "dirty", "cpu", "cores", "python", "packages", "date", "seconds", "details"}
ROW = {"subject", "name", "value", "unit"}
SERIES = {"repeats", "spread", "ratio_to", "ratio", "ceilings"}
WITHOUT_SERIES = {"same_weights"}
"""Scripts whose values are no numbers."""


def run(module: str, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run a module in a folder of its own, where what it leaves is seen by nobody."""
    return subprocess.run(
        [sys.executable, "-m", module, *flags],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("script", scripts(), ids=lambda script: script.name)
def test_a_script_runs_in_its_smallest_form(script: Script, tmp_path: Path) -> None:
    done = run(f"bench.{script.name}", tmp_path, "--smallest", "--json", "report.json")
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout, "it prints nothing"
    assert done.stderr, "it shows no progress"
    report = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert report.keys() >= HEAD
    assert report["command"] == f"python -m bench.{script.name} --smallest --json report.json"
    assert report["results"], "it reports no figures"
    for row in report["results"]:
        assert row.keys() >= ROW, row
        if script.name not in WITHOUT_SERIES:
            check_series(row)


def check_series(row: dict[str, Any]) -> None:
    """Fail unless a row has its repeats, and a ratio with a ceiling for each of them, or neither."""
    assert row.keys() >= SERIES, row
    assert row["repeats"], row
    assert all(math.isfinite(value) for value in (*row["repeats"], row["value"])), row
    if row["ratio_to"] is None:
        assert (row["ratio"], row["ceilings"]) == (None, []), row
    else:
        assert len(row["ceilings"]) == len(row["repeats"]), row
        assert row["ratio"] == "too noisy" or math.isfinite(row["ratio"]), row


def refuse(constant: str) -> None:
    pytest.fail(f"{constant} is no JSON")


def test_the_list_names_every_script_with_its_duration(tmp_path: Path) -> None:
    listed = run("bench", tmp_path)
    assert listed.returncode == 0, listed.stderr
    for script in scripts():
        assert f"bench.{script.name}" in listed.stdout
        assert script.takes.split()[0] in listed.stdout
        assert len(script.summary) <= 120, script.summary


def test_a_file_without_a_head_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fast.py").write_text('"""How fast it is."""\n\nTAKES = "an hour"\n')
    with pytest.raises(ValueError, match="SMALLEST"):
        Script.of(tmp_path / "fast.py")


def test_flags_beside_smallest_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "fast.py"
    file.write_text('"""How fast it is.\n\nVery."""\nTAKES = "an hour"\nSMALLEST = "--repeats 1 --seconds 2"\n')
    script = Script.of(file)
    assert (script.summary, script.takes) == ("How fast it is.", "an hour")
    parser = script.parser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=70)
    monkeypatch.setattr(sys, "argv", ["fast", "--smallest", "--seconds", "3", "--workers", "4"])
    arguments, others = script.parse_known(parser)
    assert (arguments.repeats, arguments.seconds, others) == (1, 3, ["--workers", "4"])
