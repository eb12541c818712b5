"""List the scripts: what each measures, and how long it takes."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from bench.tools.script import scripts


def main() -> None:
    table = Table("python -m", "takes", "measures", title="Scripts: --help says more, --json FILE keeps the figures")
    for script in scripts():
        table.add_row(f"bench.{script.name}", script.takes, script.summary)
    Console().print(table)


if __name__ == "__main__":
    main()
