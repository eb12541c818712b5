"""Segments of shared memory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotrain.errors import SharedMemoryError
from aiotrain.transport import segments as shm
from aiotrain.transport.segments import Segment

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
    umask = os.umask(0)
    try:
        segment = Segment.create(FIELDS, purpose="a test")
    finally:
        os.umask(umask)
    try:
        assert segment.name.startswith(f"aiotrain-{os.getpid()}-")
        assert Path("/dev/shm", segment.name).stat().st_mode & 0o777 == 0o600
    finally:
        segment.close()


def mapped(name: str) -> bool:
    return name in Path("/proc/self/maps").read_text()


def test_array_can_be_used_after_close_and_holds_the_memory_until_it_is_gone() -> None:
    segment = Segment.create(FIELDS, purpose="a test")
    name, held = segment.name, segment.arrays["floats"]
    held[1, 4] = 2.5
    segment.close()
    del segment
    assert mapped(name)
    assert held[1, 4] == 2.5
    del held
    assert not mapped(name), "memory is held though no array is left"


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


BLIND = """
look = shm._refuse_what_does_not_fit
shm._refuse_what_does_not_fit = lambda *given, certainly=False: certainly and look(*given, certainly=certainly)
"""

SEGMENT = """
import numpy as np
from aiotrain.transport import segments as shm
from aiotrain.errors import SharedMemoryError
{blind}
try:
    shm.Segment.create({{"large": ((8 << 20,), np.uint8)}}, purpose="the ring")
except SharedMemoryError as error:
    print(error)
"""

PROGRAM = """
import os, sys, time
from aiotrain.transport import segments as shm
{blind}
create = shm.Segment.create
def timed(*given, **named):
    print(time.monotonic(), flush=True)
    return create(*given, **named)
shm.Segment.create = timed
from aiotrain.app.main import main
sys.exit(main(["--env", "marking:make", "--workers", "4", "--slot-steps", "100000", "--run-dir", "run"]))
"""

MARKING = """
import os
import gymnasium
def make():
    open(f"worker-{os.getpid()}", "w").close()
    return gymnasium.make("CartPole-v1")
"""


def with_one_mebibyte(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``script`` in ``folder``, in a mount namespace with so much shared memory."""
    unshare = ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c"]
    mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here to make a mount namespace with")
    tried = subprocess.run([*unshare, mount], capture_output=True, text=True, timeout=30, check=False)
    if tried.returncode:
        pytest.skip(f"no mount namespace may be made here: {tried.stderr.strip()}")
    command = [*unshare, f'{mount} && exec "$0" -c "$1"', sys.executable, script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("blind", ["", BLIND], ids=["looked first", "found by reserving"])
def test_one_mebibyte_of_shared_memory(blind: str, tmp_path: Path) -> None:
    done = with_one_mebibyte(SEGMENT.format(blind=blind), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("8,388,608 bytes", "1,048,576 bytes", "--shm-size"):
        assert part in done.stdout


@pytest.mark.parametrize("blind", ["", BLIND], ids=["looked first", "found by reserving"])
def test_program_ends_at_once_where_its_ring_does_not_fit(blind: str, tmp_path: Path) -> None:
    (tmp_path / "marking.py").write_text(MARKING)
    began_s = time.monotonic()
    done = with_one_mebibyte(PROGRAM.format(blind=blind), tmp_path)
    ended_s = time.monotonic()
    assert done.returncode == 2, f"exit code {done.returncode}: {done.stderr}"
    assert done.stderr.startswith("aiotrain: a ring of ")
    for part in ("1,048,576 bytes (1.0 MiB) free", "--slot-steps", "--shm-size"):
        assert part in done.stderr
    reached_s = float(done.stdout.split()[-1])
    assert ended_s - reached_s < max(2, reached_s - began_s), "it waited, and not for a busy machine"
    assert len(list(tmp_path.glob("worker-*"))) == 1, "further workers were started before the ring was there"
    assert not (tmp_path / "run").exists()


def test_segment_that_somebody_else_removed_closes_in_silence() -> None:
    script = (
        "import numpy as np, os\n"
        "from aiotrain.transport.segments import Segment\n"
        "segment = Segment.create({'x': ((1,), np.uint8)}, purpose='a test')\n"
        "os.unlink('/dev/shm/' + segment.name)\n"
        "segment.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_killed_owner_leaves_no_segment() -> None:
    script = (
        "import numpy as np, os, signal\n"
        "from aiotrain.transport.segments import Segment\n"
        "print(Segment.create({'x': ((1,), np.uint8)}, purpose='a test').name, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    deadline = time.monotonic() + 5
    while Path("/dev/shm", done.stdout.strip()).exists():
        assert time.monotonic() < deadline, "the resource tracker has not removed the segment"
        time.sleep(0.01)


# --------------------------------------------------- what killed runs leave behind


OWNER = """
import os, sys
import numpy as np
from aiotrain.transport.segments import Segment
segment = Segment.create({"x": ((1,), np.uint8)}, purpose="a test")
print(segment.name, flush=True)
sys.stdin.readline()
segment.close()
"""


@contextlib.contextmanager
def owner(*command: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with a segment, at the head of a process group; it closes in order when a line is written to it."""
    argv = [*command, sys.executable, "-c", OWNER]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            name = process.stdout.readline().strip()
            assert name, f"{argv} has failed"
            yield process, Path("/dev/shm", name)
            if process.poll() is None:
                process.communicate("\n", timeout=30)
        finally:
            process.kill()


def kill_group(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the process and its resource tracker."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


def test_next_segment_removes_those_of_dead_runs_and_of_no_live_one() -> None:
    with owner() as (killed, orphan), owner() as (_, alive):
        kill_group(killed)
        assert orphan.exists(), "nothing is left to be removed"
        Segment.create(FIELDS, purpose="a test").close()
        assert not orphan.exists()
        assert alive.exists()
    assert not alive.exists()


def test_run_in_another_pid_namespace_is_alive() -> None:
    command = ["unshare", "-rpf"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no pid namespace can be made here")
    with owner(*command) as (_, alive):
        assert alive.name.startswith("aiotrain-1-"), "its pid means something here"
        Segment.create(FIELDS, purpose="a test").close()
        assert alive.exists()


def made_by_hand(name: str) -> Path:
    path = Path("/dev/shm", name)
    path.touch(mode=0o600)
    return path


def test_pid_that_is_used_again_keeps_no_orphan() -> None:
    orphan = made_by_hand(f"aiotrain-{os.getpid()}-{16 * '0'}")
    Segment.create(FIELDS, purpose="a test").close()
    assert not orphan.exists()


@pytest.mark.parametrize("what", ["another name", "a link", "a folder", "another user's"])
def test_what_is_no_orphan_of_ours_is_left(what: str, tmp_path: Path) -> None:
    path = Path("/dev/shm", f"aiotrain-{'x' if what == 'another name' else 1}-{secrets.token_hex(8)}")
    match what:
        case "a link":
            path.symlink_to(made_by_hand(f"other-{secrets.token_hex(8)}"))
        case "a folder":
            path.mkdir()
        case _:
            path.touch()
    try:
        if what == "another user's":
            if os.geteuid():
                pytest.skip("only root can make a file of another user")
            os.chown(path, 12345, -1)
        Segment.create(FIELDS, purpose="a test").close()
        assert path.is_symlink() or path.exists()
    finally:
        if path.is_symlink():
            path.resolve().unlink()
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("name", ["listdir", "open", "unlink"])
def test_orphan_that_cannot_be_removed_fails_no_start(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    orphan = made_by_hand(f"aiotrain-1-{secrets.token_hex(8)}")
    function = getattr(os, name)

    def refuse(path: str, *given: Any) -> Any:
        if path in ("/dev/shm", str(orphan)):
            raise PermissionError
        return function(path, *given)

    try:
        monkeypatch.setattr(os, name, refuse)
        Segment.create(FIELDS, purpose="a test").close()
        monkeypatch.undo()
        assert orphan.exists()
    finally:
        orphan.unlink()


def test_segment_that_was_taken_for_an_orphan_before_it_was_locked_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another run starts at the same moment: its look at the new segment comes just before the owner's lock."""
    flock = fcntl.flock
    removed = []

    def late(fd: int, how: int) -> None:
        if how == fcntl.LOCK_SH and not removed:
            removed.append(os.readlink(f"/proc/self/fd/{fd}"))
            os.unlink(removed[0])
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    segment = Segment.create(FIELDS, purpose="a test")
    try:
        assert Path("/dev/shm", segment.name).exists()
        assert removed != [f"/dev/shm/{segment.name}"]
    finally:
        segment.close()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (12_900_000, "12.3 MiB"), (3 << 30, "3.0 GiB")],
)
def test_bytes_as_people_write_them(count: int, text: str) -> None:
    assert shm.human_bytes(count) == text
