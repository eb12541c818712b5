"""python -m aiotrain, and the command aiotrain: as run.py, with this package installed."""

import os
import signal


def main() -> None:
    """The command line, ended by Ctrl-C and SIGTERM without a traceback from the first import on."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda which, _: os._exit(128 + which))
    from aiotrain.app.main import run

    run()


if __name__ == "__main__":
    main()
