"""python run.py: train from the command line. The same program as ``aiotrain`` and ``python -m aiotrain``."""

if __name__ == "__main__":
    import sys

    try:
        from aiotrain.cli import main
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed here. Run: make train   (it sets everything up and trains)")
    sys.exit(main())
