"""The command line as its users meet it: help, refusals, signals, exit codes and what a run leaves behind."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.cells import cell_len
from safetensors.numpy import load_file

from aiotrain.app.main import Arguments, main
from aiotrain.config import PPOConfig, SearchConfig
from aiotrain.runs.journals import METRICS

RUN = Path(__file__).parents[2] / "run.py"
ENVIRONMENTS = '''
    """Environments that tests name as module:factory."""

    import os
    import time

    import gymnasium

    class Tiny(gymnasium.Env):
        observation_space = gymnasium.spaces.Discrete(3)
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.steps = 0
            return 0, {}

        def step(self, action):
            self.steps += 1
            return self.steps % 3, float(action), self.steps >= 5, False, {}

    class Unsupported(Tiny):
        observation_space = gymnasium.spaces.Text(5)

    class Raising(Tiny):
        def __init__(self):
            raise RuntimeError("no licence for the simulator")

    class RaisingLater(Tiny):
        def step(self, action):
            raise RuntimeError("the simulator crashed")

    class Debugged(Tiny):
        def step(self, action):
            if not hasattr(Debugged, "stopped"):
                Debugged.stopped = True
                breakpoint()
            return super().step(action)

    class Hanging(Tiny):
        def step(self, action):
            open("hangs", "w").close()
            while True:
                self.wait()

        def wait(self):
            time.sleep(60)

    class Spinning(Hanging):
        def wait(self):
            pass

    class Printing(Tiny):
        def reset(self, **given):
            os.write(1, b"a word from the environment\\n")
            return super().reset(**given)

    class Crashing(Tiny):
        def __init__(self):
            import ctypes
            ctypes.string_at(0)

    class Hostile(Tiny):
        def step(self, action=0):
            raise RuntimeError("[bold]no[/] licence :warning: \\x1b[2J\\x9b31m\\rfor you")

    class HostileAtOnce(Tiny):
        __init__ = Hostile.step

    globals()["[bold]\\x1b]0;title\\x07"] = Hostile
    not_callable = 3
'''
SMALL = ("--workers", "2", "--total-episodes", "20", "--episodes-per-update", "10")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder to start in, with a module of environments."""
    (tmp_path / "tiny_envs.py").write_text(textwrap.dedent(ENVIRONMENTS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts run.py with flags in `folder`. Afterwards its segments must be gone, and its processes with them."""
    started: list[subprocess.Popen[str]] = []

    def run(
        *flags: str, stdin: int | None = None, stdout: int = subprocess.PIPE, term: str = "dumb"
    ) -> subprocess.Popen[str]:
        environ = {**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": term, "PYTHONUTF8": "1"}
        started.append(
            subprocess.Popen(
                [sys.executable, str(RUN), *flags],
                cwd=folder,
                env=environ,
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield run
    for process in started:
        ended = process.poll() is not None
        if not ended:
            process.kill()
        process.communicate()
        assert ended, "the command was still running"
        assert not list(Path("/dev/shm").glob(f"aiotrain-{process.pid}-*")), "shared memory was left behind"
        assert not left_of(process.pid), "processes were left behind"


def left_of(group: int) -> list[psutil.Process]:
    """Return the processes of a process group that are still there after a while."""
    deadline = time.monotonic() + 5
    while (alive := [each for each in psutil.process_iter() if _is_alive(each, group)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def _is_alive(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.Error):
        return False


def wait_until(holds: Callable[[], object], process: subprocess.Popen[Any]) -> None:
    """Wait until something `holds` while `process` runs."""
    deadline = time.monotonic() + 60
    while not holds():
        assert process.poll() is None, f"it ended early: {process.communicate()}"
        assert time.monotonic() < deadline, "waited a minute in vain"
        time.sleep(0.001)


def wait_for_update(run: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the run in the folder `run` has learned something."""
    updates = run / "updates.csv"
    wait_until(lambda: updates.exists() and updates.read_text().count("\n") > 1, process)


# --------------------------------------------------------------------- help


@pytest.fixture(scope="module")
def help_text() -> str:
    done = subprocess.run(
        [sys.executable, str(RUN), "--help"],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_help_fits_a_terminal_of_80_columns(help_text: str) -> None:
    wide = [line for line in help_text.splitlines() if cell_len(line) > 80]
    assert not wide, f"wider than 80 cells: {wide}"


def test_help_tells_the_other_commands(help_text: str) -> None:
    assert "aiotrain plot RUN" in help_text
    assert "aiotrain evaluate RUN" in help_text
    assert "aiotrain export RUN" in help_text
    assert "aiotrain replay RUN" in help_text


def test_help_documents_every_option(help_text: str) -> None:
    settings = [field for each in (Arguments, PPOConfig, SearchConfig) for field in dataclasses.fields(each)]
    options: dict[str, str] = {}
    for line in help_text.splitlines():
        flags = re.match(r"│ (-[^│]*?)(?:  +|│| │)([^│]*)", line)
        if flags:
            names = re.findall(r"--([a-z-]+)", flags[1])
            options |= dict.fromkeys(names, "")
        text = line.strip("│ ") if not flags else flags[2].strip()
        for name in names if options else ():
            options[name] += f" {text}"
    for setting in settings:
        if setting.name not in ("ppo", "workflow_search"):
            said = options.get(setting.name.replace("_", "-"))
            assert said is not None, f"{setting.name} is no option"
            assert len(said.partition("(default:")[0].strip()) > 15, f"{setting.name} is not explained: {said!r}"
            assert "(default:" in said, f"the default of {setting.name} is not told: {said!r}"


# ----------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["plott", "runs/x"], ["unknown command 'plott'; did you mean plot or export?", "training has flags"]),
        (["--env", "CartPole-v11"], ["unknown Gymnasium id 'CartPole-v11'", "CartPole-v1", "module:factory"]),
        (["--env", "no_such_module:make"], ["no module 'no_such_module'", "folder you start in"]),
        (["--env", "tiny_envs:"], ["nothing in it"]),
        (["--red-agent", "B_linAgent"], ["red-agent", "'B_linAgent'", "did you mean B_lineAgent"]),
        (["--red-agent", "no_such_module:Red", "--simulator", "cyborg"], ["red-agent", "'no_such_module'"]),
        (["--red-agent", "no_such_module:Red"], ["red-agent", "for no_such_module:Red, choose the simulator cyborg"]),
        (["--red-agent", "SleepAgent", "--env", "tiny_envs:Tiny"], ["red-agent (SleepAgent)", "aiotrain/Cage2-v0"]),
        (["--simulator", "compiled", "--red-agent", "agents:Red"], ["red-agent", "agents:Red", "simulator cyborg"]),
        (["--simulator", "compiled", "--normalize-observations", "True"], ["normalize-observations", "compiled"]),
        (["--workflow", "user,user,op_host,op_server,defender"], ["user is there 2 times", "enterprise is missing"]),
        (["--workflow", "reverse", "--env", "tiny_envs:Tiny"], ["workflow (reverse)", "aiotrain/Cage2-v0"]),
        (
            ["--workflow", "serch", "--compliance-threshold", "95", "--alignment-lambda", "-1"],
            ["3 settings cannot work:", "serch", "compliance-threshold", "alignment-lambda"],
        ),
        (["--parallel-workflows", "0"], ["parallel-workflows must be at least 1, not 0"]),
        (["--parallel-workflows", "121"], ["parallel-workflows (121)", "more than 60, half of the orders"]),
        (["--parallel-workflows", "2", "--inherit", "nearest"], ["inherit nearest", "choose parallel-workflows 1"]),
        (["--workers", "0"], ["workers must be at least 1, not 0"]),
        (["--workers", "-3"], ["workers must be at least 1, not -3"]),
        (["--n-workers", "0"], ["workers must be at least 1"]),
        (["--workers", "100000000"], ["open files", "--envs-per-worker"]),
        (["--total-episodes", "5", "--episodes-per-update", "6"], ["episodes-per-update (6)", "total-episodes (5)"]),
        (
            ["--workers", "0", "--gamma", "2", "--epochs", "0"],
            ["3 settings cannot work:", "workers", " gamma ", " epochs "],
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    flags: list[str], expected: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags) == 2
    out, err = capsys.readouterr()
    for text in expected:
        assert text in err, f"{text!r} is missing:\n{err}"
    assert err.startswith("aiotrain: ")
    assert "Traceback" not in err
    assert out == ""
    assert [path.name for path in folder.iterdir() if path.name != "__pycache__"] == ["tiny_envs.py"]


def test_a_run_folder_that_cannot_be_made_ends_with_2_and_the_reason(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--env", "CartPole-v1", "--run-dir", "/proc/run", *SMALL]) == 2
    out, err = capsys.readouterr()
    assert err == "aiotrain: run-dir: /proc/run cannot be written to: No such file or directory\n"
    assert out == "", "something started"


def test_an_unknown_flag_ends_with_2_and_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--worker", "3"])
    assert ended.value.code == 2
    assert "--workers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ("Unsupported", ["Text", "observation"]),
        ("Tinny", ["unknown factory in tiny_envs 'Tinny'", "did you mean Tiny"]),
        ("not_callable", ["tiny_envs:not_callable is of type int and cannot be called"]),
        ("Raising", ["Traceback", "RuntimeError: no licence for the simulator", "tiny_envs.py"]),
    ],
)
def test_an_environment_that_cannot_be_used_is_refused_with_the_reason(
    env: str, expected: list[str], start: Start
) -> None:
    process = start("--env", f"tiny_envs:{env}", *SMALL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    for text in expected:
        assert text in err, f"{text!r} is missing:\n{err}"


@pytest.fixture
def hanging_forkserver(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears when the process that workers are forked from hangs before it forks any."""
    mark = folder / "hangs"
    script = f"""
        import sys
        if "forkserver" in sys.orig_argv[-1]:
            import time
            open({str(mark)!r}, "w").close()
            time.sleep(60)
    """
    (folder / "sitecustomize.py").write_text(textwrap.dedent(script))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))))
    return mark


def test_starting_has_a_deadline_before_there_is_a_worker(start: Start, hanging_forkserver: Path) -> None:
    process = start("--env", "tiny_envs:Tiny", "--start-timeout-s", "0.5", *SMALL)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, hanging_forkserver.exists()) == (2, True), err
    assert "the process that workers are forked from was not ready within 0.5 s" in err
    assert "--start-timeout-s" in err
    assert len(err.splitlines()) == 1, err


@pytest.mark.parametrize(("times", "within_s"), [(1, 20), (2, 5)])  # 5 and 1 where nobody else is at work
def test_ctrl_c_ends_what_hangs_before_there_is_a_worker(
    times: int, within_s: float, start: Start, hanging_forkserver: Path
) -> None:
    process = start("--env", "tiny_envs:Tiny", *SMALL)
    wait_until(hanging_forkserver.exists, process)
    for which in (signal.SIGINT, signal.SIGTERM)[:times]:  # two of one kind could arrive as one
        os.killpg(process.pid, which)
    _, err = process.communicate(timeout=within_s)
    assert process.returncode in (130, 143)
    assert err == ""


def test_a_run_that_fails_after_its_start_ends_with_1_and_its_summary(start: Start) -> None:
    process = start("--env", "tiny_envs:RaisingLater", "--run-dir", "run", *SMALL)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 1, err
    assert "RuntimeError: the simulator crashed" in out
    assert "\nfailed " in out


@pytest.mark.parametrize("env", ["[bold]\x1b]0;title\x07", "HostileAtOnce"])
def test_names_and_errors_do_not_act_on_the_terminal(env: str, start: Start, folder: Path) -> None:
    process = start("--env", f"tiny_envs:{env}", "--run-dir", "r\x1bun", *SMALL)
    out, err = process.communicate(timeout=90)
    assert not set(out + err) & set("\x1b\x07\x9b\r")
    assert "[bold]no[/] licence :warning: \ufffd[2J" in out + err, "markup was obeyed"
    if env == "HostileAtOnce":
        assert process.returncode == 2
    else:
        assert process.returncode == 1
        assert "environment tiny_envs:[bold]\ufffd]0;title\ufffd: " in out
        for name in ("config.json", "events.jsonl", "updates.csv"):
            assert b"\x1b" not in (folder / "r\x1bun" / name).read_bytes()


def test_a_python_without_the_packages_is_told_what_to_do() -> None:
    done = subprocess.run([sys.executable, "-I", "-S", str(RUN)], capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "is not installed" in done.stderr
    assert "make train" in done.stderr


# --------------------------------------------------------------------- runs


def test_a_run_leaves_its_files_and_a_line_for_every_update(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as temporary:  # whose path is short enough for sockets
        monkeypatch.setenv("TMPDIR", temporary)
        process = start("--env", "tiny_envs:Tiny", "--run-dir", "out/run", *SMALL)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert err == ""
        assert not list(Path(temporary).glob("pymp-*")), "what multiprocessing removes at the end of a program"
    run = folder / "out" / "run"
    assert json.loads((run / "config.json").read_text())["env"] == "tiny_envs:Tiny"
    with (run / "updates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*(metric.name for metric in METRICS), "workflow"]
    assert [row["episodes"] for row in rows] == ["10", "20"]
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "start"
    assert events[-1]["event"] == "end"
    assert events[-1]["phase"] == "finished"
    assert all(tensor.size for tensor in load_file(run / "weights.safetensors").values())
    assert re.findall(r"^update=(\d+)", out, re.MULTILINE) == ["1", "2"]
    assert "20 played = 20 learned + 0 waiting + 0 discarded + 0 lost" in out
    assert re.search("^warning: .*--steps-per-update", out, re.MULTILINE), "Tiny tells no time limit"
    assert out.index("warning: ") < out.index("update=1"), "told too late for who waits for the first update"


def test_a_run_on_cage_2_tells_what_plays_it_and_can_be_plotted(start: Start, folder: Path) -> None:
    flags = ("--workers", "1", "--total-episodes", "2", "--episodes-per-update", "2", "--max-episode-steps", "5")
    process = start("--simulator", "cyborg", "--fixed-episodes", "1", "--run-dir", "run", *flags)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert re.search("^simulator   csle-cyborg itself$", out, re.MULTILINE), out
    process = start("plot", "run")
    out, err = process.communicate(timeout=60)
    pictures = [f"run/{name}.png" for name in ("return", "orders", "ucb", "positions")]
    assert (process.returncode, out.split(), err) == (0, pictures, "")
    assert all((folder / picture).exists() for picture in pictures)


def test_plotting_needs_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plot"])
    assert ended.value.code == 2
    assert "Folder of the run" in capsys.readouterr().err
    assert main(("plot", "nothing")) == 2
    assert capsys.readouterr().err.startswith("aiotrain: plot: there is no folder nothing")


def test_without_a_name_the_run_gets_a_folder_of_its_own(start: Start, folder: Path) -> None:
    process = start("--env", "tiny_envs:Tiny", *SMALL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    (run,) = (folder / "runs").iterdir()
    assert run.name.startswith("tiny-envs-Tiny-"), run.name
    assert str(run.relative_to(folder)) in out


def test_a_folder_that_holds_a_run_is_not_overwritten(start: Start, folder: Path) -> None:
    (folder / "old").mkdir()
    (folder / "old" / "updates.csv").write_text("precious")
    process = start("--env", "tiny_envs:Tiny", "--run-dir", "old", *SMALL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "holds a run already" in err
    assert (folder / "old" / "updates.csv").read_text() == "precious"


@pytest.mark.parametrize(("which", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("to_all", [False, True])
def test_a_signal_ends_the_run_in_order(
    which: signal.Signals, code: int, to_all: bool, start: Start, folder: Path
) -> None:
    flags = ("--workers", "2", "--total-episodes", "10000000", "--episodes-per-update", "50")
    process = start("--env", "tiny_envs:Tiny", "--run-dir", "run", *flags)
    wait_for_update(folder / "run", process)
    if to_all:  # as a terminal's Ctrl-C does
        os.killpg(process.pid, which)
    else:
        process.send_signal(which)
    out, err = process.communicate(timeout=5)
    assert process.returncode == code, err
    assert err == ""
    assert "\ninterrupted " in out
    last = json.loads((folder / "run" / "events.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["phase"]) == ("end", "interrupted")
    assert load_file(folder / "run" / "weights.safetensors")


def test_ctrl_c_while_workers_start_says_nothing(start: Start) -> None:
    """It reaches the process from which workers are forked while that one imports NumPy."""
    process = start("--env", "tiny_envs:Tiny", *SMALL)
    children = psutil.Process(process.pid).children
    wait_until(lambda: any(is_forkserver_with_numpy(child.pid) for child in children()), process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, "")


def is_forkserver_with_numpy(pid: int) -> bool:
    try:
        mapped, command = (Path(f"/proc/{pid}/{name}").read_text() for name in ("maps", "cmdline"))
    except OSError:  # it has ended
        return False
    return "numpy" in mapped and "forkserver" in command  # until it has that command, what is mapped is its parent's


def test_a_second_signal_ends_the_run_at_once_and_leaves_the_terminal_usable(start: Start, folder: Path) -> None:
    terminal, its_end = pty.openpty()
    flags = ("--workers", "2", "--total-episodes", "10000000", "--episodes-per-update", "50")
    process = start("--env", "tiny_envs:Tiny", "--run-dir", "run", *flags, stdout=its_end, term="xterm")
    os.close(its_end)
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(everything_from, terminal)
        wait_for_update(folder / "run", process)
        # two of one kind could arrive as one
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=5)
        shown = reading.result()
    os.close(terminal)
    assert process.returncode in (130, 143), err
    assert "Traceback" not in err
    assert not (folder / "run" / "weights.safetensors").exists(), "it ended in order"
    assert "\x1b[?1049h" in shown, "no live console was there to be left"
    screen, _, after = shown.rpartition("\x1b[?1049l")
    assert screen.endswith("\x1b[?7h\x1b[?25h"), f"no cursor or no wrapping afterwards: {screen[-40:]!r}"
    assert "\x1b[?1049h" not in after


@pytest.mark.parametrize("env", ["Hanging", "Spinning"])
def test_a_second_signal_ends_also_what_hangs_in_the_main_process(env: str, start: Start, folder: Path) -> None:
    """The event loop does not come to its turn: it is an environment's."""
    process = start("--env", f"tiny_envs:{env}", "--collector", "sequential", "--run-dir", "run", *SMALL)
    wait_until((folder / "hangs").exists, process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=5)
    assert process.returncode in (130, 143), err
    assert err == ""


@pytest.mark.parametrize(("command", "code"), [("c", 0), ("q", 130)])
def test_breakpoints_work_in_environments_of_this_process(command: str, code: int, start: Start) -> None:
    terminal, its_end = pty.openpty()
    flags = ("--env", "tiny_envs:Debugged", "--collector", "sequential", *SMALL)
    process = start(*flags, stdin=subprocess.PIPE, stdout=its_end, term="xterm")
    os.close(its_end)
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(everything_from, terminal)
        _, err = process.communicate(f"p self.steps\n{command}\n", timeout=60)
        shown = reading.result()
    os.close(terminal)
    assert (process.returncode, err) == (code, "")
    assert "(Pdb) 0" in shown
    assert "\x1b[?1049h" not in shown, "a live console came between"
    assert "collector   sequential: 1 environment in this process" in shown
    assert re.findall("update=([0-9]+)", shown) == (["1", "2"] if command == "c" else [])


def test_what_a_killed_run_leaves_goes_when_the_next_one_starts(start: Start, folder: Path) -> None:
    flags = ("--workers", "2", "--total-episodes", "10000000", "--episodes-per-update", "50")
    killed = start("--env", "tiny_envs:Tiny", "--run-dir", "killed", *flags)
    wait_for_update(folder / "killed", killed)
    os.killpg(killed.pid, signal.SIGKILL)  # with those who would clean up after it
    killed.communicate(timeout=30)
    orphans = list(Path("/dev/shm").glob(f"aiotrain-{killed.pid}-*"))
    assert len(orphans) == 2, "the ring and the weights"
    process = start("--env", "tiny_envs:Tiny", "--run-dir", "next", *SMALL)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert not any(orphan.exists() for orphan in orphans)


@pytest.mark.timeout(300)
def test_the_main_job_survives_interruptions_at_random_moments() -> None:
    command = [sys.executable, "-m", "bench.interrupts", "--runs", "7", "--workers", "2", "--within-s", "30"]
    done = subprocess.run(command, cwd=RUN.parent, capture_output=True, text=True, timeout=290, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", [[str(RUN)], ["-m", "aiotrain"]], ids=["run.py", "aiotrain"])
def test_interrupted_imports_say_nothing(command: list[str], which: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, *command, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: catches_sigterm(process.pid), process)
    process.send_signal(which)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (128 + which, b"")


def catches_sigterm(pid: int) -> bool:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize(
    ("env", "code", "written"),
    [
        ("Tiny", 0, None),
        ("Printing", 0, "a word from the environment"),
        ("Crashing", 2, "Fatal Python error: Segmentation fault"),
    ],
)
def test_what_workers_write_is_kept_away_from_the_live_console(
    env: str, code: int, written: str | None, start: Start, folder: Path
) -> None:
    terminal, its_end = pty.openpty()
    process = start("--env", f"tiny_envs:{env}", "--run-dir", "run", *SMALL, stdout=its_end, term="xterm")
    os.close(its_end)
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(everything_from, terminal)
        _, err = process.communicate(timeout=60)
        shown = reading.result()
    os.close(terminal)
    assert process.returncode == code, err
    log = folder / "run" / "workers.log"
    assert log.exists() == (written is not None)
    assert ("what workers printed is in run/workers.log" in shown) == (written is not None)
    if written is not None:
        assert written in log.read_text()
        assert written not in shown + err


def everything_from(terminal: int) -> str:
    """Read until the other end of a pseudo-terminal is closed."""
    read = b""
    with contextlib.suppress(OSError):  # which is how Linux tells
        while more := os.read(terminal, 65536):
            read += more
    return read.decode(errors="replace")


def test_a_closed_pipe_ends_the_log_and_not_the_run(start: Start, folder: Path) -> None:
    reading, writing = os.pipe()
    process = start("--env", "tiny_envs:Tiny", "--run-dir", "run", *SMALL, stdout=writing)
    os.close(writing)
    os.close(reading)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    assert (folder / "run" / "updates.csv").read_text().count("\n") == 3
