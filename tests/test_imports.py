"""What is imported where: a worker stays light, and the house stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import aiotrain

ROOT = Path(__file__).parents[1]


def python(code: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=cwd
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_all_is_what_is_importable() -> None:
    for name in aiotrain.__all__:
        assert name == "__version__" or getattr(aiotrain, name).__name__ == name
    assert sorted(aiotrain.__all__) == aiotrain.__all__
    assert set(aiotrain.__all__) <= set(dir(aiotrain))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        aiotrain.nothing  # noqa: B018


@pytest.mark.parametrize(
    "modules", ["aiotrain.collect.worker", "aiotrain.collect.worker, aiotrain.cage2.simulators.cyborg_env"]
)
def test_worker_imports_nothing_heavy(modules: str) -> None:
    heavy = ("torch", "asyncio", "rich", "tyro", "ray", "matplotlib", "pandas", "safetensors", "aiotrain.training")
    code = f"import sys, {modules}\nprint(*[name for name in {heavy} if name in sys.modules])"
    assert python(code) == "", "a worker imports what it has no use for"


def test_trainer_imports_no_torch_before_it_is_needed() -> None:
    """It takes seconds, in which the workers can start."""
    assert python("import sys, aiotrain.training.trainer\nprint('torch' in sys.modules)") == "False"


@pytest.mark.parametrize("module", ["aiotrain.runs.evaluate", "aiotrain.runs.export.export"])
def test_evaluation_and_export_import_neither_torch_nor_what_compiles(module: str) -> None:
    code = f"import sys, {module}\nprint(*[name for name in ('torch', 'numba', 'rich') if name in sys.modules])"
    assert python(code) == ""


def test_a_folder_of_its_name_in_the_working_directory_does_not_hide_it(tmp_path: Path) -> None:
    """Such as a clone, beside which a script lies."""
    (tmp_path / "aiotrain").mkdir()
    assert python("from aiotrain import Config\nprint(Config.__name__)", cwd=tmp_path) == "Config"


def test_each_module_imports_only_from_below() -> None:
    """The contracts are in pyproject.toml under [tool.importlinter]."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
