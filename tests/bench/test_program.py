"""Programs that scripts start: what is read of a run that goes on, and failures that are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.tools import program


def test_a_half_written_update_is_not_read(tmp_path: Path) -> None:
    assert program.updates(tmp_path) == []
    text = "update,elapsed_s,episodes,steps,mean_return\n1,0.5,50,5000,-10\n2,0.75,100,10"
    (tmp_path / "updates.csv").write_text(text)
    assert program.updates(tmp_path) == [{"elapsed_s": 0.5, "episodes": 50.0, "steps": 5000.0}]


def test_a_training_that_fails_tells_its_flags_and_the_programs_own_words() -> None:
    with pytest.raises(SystemExit, match=r"(?s)aiotrain --workers 0 failed \(2\).*workers must be at least 1, not 0"):
        program.train(["--workers", "0"])
