"""The scripts in bench/: what their files say of themselves, and the flags that all of them have."""

from __future__ import annotations

import argparse
import ast
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Script", "scripts"]

ROOT = Path(__file__).resolve().parents[2]
"""The folder of the project."""


@dataclass(frozen=True)
class Script:
    """What the head of a script's file says. It is read without importing it, which takes seconds for some."""

    name: str
    description: str
    """The docstring."""
    takes: str
    """How long the script takes by default, on two cores."""
    smallest: tuple[str, ...]
    """The flags with which the script takes a few seconds."""

    @classmethod
    def of(cls, file: str | Path) -> Script:
        """Read a script's file. Raises ValueError if its head lacks something."""
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
        constants = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        description = ast.get_docstring(tree)
        if description is None or not {"TAKES", "SMALLEST"} <= constants.keys():
            raise ValueError(f"{file}: a script has a docstring, TAKES and SMALLEST; see bench/__init__.py")
        smallest = tuple(shlex.split(str(constants["SMALLEST"])))
        return cls(Path(file).stem, description, str(constants["TAKES"]), smallest)

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.description.splitlines()[0]

    def parser(self) -> argparse.ArgumentParser:
        """A parser with the flags that all scripts have."""
        parser = argparse.ArgumentParser(
            prog=f"python -m bench.{self.name}",
            description=self.description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
        smallest = " ".join(self.smallest) or "this script is small already"
        parser.add_argument("--smallest", action="store_true", help=f"a few seconds, to see that it runs: {smallest}")
        return parser

    def parse(self, parser: argparse.ArgumentParser) -> argparse.Namespace:
        """Parse the flags of this process. Those given beside ``--smallest`` win."""
        return parser.parse_args(self._given())

    def parse_known(self, parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[str]]:
        """Do the same, and return the flags that are for aiotrain apart."""
        return parser.parse_known_args(self._given())

    def _given(self) -> list[str]:
        given = sys.argv[1:]
        return [*self.smallest, *given] if "--smallest" in given else given


def scripts() -> list[Script]:
    """All scripts, by name."""
    files = sorted((ROOT / "bench").glob("[!_]*.py"))
    return [Script.of(file) for file in files]
