"""Steps of CAGE 2 to be drawn, which nobody has played."""

from __future__ import annotations

import math

import numpy as np

from aiotrain.cage2 import CAGE2_ID
from aiotrain.cage2.playback.episode import Cage2Setting, Cage2Step
from aiotrain.cage2.playback.ground_truth import Deed, Host, Scene
from aiotrain.cage2.scenario import HOSTS

SETTING = Cage2Setting(CAGE2_ID, "quiet-river", "sampled", 3, 30, "compiled", "main", "")


def scene(blue: Deed, red: Deed, gate_open: bool = False, service_down: bool = False, **hosts: Host) -> Scene:
    quiet = [hosts.get(name, Host(name, "none", (), "none", "no")) for name in HOSTS]
    return Scene(
        "B_lineAgent", tuple(quiet), gate_open, service_down, blue, red, (("Enterprise1", 1.0), ("User1", 0.1))
    )


def step(number: int, told: Scene, odds: tuple[tuple[str, float], ...] = (), compliance: float = math.nan) -> Cage2Step:
    seen, metrics = np.zeros(52, np.int8), {"compliance": compliance}
    return Cage2Step(number, "Restore User1", odds, -1.1, -1.1 * number, seen, "", metrics, told)


EVENTFUL = scene(
    Deed("Restore", "User1", True, "red loses it"),
    Deed("ExploitRemoteService", "Enterprise1", False, "HTTPSRFI meets DecoyTomcat"),
    gate_open=True,
    User0=Host("User0", "privileged", (), "none", "no"),
    User1=Host("User1", "none", ("DecoyApache", "DecoySmss", "DecoySvchost", "DecoyTomcat"), "none", "user"),
    User2=Host("User2", "user", (), "none", "no"),
    Enterprise1=Host("Enterprise1", "user", ("DecoyTomcat",), "exploit", "user"),
    Enterprise2=Host("Enterprise2", "privileged", ("DecoyFemitter",), "scan", "unknown"),
)
STEPS = [step(number, EVENTFUL, (("Restore User1", 0.62), ("Sleep", 0.2)), 0.5) for number in range(1, 13)]
