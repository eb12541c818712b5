"""One Ray on this machine for all tests of a file: it takes seconds to start."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    ray.init("local", include_dashboard=False, object_store_memory=2**27, configure_logging=False, log_to_driver=False)
    yield
    ray.shutdown()
    signal.signal(signal.SIGTERM, handler)
