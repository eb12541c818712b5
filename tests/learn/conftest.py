"""What holds for every test of the learner."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread_for_products() -> Iterator[None]:
    """Torch's threads spin while they wait: beside busy processes, small products take ten times as long with two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
