"""What the program tells of itself."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys

import pytest
from program import RUN
from rich.cells import cell_len

from aiotrain.app.main import Arguments
from aiotrain.cage2 import Cage2, SearchConfig
from aiotrain.config import PPOConfig


@pytest.fixture(scope="module")
def help_text() -> str:
    done = subprocess.run(
        [sys.executable, str(RUN), "--help"],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_help_fits_a_terminal_of_80_columns(help_text: str) -> None:
    wide = [line for line in help_text.splitlines() if cell_len(line) > 80]
    assert not wide, f"wider than 80 cells: {wide}"


def test_help_tells_the_other_commands(help_text: str) -> None:
    assert "aiotrain plot RUN" in help_text
    assert "aiotrain evaluate RUN" in help_text
    assert "aiotrain export RUN" in help_text
    assert "aiotrain replay RUN" in help_text


def test_help_documents_every_option(help_text: str) -> None:
    settings = [field for each in (Arguments, PPOConfig, Cage2, SearchConfig) for field in dataclasses.fields(each)]
    options: dict[str, str] = {}
    for line in help_text.splitlines():
        flags = re.match(r"│ (-[^│]*?)(?:  +|│| │)([^│]*)", line)
        if flags:
            names = re.findall(r"--([a-z-]+)", flags[1])
            options |= dict.fromkeys(names, "")
        text = line.strip("│ ") if not flags else flags[2].strip()
        for name in names if options else ():
            options[name] += f" {text}"
    for setting in settings:
        if setting.name not in ("ppo", "search"):
            said = options.get(setting.name.replace("_", "-"))
            assert said is not None, f"{setting.name} is no option"
            assert len(said.partition("(default:")[0].strip()) > 15, f"{setting.name} is not explained: {said!r}"
            assert "(default:" in said, f"the default of {setting.name} is not told: {said!r}"
