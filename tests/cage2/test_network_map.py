"""The map of CAGE 2's network: it fills any terminal, and tells truth, view and deeds without colours."""

from __future__ import annotations

import dataclasses
import re
from io import StringIO
from typing import Any, cast

import pytest
from network_scenes import EVENTFUL, SETTING, STEPS, scene, step
from rich.cells import cell_len
from rich.console import Console

from aiotrain.cage2.playback.episode import Cage2Setting, Cage2Step
from aiotrain.cage2.playback.ground_truth import Deed, Host
from aiotrain.cage2.scenario import HOSTS
from aiotrain.cage2.screen.network_map import heading, plain_step, render_step
from aiotrain.cage2.workflows import NAMED_ORDERS, order_text


def drawn(
    width: int, height: int, setting: Cage2Setting = SETTING, steps: list[Cage2Step] = STEPS, **how: Any
) -> list[str]:
    console = Console(file=StringIO(), width=width, height=height, color_system=None)
    console.print(render_step(setting, steps, width, height, **how), end="", crop=False)
    return cast(StringIO, console.file).getvalue().splitlines()


@pytest.mark.parametrize("order", ["", order_text(NAMED_ORDERS["reverse"])])
@pytest.mark.parametrize("size", [(80, 24), (76, 23), (120, 40), (250, 70), (79, 22), (40, 24), (20, 8), (1, 1)])
def test_a_frame_fills_any_terminal(size: tuple[int, int], order: str) -> None:
    width, height = size
    lines = drawn(width, height, dataclasses.replace(SETTING, order=order), keys=True)
    assert {cell_len(line) for line in lines} == {width}
    assert len(lines) <= height


def row_of(lines: list[str], name: str) -> str:
    (row,) = (line for line in lines if re.search(rf"[○◐●] {name}\b", line))
    return row


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_a_frame_tells_truth_view_and_deeds(size: tuple[int, int]) -> None:
    lines = drawn(*size, dataclasses.replace(SETTING, order=order_text(NAMED_ORDERS["reverse"])), keys=True)
    text = "\n".join(lines)
    for name in HOSTS:
        row_of(lines, name)
    assert "● User0  privileged" in text
    assert re.search(r"○ User1 +B✓ │", text), "blue acted there, and succeeded"
    assert re.search(r"◐ Enterprise1( +user)? +R✗ │", text), "red acted there, and failed"
    below = lines[lines.index(row_of(lines, "Enterprise1")) + 1 :]
    assert "◇ tomcat" in below[0]
    assert "sees exploit user" in below[1]
    assert re.search(r"◇ (apac smss svch tomc|apache smss svchost tomcat) ", text)
    assert re.search(r"sees user +≠ ", text), "blue takes a free host for red's"
    assert re.search(r"sees nothing +≠ ", text), "blue does not see that red holds it"
    assert "sees scan unknown" in text
    assert re.search(r"blue +Restore User1 ✓  red loses it", text)
    assert re.search(r"red +ExploitRemoteService Enterprise1 ✗  HTTPSRFI meets DecoyTomcat", text)
    assert re.search(r"reward -1\.1: Enterprise1 -1, User1 -0\.1 .*return -13\.2", text)
    assert re.search(r"policy 62% Restore User1 · 20% Sleep", text)
    assert re.search(r"order  user > op_host > .*complies 50%", text)
    assert "step 12 / 30" in text
    assert text.count("─▶") == 2, "an enterprise server opens the way"
    assert "q quit" in text
    closed = dataclasses.replace(EVENTFUL, gate_open=False, service_down=True)
    text = "\n".join(drawn(*size, steps=[step(1, closed)]))
    assert (text.count("─▶"), text.count("╌✕")) == (1, 1)
    assert "OTService is down" in text
    assert "q quit" not in text


@pytest.mark.parametrize("width", [80, 120])
def test_other_rules_than_main_are_named(width: int) -> None:
    setting, told = dataclasses.replace(SETTING, rules="leaderboard"), "against B_lineAgent by leaderboard rules"
    assert told in drawn(width, 24, setting)[0]
    assert told in heading(setting, EVENTFUL)
    assert "rules" not in drawn(width, 24)[0] + heading(SETTING, EVENTFUL)


def test_a_sweep_is_marked_on_its_subnet() -> None:
    swept = scene(Deed("Sleep", "", None, ""), Deed("DiscoverRemoteSystems", "Operational", False, "the way is closed"))
    assert any(re.search(r"─ Operational ─+ R✗ ─╮", line) for line in drawn(80, 24, steps=[step(1, swept)]))


def test_a_large_terminal_lists_the_last_steps() -> None:
    lines = drawn(120, 40)
    told = [line for line in lines if re.search(r"│ +\d+ │ ✓ Restore User1", line)]
    assert [int(line.split()[1]) for line in told][:3] == [12, 11, 10], "the newest first"


def test_a_narrow_terminal_lists_the_hosts() -> None:
    lines = drawn(50, 30)
    assert all(row_of(lines, name) for name in HOSTS)
    assert re.search(r"◐ Enterprise1 +R✗ +exploit user ◇1", row_of(lines, "Enterprise1"))
    assert re.search(r"○ User1 +B✓ +≠ user ◇4", row_of(lines, "User1"))
    closed = dataclasses.replace(EVENTFUL, gate_open=False, service_down=True)
    assert any("Operational  closed  OTService is down" in line for line in drawn(50, 30, steps=[step(1, closed)]))


def test_colour_tells_nothing_that_characters_do_not() -> None:
    """Each of these differs from the others in what it says, not only in how it looks."""
    texts = set()
    accesses: list[Any] = ["none", "user", "privileged"]
    for access in accesses:
        for success in (True, False):
            told = scene(
                Deed("Sleep", "", None, ""),
                Deed("PrivilegeEscalate", "User1", success, ""),
                User1=Host("User1", access, (), "none", "no"),
            )
            texts |= {"\n".join(drawn(*size, steps=[step(1, told)])) for size in ((80, 24), (40, 24))}
    assert len(texts) == 12


def test_a_line_tells_the_step_and_nothing_of_it_is_markup() -> None:
    assert plain_step(STEPS[0]) == (
        "step 1: blue Restore User1 succeeds: red loses it"
        " | red ExploitRemoteService Enterprise1 fails: HTTPSRFI meets DecoyTomcat"
        " | reward -1.1, return -1.1"
        " | red holds Enterprise1 Enterprise2* User0* User2"
        " | blue sees Enterprise1 exploit user, Enterprise2 scan unknown, User1 user"
    )
    hostile = Deed("Sleep\x1b[2J", "", None, "")
    other = dataclasses.replace(STEPS[0], scene=dataclasses.replace(EVENTFUL, red=hostile), ending="terminated")
    told = plain_step(other)
    assert "\x1b" not in told
    assert told.endswith(" | terminated")
