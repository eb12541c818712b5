"""Segments of shared memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotrain import shm
from aiotrain.errors import SharedMemoryError
from aiotrain.shm import Segment

FIELDS = {"bytes": ((3,), np.uint8), "empty": ((0, 4), np.float32), "floats": ((2, 5), np.float64), "flag": ((), "?")}


def test_arrays_are_zero_apart_and_on_cache_lines() -> None:
    segment = Segment.create(FIELDS, purpose="a test")
    try:
        for name, (shape, dtype) in FIELDS.items():
            array = segment.arrays[name]
            assert array.shape == shape
            assert array.dtype == dtype
            assert not array.any()
            assert array.ctypes.data % 64 == 0
            del array
        for number, name in enumerate(FIELDS, 1):
            segment.arrays[name][...] = number
        assert [segment.arrays[name].ravel()[:1].tolist() for name in FIELDS] == [[1], [], [3.0], [True]]
        assert (segment.arrays["bytes"] == 1).all()
        assert (segment.arrays["floats"] == 3).all()
    finally:
        segment.close()


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), st.lists(st.integers(0, 9), max_size=3), max_size=5))
def test_layout_never_overlaps(shapes: dict[str, list[int]]) -> None:
    offsets, size = shm._offsets({name: (tuple(shape), np.float32) for name, shape in shapes.items()})
    end = 0
    for name, shape in shapes.items():
        assert offsets[name] >= end
        assert offsets[name] % 64 == 0
        end = offsets[name] + 4 * int(np.prod(shape))
    assert size >= max(end, 1)


def test_what_one_writes_another_reads_and_the_owner_removes_it() -> None:
    owner = Segment.create(FIELDS, purpose="a test")
    guest = Segment.attach(owner.name, FIELDS)
    guest.arrays["floats"][1, 4] = 2.5
    assert owner.arrays["floats"][1, 4] == 2.5
    guest.close()
    assert Path("/dev/shm", owner.name).exists(), "a guest has removed the segment"
    owner.close()
    owner.close()
    assert not Path("/dev/shm", owner.name).exists()


def test_segment_is_private_to_the_user_and_named_after_the_process() -> None:
    segment = Segment.create(FIELDS, purpose="a test")
    try:
        assert segment.name.startswith(f"aiotrain-{os.getpid()}-")
        assert Path("/dev/shm", segment.name).stat().st_mode & 0o077 == 0
    finally:
        segment.close()


def test_array_still_in_use_is_told_at_close() -> None:
    segment = Segment.create(FIELDS, purpose="a test")
    held = segment.arrays["floats"]
    with pytest.raises(BufferError, match="exported") as caught:
        segment.close()
    assert segment.name in caught.value.__notes__[0]
    del held
    segment.close()


def test_too_little_is_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=10, f_frsize=4096))
    with pytest.raises(SharedMemoryError) as caught:
        Segment.create({"large": ((100_000,), np.uint8)}, purpose="the ring", advice="Lower --workers.")
    for part in ("the ring", "100,032 bytes", "40,960 bytes", "40.0 KiB", "Lower --workers.", "--shm-size"):
        assert part in str(caught.value)


def test_unknown_free_space_is_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: str) -> None:
        raise OSError

    monkeypatch.setattr(os, "statvfs", unknown)
    assert shm.free_bytes() is None
    Segment.create(FIELDS, purpose="a test").close()


def test_full_memory_is_an_error_and_no_bus_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the free bytes are gone between looking and reserving."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SharedMemoryError, match="--shm-size"):
        Segment.create(FIELDS, purpose="a test")


SCRIPT = """
import numpy as np
from aiotrain import shm
from aiotrain.errors import SharedMemoryError
look = shm._refuse_what_does_not_fit
if {blind}:
    shm._refuse_what_does_not_fit = lambda *given, certainly=False: certainly and look(*given, certainly=certainly)
try:
    shm.Segment.create({{"large": ((8 << 20,), np.uint8)}}, purpose="the ring")
except SharedMemoryError as error:
    print(error)
"""


@pytest.mark.skipif(shutil.which("unshare") is None or os.getuid() != 0, reason="needs root for a mount namespace")
@pytest.mark.parametrize("blind", [False, True], ids=["looked first", "found by reserving"])
def test_one_mebibyte_of_shared_memory(blind: bool) -> None:
    mount = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$0" -c "$1"'
    command = ["unshare", "-m", "sh", "-c", mount, sys.executable, SCRIPT.format(blind=blind)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr}"
    assert done.stderr == ""
    for part in ("8,388,608 bytes", "1,048,576 bytes", "--shm-size"):
        assert part in done.stdout


def test_segment_that_somebody_else_removed_closes_in_silence() -> None:
    script = (
        "import numpy as np, os\n"
        "from aiotrain.shm import Segment\n"
        "segment = Segment.create({'x': ((1,), np.uint8)}, purpose='a test')\n"
        "os.unlink('/dev/shm/' + segment.name)\n"
        "segment.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_killed_owner_leaves_no_segment() -> None:
    script = (
        "import numpy as np, os, signal\n"
        "from aiotrain.shm import Segment\n"
        "print(Segment.create({'x': ((1,), np.uint8)}, purpose='a test').name, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    deadline = time.monotonic() + 5
    while Path("/dev/shm", done.stdout.strip()).exists():
        assert time.monotonic() < deadline, "the resource tracker has not removed the segment"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (12_900_000, "12.3 MiB"), (3 << 30, "3.0 GiB")],
)
def test_bytes_as_people_write_them(count: int, text: str) -> None:
    assert shm.human_bytes(count) == text
