"""Other versions of the project beside this one: a commit, or the working tree as it is, in a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from bench.tools.program import variables_of
from bench.tools.script import ROOT

__all__ = ["check_imports", "commit_of", "extract", "extract_working_tree"]


def commit_of(name: str) -> str:
    """Return the hash of a commit, short. Ends the script if there is no such commit."""
    done = subprocess.run(
        ["git", "rev-parse", "--verify", "--short", f"{name}^{{commit}}"], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{name} is no commit of {ROOT}: {done.stderr.strip()}")
    return done.stdout.strip()


def extract(commit: str, folder: Path) -> Path:
    """Write the files of a commit into a new ``folder``, and return it."""
    folder.mkdir(parents=True)
    with (
        subprocess.Popen(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE) as git,
        tarfile.open(fileobj=git.stdout, mode="r|") as archive,
    ):
        archive.extractall(folder, filter="data")
    if git.returncode:
        raise SystemExit(f"git archive {commit} failed")
    check_imports(folder)
    return folder


def extract_working_tree(folder: Path) -> Path:
    """Copy the files of the working tree, those that git ignores aside, into a new ``folder``, and return it."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (source := ROOT / name).is_file():  # deleted, but not yet in the index
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    check_imports(folder)
    return folder


def check_imports(checkout: Path) -> None:
    """Raise SystemExit unless Python, started as for that checkout, imports aiotrain from it."""
    found = subprocess.run(
        [sys.executable, "-c", "import aiotrain; print(aiotrain.__file__)"],
        cwd=checkout,
        env=variables_of(checkout),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if not Path(found).is_relative_to(checkout.resolve()):
        raise SystemExit(f"{checkout}: Python imports aiotrain from {found} instead")
