"""Shows that two commits train the same weights, to the bit: the proof that a refactoring changes no numbers.

    python -m bench.same_weights 636b87b                         # a commit and the working tree as it is
    python -m bench.same_weights 636b87b main                    # two commits
    python -m bench.same_weights . --only cartpole taxi          # the working tree twice: is it reproducible?
    python -m bench.same_weights 636b87b --record baseline.json  # the hashes of one commit, compared with nothing
    python -m bench.same_weights baseline.json                   # what was recorded, and the working tree
    python -m bench.same_weights --list

A COMMIT is whatever git calls one, ``.`` for the working tree (with new files, without ignored ones), or a JSON file
that --record or --json wrote, which holds the hashes of the first COMMIT. Each commit is copied into a temporary folder
of its own, compiles its own code, and is driven by the flags of its own program alone, so that its Python interface may
be any. The two commits run side by side, each with one configuration at a time.

A hash is the SHA-256 of the name, dtype, shape and bytes of all weight tensors that a run leaves: of its policy, and of
the policies of single orders where it searches. The files' metadata do not count. A configuration fails if its program
does, or if its run does not show what the configuration is there for, such as a lost episode. The exit code is 1 if a
configuration differs or fails, else 0.

Another CPU or other versions of the libraries round otherwise: compare recorded hashes only where they were recorded.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text
from safetensors.numpy import load_file

from bench.tools.checkouts import commit_of, extract, extract_working_tree
from bench.tools.deterministic_runs import CONFIGURATIONS, ENVS, ENVS_SOURCE, Configuration
from bench.tools.program import variables_of
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.script import Script

TAKES = "5 minutes"
SMALLEST = ". --only cartpole"

WORKING_TREE = "."
LEAST_UPDATES = 3
TIMEOUT_S = 300.0
SHOWN = 12
"""Hexadecimal digits of a hash in the table."""


class FailedError(Exception):
    """A configuration has no hash, for this reason."""


class Outcome(NamedTuple):
    """Of a configuration: the hash, or why there is none."""

    digest: str | None
    seconds: float
    why: str = ""

    def __str__(self) -> str:
        return "FAILED" if self.digest is None else self.digest[:SHOWN]


class Side(NamedTuple):
    """What is known of one of the commits."""

    title: str
    commit: str
    outcomes: Mapping[str, Outcome]
    remark: str = ""


# ------------------------------------------------------------------------ one run


def digest_of(run_dir: Path) -> str:
    """Return the SHA-256 of all weight tensors in the folder of a run. Raises FailedError."""
    if not (run_dir / "weights.safetensors").is_file():
        raise FailedError("it left no weights.safetensors")
    digest = hashlib.sha256()
    for path in sorted(run_dir.glob("weights*.safetensors")):
        for name, tensor in sorted(load_file(path).items()):
            digest.update(f"{path.name} {name} {tensor.dtype.str} {tensor.shape}\n".encode())
            digest.update(tensor.tobytes())
    return digest.hexdigest()


async def run_program(command: Sequence[str], checkout: Path) -> None:
    """Run the program of a checkout to its end, or end it with all of its processes. Raises FailedError."""
    with tempfile.TemporaryFile("w+") as output:
        program = await asyncio.create_subprocess_exec(
            *command,
            cwd=checkout,
            env=variables_of(checkout),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await program.wait()
        except TimeoutError:
            raise FailedError(f"it took more than {TIMEOUT_S:g} s") from None
        finally:
            if program.returncode is None:
                os.killpg(program.pid, signal.SIGKILL)
                await program.wait()
        if program.returncode:
            output.seek(0)
            raise FailedError(f"exit code {program.returncode}: {output.read()[-2000:].strip()}")


async def outcome_of(configuration: Configuration, checkout: Path, run_dir: Path) -> Outcome:
    """Run a configuration by the program of a checkout."""
    began = time.monotonic()
    try:
        for command in configuration.commands(str(run_dir)):
            await run_program(command, checkout)
        refuse_idle(configuration, run_dir)
        return Outcome(digest_of(run_dir), time.monotonic() - began)
    except FailedError as error:
        return Outcome(None, time.monotonic() - began, str(error))


def refuse_idle(configuration: Configuration, run_dir: Path) -> None:
    """Raise FailedError if a run has hardly learned, or its records do not show what they should."""
    updates = list(csv.DictReader((run_dir / "updates.csv").read_text().splitlines()))
    if len(updates) < LEAST_UPDATES:
        raise FailedError(f"it made {len(updates)} updates only")
    records = [path.read_text() for name in ("events.jsonl", "workflows.csv") if (path := run_dir / name).is_file()]
    if not any(re.search(configuration.shows, text) for text in records):
        raise FailedError(f"its records show nothing like {configuration.shows}")


# ---------------------------------------------------------------------- the sides


def check_out(source: str, folder: Path) -> Side:
    """Copy the files of a commit, or of the working tree, into a new folder; nothing has run yet."""
    commit = commit_of("HEAD" if source == WORKING_TREE else source)
    if source == WORKING_TREE:
        extract_working_tree(folder)
    else:
        extract(commit, folder)
    (folder / f"{ENVS}.py").write_text(ENVS_SOURCE)
    return Side("working tree" if source == WORKING_TREE else source, commit, {})


async def run_side(side: Side, names: Sequence[str], checkout: Path, runs: Path) -> Side:
    """Run configurations by the program of a checkout, one after the other, each in its folder under ``runs``."""
    outcomes = {}
    for name in names:
        outcome = outcomes[name] = await outcome_of(CONFIGURATIONS[name], checkout, runs / name)
        say(f"{side.title}, {len(outcomes)} of {len(names)}: {name}, {outcome}, {outcome.seconds:.1f} s")
    return side._replace(outcomes=outcomes)


def recorded_side(path: Path, names: Sequence[str]) -> Side:
    """Return the hashes in a JSON file. Raises SystemExit if it lacks one, or if it was recorded with other flags."""
    try:
        record = json.loads(path.read_text())
        rows = {row["configuration"]: row for row in record["results"] if row["hash"] is not None}
        outcomes = {name: Outcome(rows[name]["hash"], rows[name]["seconds"]) for name in names if name in rows}
        changed = [name for name in outcomes if rows[name]["flags"] != str(CONFIGURATIONS[name])]
        versions = {"python": record["python"]} | record["packages"]
        commit, date, cpu = record["details"]["commit"], record["date"][:10], record["cpu"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SystemExit(f"{path} was not written by this script: {error!r}") from None
    if missing := [name for name in names if name not in outcomes]:
        raise SystemExit(f"{path} has no hashes of {', '.join(missing)}; choose others by --only")
    if changed:
        raise SystemExit(f"{path} was recorded with other flags of {', '.join(changed)}; choose others by --only")
    others = [f"{name} {version}" for name, version in versions.items() if installed(name) != version]
    with_others = f", with {', '.join(others)} instead of what is installed now" if others else ""
    remark = f"{path} was recorded on {date}, on {cpu}{with_others}"
    return Side(f"{commit}, recorded", commit, outcomes, remark)


def installed(name: str) -> str:
    """Return the version of Python or of a package."""
    try:
        return platform.python_version() if name == "python" else importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def both_sides(sources: Sequence[str], names: Sequence[str]) -> list[Side]:
    """Return what is known of each source, once those that are no records have run, side by side."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        sides = [
            recorded_side(Path(source), names)
            if Path(source).is_file()
            else check_out(source, folder / f"checkout-{number}")
            for number, source in enumerate(sources)
        ]

        async def run(number: int, side: Side) -> Side:
            if side.outcomes:
                return side
            return await run_side(side, names, folder / f"checkout-{number}", folder / f"runs-{number}")

        async def run_all() -> list[Side]:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(run(number, side)) for number, side in enumerate(sides)]
            return [task.result() for task in running]

        return asyncio.run(run_all())


# ------------------------------------------------------------------------- report


def verdict(outcomes: Sequence[Outcome]) -> str:
    digests = {outcome.digest for outcome in outcomes}
    if None in digests:
        return "FAILED"
    if len(outcomes) == 1:
        return "recorded"
    return "same" if len(digests) == 1 else "DIFFERENT"


def table_of(sides: Sequence[Side], verdicts: Mapping[str, str]) -> Table:
    table = Table()
    table.add_column("configuration")
    for side in sides:
        table.add_column(side.title, justify="right")
        table.add_column("s", justify="right")
    table.add_column("weights")
    for name, told in verdicts.items():
        outcomes = [side.outcomes[name] for side in sides]
        cells = [cell for outcome in outcomes for cell in (str(outcome), f"{outcome.seconds:.1f}")]
        table.add_row(name, *cells, told)
    return table


def rows_of(sides: Sequence[Side], verdicts: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the results of the JSON report: the hashes of the first side, beside those of the second."""
    rows = []
    for name, told in verdicts.items():
        first, *second = [side.outcomes[name] for side in sides]
        row: dict[str, Any] = {"subject": name, "name": "weights", "value": first.digest, "unit": "SHA-256"}
        row |= {"configuration": name, "flags": str(CONFIGURATIONS[name]), "hash": first.digest}
        row |= {"seconds": round(first.seconds, 1), "other_hash": second[0].digest if second else None, "weights": told}
        rows.append(row)
    return rows


def main() -> int:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument(
        "commits", nargs="*", metavar="COMMIT", help="one or two; the second is the working tree by default"
    )
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, metavar="NAME", help="run these configurations")
    parser.add_argument("--list", action="store_true", help="list the configurations with their flags, and end")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the hashes of one COMMIT to FILE, and end")
    arguments = script.parse(parser)
    if arguments.list:
        for name, configuration in CONFIGURATIONS.items():
            print(f"{name:28} {configuration}")
        return 0
    sources = sources_of(parser, arguments)
    names = arguments.only or list(CONFIGURATIONS)
    report = Report(script, arguments)
    sides = both_sides(sources, names)
    verdicts = {name: verdict([side.outcomes[name] for side in sides]) for name in names}
    report.print(table_of(sides, verdicts))
    for side in sides:
        for name, outcome in side.outcomes.items():
            if outcome.digest is None:
                report.print(Text(f"{side.title}, {name}: {outcome.why}"))
        if side.remark:
            report.print(Text(side.remark))
    details = {"commit": sides[0].commit, "working_tree": sources[0] == WORKING_TREE, "sources": sources}
    report.write(rows_of(sides, verdicts), {}, details)
    bad = [name for name, told in verdicts.items() if told not in ("same", "recorded")]
    print(f"{len(bad)} of {len(names)} differ or failed: {', '.join(bad)}" if bad else f"all {len(names)} are well")
    return 1 if bad else 0


def sources_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> list[str]:
    """Return one or two commits; with --record, one, and its file becomes that of --json. May end the script."""
    sources: list[str] = arguments.commits
    if not 1 <= len(sources) <= 2:
        parser.error("name one or two commits")
    if arguments.record is None:
        return sources if len(sources) == 2 else [*sources, WORKING_TREE]
    if len(sources) == 2 or arguments.json is not None:
        parser.error("--record takes one commit, and no --json beside it")
    arguments.json = arguments.record
    return sources


if __name__ == "__main__":
    raise SystemExit(main())
