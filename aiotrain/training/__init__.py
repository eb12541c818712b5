"""One training run as a coroutine."""
