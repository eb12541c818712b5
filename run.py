"""python run.py: train from the command line. The same program as ``aiotrain`` and ``python -m aiotrain``."""

if __name__ == "__main__":
    import os
    import signal
    import sys

    for each in (signal.SIGINT, signal.SIGTERM):  # while there is nothing to end in order: before the run and after it
        signal.signal(each, lambda which, _: os._exit(128 + which))
    try:
        from aiotrain.app.main import run
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed here. Run: make train   (it sets everything up and trains)")
    run()
