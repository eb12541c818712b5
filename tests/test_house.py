"""The house stands: few rooms, short files and functions, no circles, no words of one domain in what serves all.

Layers and forbidden imports are contracts in pyproject.toml, see test_imports.py.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "aiotrain"
MOST_ROOMS, MOST_MODULES = 8, 6
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_LINES_OF_A_TEST_FILE = 400, 59, 450

LAZY_PACKAGES = {"__init__.py", "cage2/__init__.py"}
"""Packages that import what they hand on when it is first asked for."""
WORDS_OF_A_DOMAIN = re.compile(
    r"red[ _-]?agent|cage[ _]?2|cyborg|workflow|complian|alignment|host[ _]?type|decoy|leaderboard|op_server|op_host|"
    r"b_line|meander|csle|scenario2",
    re.IGNORECASE,
)
BUILT_IN = {
    "__init__.py": ['"aiotrain.cage2.registration"'],
    "domains.py": ['"aiotrain/Cage2-v0"', '"aiotrain.cage2.domain:Cage2"'],
}
"""Where the built-in domain is named, as a string."""


def sources(folder: Path = HOUSE) -> Iterator[tuple[str, str]]:
    """Yield the path below ``folder`` and the text of each Python file."""
    for path in sorted(folder.rglob("*.py")):
        yield path.relative_to(folder).as_posix(), path.read_text()


def refuse(found: Mapping[str, object], what_to_do: str, listed: Collection[str] = ()) -> None:
    """Fail if anything is found that is not listed as an exception."""
    fresh = {where: what for where, what in found.items() if where not in listed}
    assert not fresh, "\n".join([what_to_do, *(f"  {where}: {what}" for where, what in fresh.items())])


def test_the_top_of_the_house_has_few_rooms_and_files() -> None:
    rooms = [path.parent.name for path in HOUSE.glob("*/__init__.py")]
    assert len(rooms) <= MOST_ROOMS, f"more than {MOST_ROOMS} rooms: {sorted(rooms)}; put the new one into another"
    modules = [path.name for path in HOUSE.glob("*.py")]
    assert len(modules) <= MOST_MODULES, f"more than {MOST_MODULES} files at the top: {sorted(modules)}; use a room"


def test_no_module_is_long() -> None:
    long = {where: lines for where, text in sources() if (lines := text.count("\n")) > MOST_LINES}
    refuse(long, f"more than {MOST_LINES} lines; divide the module by what it is about:")


def test_no_test_file_is_long() -> None:
    long = {where: n for where, text in sources(ROOT / "tests") if (n := text.count("\n")) > MOST_LINES_OF_A_TEST_FILE}
    refuse(long, f"more than {MOST_LINES_OF_A_TEST_FILE} lines; divide the tests by topic:")


def test_no_function_is_long() -> None:
    long = {
        f"{where}: {node.name}": lines
        for where, text in sources()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    }
    refuse(long, f"more than {MOST_LINES_OF_A_FUNCTION} lines; give a part of it a name:")


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("aiotrain", exclude_type_checking_imports=True, cache_dir=None)
    circles = {
        f"{module} and {other}": "move what both need below them"
        for module in graph.modules
        for other in graph.find_modules_directly_imported_by(module)
        if graph.find_shortest_chain(other, module) is not None
    }
    refuse(circles, "modules that need each other, if only by way of others:")


def test_packages_only_hand_names_on() -> None:
    allowed = (ast.Import, ast.ImportFrom)
    code = {
        where: ", ".join(ast.unparse(node).splitlines()[0] for node in others)
        for where, text in sources()
        if where.endswith("__init__.py")
        and (
            others := [
                node
                for node in ast.parse(text).body
                if not isinstance(node, allowed) and not _is_docstring(node) and not _is_all(node)
            ]
        )
    }
    refuse(code, "__init__.py has code; move it into a module with a name:", LAZY_PACKAGES)


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_all(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


def test_objects_are_whole() -> None:
    halves = {
        where: ast.unparse(node)
        for where, text in sources()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Assert) and ast.unparse(node.test).endswith("is not None")
    }
    refuse(halves, "what is there in one state only belongs to an object that is made by that state:")
    taken_apart = {where: "__dict__" for where, text in sources() if "__dict__" in text}
    refuse(taken_apart, "an object is taken apart by its __dict__; make another object instead:")


def test_no_module_uses_private_names_of_another() -> None:
    private = {
        where: f"from {node.module} import {alias.name}"
        for where, text in sources()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    }
    refuse(private, "a private name is imported; make it public or use what is:")


def test_no_general_room_speaks_of_a_domain() -> None:
    said = {}
    for where, text in sources():
        for name in BUILT_IN.get(where, ()):
            assert text.count(name) == 1, f"{where} names the built-in domain as {name} once"
            text = text.replace(name, "")
        if not where.startswith("cage2/") and (words := WORDS_OF_A_DOMAIN.findall(text)):
            said[where] = ", ".join(sorted({word.lower() for word in words}))
    refuse(said, "what is CAGE 2's lies in aiotrain/cage2 and comes through aiotrain/domains.py:")
