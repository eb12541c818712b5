"""What cannot work ends with exit code 2 and the reason, before anything is started or written."""

from __future__ import annotations

from pathlib import Path

import pytest
from program import SMALL, Start

from aiotrain.app.main import main


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["plott", "runs/x"], ["unknown command 'plott'; did you mean plot or export?", "Training has flags"]),
        (["--env", "CartPole-v11"], ["unknown Gymnasium id 'CartPole-v11'", "CartPole-v1", "module:factory"]),
        (["--env", "no_such_module:make"], ["no module 'no_such_module'", "folder you start in"]),
        (["--env", "tiny_envs:"], ["nothing in it"]),
        (["--red-agent", "B_linAgent"], ["red-agent", "'B_linAgent'", "did you mean B_lineAgent"]),
        (["--red-agent", "no_such_module:Red", "--simulator", "cyborg"], ["red-agent", "'no_such_module'"]),
        (["--red-agent", "no_such_module:Red"], ["red-agent", "for no_such_module:Red, choose the simulator cyborg"]),
        (
            ["--red-agent", "SleepAgent", "--env", "tiny_envs:Tiny"],
            ["--red-agent is a setting of aiotrain/Cage2-v0"],
        ),
        (["--simulator", "compiled", "--red-agent", "agents:Red"], ["red-agent", "agents:Red", "simulator cyborg"]),
        (["--simulator", "compiled", "--normalize-observations", "True"], ["normalize-observations", "compiled"]),
        (["--workflow", "user,user,op_host,op_server,defender"], ["user is there 2 times", "enterprise is missing"]),
        (
            ["--workflow", "reverse", "--env", "tiny_envs:Tiny"],
            ["--workflow is a setting of aiotrain/Cage2-v0"],
        ),
        (
            ["--workflow", "serch", "--compliance-threshold", "95", "--alignment-lambda", "-1"],
            ["3 settings cannot work:", "serch", "compliance-threshold", "alignment-lambda"],
        ),
        (["--parallel-workflows", "0"], ["parallel-workflows must be at least 1, not 0"]),
        (["--parallel-workflows", "121"], ["parallel-workflows (121)", "more than 60, half of the orders"]),
        (["--parallel-workflows", "2", "--inherit", "nearest"], ["inherit nearest", "choose parallel-workflows 1"]),
        (["--env", "tiny_envs:Tiny", "--metrics", "a b"], ["metrics: 'a b' is no name"]),
        (["--env", "tiny_envs:Tiny", "--metrics", "episode"], ["episode is a field of every episode already"]),
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
    ("curriculum", "expected"),
    [
        ("nowhere:Class", "nowhere:Class cannot be imported"),
        ("tiny_envs:Nothing", "tiny_envs:Nothing cannot be imported"),
        ("harder", "name it as module:Class"),
        ("builtins:repr", "derive it from aiotrain.Curriculum"),
    ],
)
def test_a_curriculum_that_cannot_be_used_is_refused_with_the_reason(
    curriculum: str, expected: str, start: Start
) -> None:
    process = start("--env", "tiny_envs:Tiny", "--curriculum", curriculum, *SMALL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert expected in err
    assert len(err.splitlines()) == 1, err


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


def test_a_folder_that_holds_a_run_is_not_overwritten(start: Start, folder: Path) -> None:
    (folder / "old").mkdir()
    (folder / "old" / "updates.csv").write_text("precious")
    process = start("--env", "tiny_envs:Tiny", "--run-dir", "old", *SMALL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "holds a run already" in err
    assert (folder / "old" / "updates.csv").read_text() == "precious"
