"""The weight vector: one writer, readers without a lock, never a torn read."""

from __future__ import annotations

import multiprocessing
import threading

import numpy as np
import numpy.typing as npt
import pytest

from aiotrain.transport.weights import Weights

SIZE = 200_000  # copying takes long enough for the writer to come in between


def _publish(name: str, versions: int) -> None:
    weights = Weights.attach(name, SIZE)
    for version in range(1, versions + 1):
        weights.publish(np.full(SIZE, version, np.float32), version)
    weights.close()


@pytest.mark.parametrize("start", ["process", "thread"])
def test_no_reader_sees_a_torn_vector(start: str) -> None:
    weights, versions = Weights.create(SIZE), 300
    weights.publish(np.zeros(SIZE, np.float32), 0)
    make = multiprocessing.get_context("forkserver").Process if start == "process" else threading.Thread
    writer = make(target=_publish, args=(weights.name, versions))
    writer.start()
    seen, held, vector = [], -1, np.empty(SIZE, np.float32)
    try:
        while held < versions:
            version = weights.pull(vector, held)
            if version != held:
                assert (vector == version).all(), f"version {version} holds {np.unique(vector)}"
                seen.append(version)
                held = version
            elif not writer.is_alive() and weights.version == held:
                break
    finally:
        writer.join(30)
        weights.close()
    assert held == versions
    assert seen == sorted(set(seen))
    if start == "process":
        assert writer.exitcode == 0  # type: ignore[union-attr]
        writer.close()  # type: ignore[union-attr]


def test_copy_that_the_writer_overtook_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two versions come in the middle of a copy: the second goes to the buffer that is being read."""
    weights = Weights.create(4)
    weights.publish(np.zeros(4, np.float32), 0)
    overtaken = []

    def copy(into: npt.NDArray[np.float32], source: npt.NDArray[np.float32]) -> None:
        into[:2] = source[:2]
        if not overtaken:
            overtaken.append(True)
            for version in (1, 2):
                weights.publish(np.full(4, version, np.float32), version)
        into[2:] = source[2:]

    monkeypatch.setattr(np, "copyto", copy)
    vector = np.empty(4, np.float32)
    try:
        assert weights.pull(vector, -1) == 2
        assert vector.tolist() == [2, 2, 2, 2]
    finally:
        weights.close()


def test_pull_copies_only_what_is_new() -> None:
    weights = Weights.create(3)
    try:
        vector = np.zeros(3, np.float32)
        weights.publish(np.ones(3, np.float32), 5)
        assert weights.pull(vector, -1) == 5
        vector[:] = 9
        assert weights.pull(vector, 5) == 5
        assert vector.tolist() == [9, 9, 9], "a version that is held already was copied again"
    finally:
        weights.close()


def test_versions_rise_and_may_be_left_out() -> None:
    weights, vector = Weights.create(1), np.empty(1, np.float32)
    try:
        assert weights.version == -1
        for version in (0, 1, 3, 5):  # two of which would share a buffer, if it went by version
            weights.publish(np.full(1, version, np.float32), version)
            assert weights.version == weights.pull(vector, -1) == vector[0] == version
        for wrong in (5, 4):
            with pytest.raises(ValueError, match=f"version {wrong} cannot follow version 5"):
                weights.publish(np.zeros(1, np.float32), wrong)
    finally:
        weights.close()


def test_nothing_published_is_told_after_the_time() -> None:
    weights = Weights.create(1)
    try:
        with pytest.raises(TimeoutError, match="no steady copy"):
            weights.pull(np.zeros(1, np.float32), -1, timeout_s=0)
    finally:
        weights.close()
