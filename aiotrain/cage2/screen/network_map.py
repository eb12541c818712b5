"""Watching an episode: a pure function from its steps to a frame of the network, and one to a line for logs.

The frame shows the three subnets in the order in which red must take them. Of each host it tells the truth (the name,
after a circle for red's hold), what blue is shown, and the decoys that stand.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from aiotrain.app.console import charts
from aiotrain.app.console.lines import Frame, Line, beside, box, clip, fit, length, spread
from aiotrain.cage2.scenario import HOST_INDEX, SUBNETS
from aiotrain.cage2.workflows import order_words

if TYPE_CHECKING:
    from aiotrain.cage2.playback.episode import Cage2Setting, Cage2Step
    from aiotrain.cage2.playback.ground_truth import Deed, Host, Scene

__all__ = ["heading", "plain_step", "render_step"]

_MAP_WIDTH, _MAP_HEIGHT = 76, 23
"""The smallest terminal that has room for three subnets side by side."""
_APART_HEIGHT: Final = 36
"""From which on hosts stand apart, and red's hold is spelt out."""
_GAP: Final = 2
_WAY: Final = ("User", "Enterprise", "Operational")
_HOLD: Final = {"none": ("○", "label"), "user": ("◐", "warn"), "privileged": ("●", "bad")}
_ACTIVITY: Final = {"scan": "hint", "exploit": "bad"}
_SHORT: Final = 4
"""Letters of a decoy's name where there is no room for more."""
_HEIGHTS: Final = " ▁▂▃▄▅▆▇█"
_COSTS: Final = (0.0, 0.1, 0.3, 0.9, 1.1, 2.1, 4.0, 9.9)
"""What a step may cost at most to be drawn as low as this: the same in all frames, unlike a scale up to the largest."""
_KEYS: Final = "space pause ← → step q quit"


def render_step(
    setting: Cage2Setting, steps: Sequence[Cage2Step], width: int, height: int, keys: bool = False
) -> Frame:
    """Draw the last of ``steps``, which are those of an episode of CAGE 2 until then, as a frame.

    It is of exactly ``width`` cells and at most ``height`` lines. ``keys``: tell by which keys it is watched.
    """
    width, height = max(1, width), max(1, height)
    step = steps[-1]
    has_map = width >= _MAP_WIDTH and height >= _MAP_HEIGHT
    head = _identity(setting, step, width)
    told = _told(setting, steps, width)
    legend = _legend(keys, width)
    if not has_map:
        lines = [head, *told, *_list(step.scene)]
        return Frame([fit(line, width) for line in lines[:height]])
    is_apart = height >= _APART_HEIGHT
    network = _map(step.scene, width, is_apart)
    lines = [head, *network, *told][: height - 1]
    room = height - len(lines) - 1
    if room >= 4:
        lines += box("steps", [], _steps(steps, width - 4, room - 2), width, room)
    return Frame([fit(line, width) for line in [*lines, legend]])


def heading(setting: Cage2Setting, scene: Scene) -> str:
    """Say what is played, on one line."""
    red = _against(setting, scene)
    parts = [setting.environment, setting.player, red, setting.how, f"seed {setting.seed}", setting.simulator]
    if setting.order:
        parts.append(f"workflow {setting.order}")
    return ", ".join(charts.printable(part) for part in parts if part)


def plain_step(step: Cage2Step) -> str:
    """Tell a step on one line of text, for logs.

    It tells what both sides did and what came of it, the reward, the return so far, what red truly holds (privileged
    with an asterisk), and the hosts that blue's table shows as active or compromised.
    """
    scene = step.scene
    held = [host.name + "*" * (host.access == "privileged") for host in scene.hosts if host.access != "none"]
    seen = ", ".join(
        f"{host.name} {' '.join(words)}" for host in scene.hosts if (words := [text for text, _ in _view(host)])
    )
    parts = [
        f"step {step.step}: blue {_sentence(scene.blue)}",
        f"red {_sentence(scene.red)}",
        f"reward {step.reward:.6g}, return {step.episode_return:.6g}",
        f"red holds {' '.join(held)}" + (", OTService is down" if scene.service_down else ""),
        f"blue sees {seen or 'nothing'}",
    ]
    return charts.printable(" | ".join(parts) + (f" | {step.ending}" if step.ending else ""))


def _against(setting: Cage2Setting, scene: Scene) -> str:
    by = "" if setting.rules == "main" else f" by {setting.rules} rules"
    return f"against {scene.red_agent}{by}"


def _sentence(deed: Deed) -> str:
    succeeded = {True: "succeeds", False: "fails", None: ""}[deed.success]
    words = " ".join(word for word in (deed.action, deed.target, succeeded) if word)
    return f"{words}: {deed.outcome}" if deed.outcome else words


# ------------------------------------------------------------------------------ lines


def _identity(setting: Cage2Setting, step: Cage2Step, width: int) -> Line:
    of = f" / {setting.steps}" if setting.steps is not None else ""
    right: Line = [("  step ", "label"), (f"{step.step}{of}", "value")]
    facts = [_against(setting, step.scene), setting.how, f"seed {setting.seed}", setting.simulator]
    tail: Line = [(f" · {charts.printable(fact)}", "label") for fact in facts if fact]
    while len(tail) > 1 and 24 + length(tail) + length(right) > width:
        tail.pop()
    room = max(12, width - 11 - length(tail) - length(right))
    return spread([(" aiotrain ", "brand"), (" ", ""), *clip(setting.player, "value", room), *tail], right, width)


def _told(setting: Cage2Setting, steps: Sequence[Cage2Step], width: int) -> list[Line]:
    """Tell what both sides did, what it cost, and what the policy thought."""
    step, scene = steps[-1], steps[-1].scene
    lines = [_deed("blue", scene.blue), _deed("red", scene.red), _reward(steps, width)]
    if step.odds:
        lines.append(_odds(step))
    if setting.order:
        known = math.isfinite(step.compliance)
        right: Line = [("complies ", "label"), (charts.percent(step.compliance).strip(), "value")] if known else []
        lines.append(spread([(" order  ", "label"), (order_words(setting.order), "")], right, width))
    return lines


def _deed(side: str, deed: Deed) -> Line:
    line: Line = [(f" {side:<5}", side), ("  ", ""), (charts.printable(deed.action), "value")]
    if deed.target:
        line.append((f" {charts.printable(deed.target)}", "value"))
    if deed.success is not None:
        line.append((" ✓" if deed.success else " ✗", "good" if deed.success else "bad"))
    return [*line, (f"  {charts.printable(deed.outcome)}", "label")] if deed.outcome else line


def _reward(steps: Sequence[Cage2Step], width: int) -> Line:
    """Draw the reward, what it comes from, the return so far, and what each step has cost."""
    step = steps[-1]
    line: Line = [(" reward ", "label"), (f"{step.reward:.1f}", "bad" if step.reward else "value")]
    if step.scene.costs:
        line.append((": " + ", ".join(f"{what} {-cost:g}" for what, cost in step.scene.costs), "label"))
    total: Line = [("  return ", "label"), (f"{step.episode_return:.1f}", "value")]
    room = min(len(steps), width - length(line) - length(total) - 3, 40)
    if room > 3:
        heights = [bisect_left(_COSTS, -each.reward) for each in steps[-room:]]
        total = [("  ", ""), ("".join(_HEIGHTS[height] for height in heights), "warn"), *total]
    return spread(line, total, width)


def _odds(step: Cage2Step) -> Line:
    line: Line = [(" policy ", "label")]
    for name, chance in step.odds:
        if len(line) > 1:
            line.append((" · ", "label"))
        line += [(charts.percent(chance).strip(), "label"), (f" {name}", "value" if name == step.action else "")]
    return line


def _legend(keys: bool, width: int) -> Line:
    meaning: Line = []
    for access, (glyph, style) in _HOLD.items():
        meaning += [(f"{glyph} ", style), (f"{'free' if access == 'none' else access}  ", "label")]
    meaning += [("◇ ", ""), ("decoys  ", "label"), ("≠ ", "warn"), ("blue errs", "label")]
    return spread(meaning, [(_KEYS, "label")] if keys else [], width)


def _steps(steps: Sequence[Cage2Step], width: int, height: int) -> list[Line]:
    """List the last steps, the newest first."""
    number = len(str(steps[-1].step))
    room = width - number - 2 * 3 - 7
    lines = []
    for step in steps[: -height - 1 : -1]:
        scene = step.scene
        line: Line = [(f"{step.step:>{number}}", "label")]
        for deed, share in ((scene.blue, 2 * room // 5), (scene.red, room - 2 * room // 5)):
            mark = {True: "✓ ", False: "✗ ", None: "  "}[deed.success]
            words = " ".join(word for word in (deed.action, deed.target) if word)
            told = f"{words}, {deed.outcome}" if deed.outcome else words
            line += [(" │ ", "border"), (mark, "bad" if deed.success is False else "good")]
            line += fit([(charts.printable(told), "")], share - 2)
        lines.append([*line, (f"{step.reward:7.1f}", "bad" if step.reward else "label")])
    return lines


# ---------------------------------------------------------------------------- network


def _map(scene: Scene, width: int, is_apart: bool) -> list[Line]:
    """Draw the subnets side by side, with the way that red must take."""
    each = (width - 2 * _GAP) // 3
    widths = (each, width - 2 * _GAP - 2 * each, each)
    pitch = 4 if is_apart else 3
    rows = pitch * max(map(len, SUBNETS.values())) - is_apart
    boxes = []
    for subnet, room in zip(_WAY, widths, strict=True):
        lines: list[Line] = []
        for name in SUBNETS[subnet]:
            drawn = _host(scene, scene.hosts[HOST_INDEX[name]], room - 4)
            lines += [*drawn, *[[]] * (pitch - len(drawn))]
        if subnet == "Operational":
            lines += [[("OTService is down", "bad") if scene.service_down else ("OTService runs", "label")]]
        boxes.append(box(subnet, _marks(scene, subnet), lines, room, rows + 2))
    user, enterprise, operational = boxes
    way: list[Line] = [[], [], [("─▶", "bad")]]
    gate: list[Line] = way if scene.gate_open else [[], [], [("╌✕", "label")]]
    left = beside(beside(user, way, each), enterprise, each + _GAP)
    return beside(beside(left, gate, width - each - _GAP), operational, width - each)


def _host(scene: Scene, host: Host, width: int) -> list[Line]:
    """Draw a host in three lines at most: the truth, with who acted on it; its decoys; what blue is shown."""
    glyph, style = _HOLD[host.access]
    name: Line = [(f"{glyph} ", style), (host.name, "value" if host.access == "none" else style)]
    marks = _marks(scene, host.name)
    word = f"  {host.access}"
    if host.access != "none" and length(name) + len(word) + length(marks) < width:
        name.append((word, style))
    lines = [spread(name, marks, width)]
    if host.decoys:
        decoys = [each.removeprefix("Decoy").lower() for each in host.decoys]
        if sum(map(len, decoys)) + len(decoys) + 1 > width:
            decoys = [each[:_SHORT] for each in decoys]
        lines.append([(f"◇ {' '.join(decoys)}", "")])
    seen, is_wrong = _view(host), _is_wrong(host)
    if seen or is_wrong:
        shown: Line = [("  sees", "label")]
        for text, of in seen or [("nothing", "label")]:
            shown += [(" ", ""), (text, of)]
        lines.append(spread(shown, [(" ≠", "warn")] if is_wrong else [], width))
    return lines


def _list(scene: Scene) -> list[Line]:
    """List the subnets one below the other, with a line for each host."""
    lines: list[Line] = []
    for subnet in _WAY:
        closed = subnet == "Operational" and not scene.gate_open
        down = "  OTService is down" if subnet == "Operational" and scene.service_down else ""
        lines.append([(subnet, "title"), ("  closed" if closed else "", "label"), (down, "bad")])
        for name in SUBNETS[subnet]:
            host = scene.hosts[HOST_INDEX[name]]
            glyph, style = _HOLD[host.access]
            line: Line = [(f"{glyph} ", style), (f"{name:<12}", "value" if host.access == "none" else style)]
            line += fit(_marks(scene, host.name), 5)
            line.append((" ≠ " if _is_wrong(host) else "   ", "warn"))
            for text, of in _view(host):
                line += [(text, of), (" ", "")]
            if host.decoys:
                line.append((f"◇{len(host.decoys)}", "label"))
            lines.append(line)
    return lines


def _view(host: Host) -> list[tuple[str, str]]:
    """What blue's table shows of a host: its activity and its compromise."""
    seen: list[tuple[str, str]] = []
    if host.activity != "none":
        seen.append((host.activity, _ACTIVITY[host.activity]))
    return [*seen, (host.shown, "value")] if host.shown != "no" else seen


def _is_wrong(host: Host) -> bool:
    """Whether blue takes a free host for compromised, or the other way round. That User0 is red's is never shown."""
    wrong = ("user", "privileged") if host.access == "none" else ("no",)
    return host.name != "User0" and host.shown in wrong


def _marks(scene: Scene, name: str) -> Line:
    """Say who acted on a host or subnet in this step, and whether that succeeded."""
    line: Line = []
    for side, deed in (("blue", scene.blue), ("red", scene.red)):
        if deed.target == name:
            mark = {True: "✓", False: "✗", None: ""}[deed.success]
            line += [(" ", "")] * bool(line) + [(f"{side[0].upper()}{mark}", side)]
    return line
