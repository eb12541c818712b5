"""What the program tells of itself: a flag for each field of the settings, and its docstring beside it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator

import pytest
from program import Start
from rich.cells import cell_len

from aiotrain.config import Config
from aiotrain.domains import DEFAULT_ENV, domain_of


def fields_of(settings: object) -> Iterator[tuple[type, str]]:
    """Return the settings dataclass and the name of each field, those of groups in their place."""
    for each in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, each.name)
        if dataclasses.is_dataclass(value):
            yield from fields_of(value)
        else:
            yield type(settings), each.name


def docstring_of(kind: type, field: str) -> str:
    """Return the string literal below a field in the source of its class, or of the base that has it."""
    for each in kind.__mro__[:-1]:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        for one, after in itertools.pairwise(definition.body):  # type: ignore[attr-defined]
            if isinstance(one, ast.AnnAssign) and getattr(one.target, "id", None) == field:
                return str(after.value.value) if isinstance(after, ast.Expr) else ""  # type: ignore[attr-defined]
    return ""


def told_by(help_text: str) -> dict[str, str]:
    """Return the text beside each flag, without its blanks."""
    told: dict[str, str] = {}
    for line in help_text.splitlines():
        if not line.startswith("│"):  # between groups, whose titles belong to no flag
            told[name := ""] = ""
            continue
        flag = re.match(r"│ (?:-h, )?--(?:n-workers INT, --)?([a-z-]+)[^│]*?(?:  +|│| │)([^│]*)", line)
        if flag:
            told[name := flag[1]] = ""
        told[name] += "".join((flag[2] if flag else line.strip("│ ")).split())
    return told


@pytest.mark.parametrize("env", [None, "maze/Corridor-v0"])
def test_each_field_of_the_settings_is_a_flag_with_its_docstring_and_default(
    env: str | None, maze: str, start: Start
) -> None:
    flags = () if env is None else ("--env", env)
    process = start(*flags, "--help", columns=100)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    told = told_by(out)
    domain = domain_of(env or DEFAULT_ENV)
    for kind, name in (*fields_of(Config(env="CartPole-v1")), *fields_of(domain)):
        text, colon, default = told.get(name.replace("_", "-"), "is no flag").partition("(default:")
        documented = "".join(docstring_of(kind, name).split())
        assert documented, f"{kind.__name__}.{name} has no docstring"
        assert text == documented, f"--{name} tells otherwise than the docstring of {kind.__name__}.{name}"
        assert (colon, default[-1:]) == ("(default:", ")"), f"--{name} does not tell its default"
    assert {"plain", "resume", "override"} <= told.keys()
    assert told["learning-rate"].endswith(f"(default:{Config(env=domain).ppo.learning_rate})"), "not the domain's"


def test_help_fits_a_terminal_of_80_columns(start: Start) -> None:
    out, _ = start("--help").communicate(timeout=60)
    wide = [line for line in out.splitlines() if cell_len(line) > 80]
    assert not wide, f"wider than 80 cells: {wide}"


def test_help_tells_the_other_commands(maze: str, start: Start) -> None:
    out, _ = start("--help").communicate(timeout=60)
    for name in ("plot", "evaluate", "export", "replay", "corridor"):
        assert f"aiotrain {name} --help" in out, f"the command {name} is missing:\n{out}"
    assert out.count("aiotrain evaluate RUN") == 1
    assert "--lamp" not in out, "of an environment that was not asked for"
