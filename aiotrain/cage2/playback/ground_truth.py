"""What truly happens in an environment of CAGE Challenge 2: what both sides do, what comes of it, what red holds.

Blue sees little of it in its 52 bits. Under csle-cyborg all is read from the simulator. Of the compiled engine, red's
action is foretold from the state before the step (``engine/predict_red.py``), its success read from what changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from aiotrain.cage2.engine import NO_TAPE, RED_AGENTS, predict_red_one, tables
from aiotrain.cage2.scenario import (
    CONFIDENTIALITY,
    COST_TENTHS,
    HOST_ACTIONS,
    HOST_INDEX,
    HOSTS,
    NUM_BITS,
    SUBNETS,
    action_name,
)
from aiotrain.cage2.simulators.compiled_env import Cage2CompiledEnv

if TYPE_CHECKING:
    from aiotrain.cage2.simulators.fast_cyborg import FastCyborg

__all__ = ["Access", "Activity", "Deed", "GroundTruth", "Host", "Scene", "Shown"]

Access = Literal["none", "user", "privileged"]
"""The highest privilege of red's sessions on a host; privileged: root, or SYSTEM on Windows."""
Activity = Literal["none", "scan", "exploit"]
Shown = Literal["no", "unknown", "user", "privileged"]
"""The compromise of a host as blue's table shows it."""

_ACTIVITIES: Final[dict[tuple[int, int], Activity]] = {(0, 0): "none", (1, 0): "scan", (1, 1): "exploit"}
_SHOWN: Final[dict[tuple[int, int], Shown]] = {(0, 0): "no", (1, 0): "unknown", (0, 1): "user", (1, 1): "privileged"}
_DECOYS: Final = tuple(kind for kind in HOST_ACTIONS if kind.startswith("Decoy"))
_RED_ACTIONS: Final = {
    tables.SWEEP: "DiscoverRemoteSystems",
    tables.SCAN: "DiscoverNetworkServices",
    tables.EXPLOIT: "ExploitRemoteService",
    tables.ESCALATE: "PrivilegeEscalate",
    tables.IMPACT: "Impact",
}
_EXPLOITS: Final = {
    "EternalBlue": tables.ETERNAL_BLUE,
    "BlueKeep": tables.BLUE_KEEP,
    "HTTPRFI": tables.HTTP,
    "HTTPSRFI": tables.HTTPS,
    "SSHBruteForce": tables.SSH,
    "SQLInjection": tables.SQL,
    "HarakaRCE": tables.HARAKA,
    "FTPDirectoryTraversal": tables.FTP,
}
"""csle-cyborg's names of the exploits, and the bit of each in the engine's sets."""
_PROCESSES: Final = {
    "apache2": "DecoyApache",
    "femitter": "DecoyFemitter",
    "haraka": "DecoyHarakaSMPT",
    "Smss.exe": "DecoySmss",
    "Sshd.exe": "DecoySSHD",
    "Svchost.exe": "DecoySvchost",
    "Tomcat.exe": "DecoyTomcat",
    "vsftpd": "DecoyVsftpd",
}
"""csle-cyborg's names of the processes that decoys are."""
_MALWARE_DENSITY: Final = 0.9
_CLOSED: Final = "the way is closed"


class Deed(NamedTuple):
    """What a side did in a step."""

    action: str
    """csle-cyborg's name of the action."""
    target: str
    """The host or subnet acted on; empty for none."""
    success: bool | None
    """As csle-cyborg reports it; None where there is nothing to succeed in."""
    outcome: str
    """What truly came of it, in a few words; empty where there is no more to say."""


class Host(NamedTuple):
    """A host after a step: the truth, and what blue is shown."""

    name: str
    access: Access
    decoys: tuple[str, ...]
    """Those that stand, by the names of blue's actions, the oldest first."""
    activity: Activity
    """Of this step, as blue's table shows it."""
    shown: Shown


@dataclass(frozen=True)
class Scene:
    """The network after a step, and how it came to be so."""

    red_agent: str
    """Name of the red agent in this episode."""
    hosts: tuple[Host, ...]
    """In the order of ``HOSTS``."""
    gate_open: bool
    """Whether red reaches the operational subnet: it holds an enterprise server."""
    service_down: bool
    """Whether OTService is down."""
    blue: Deed
    red: Deed
    costs: tuple[tuple[str, float], ...]
    """What the step cost blue, and for what: the reward is minus their sum."""


class _Truth(NamedTuple):
    """The true state of the network. Sets are integers with a bit for each host."""

    held: int
    """Where red has a session of any privilege."""
    privileged: int
    removable: int
    """Of those held, where a Remove would end all of red's sessions."""
    infected: int
    """Where red has left files."""
    decoys: tuple[tuple[str, ...], ...]
    service_down: bool


class _Red(NamedTuple):
    """What red did."""

    action: str
    target: str
    success: bool | None
    exploit: str = ""


class GroundTruth:
    """Tells what happens in an episode of Scenario2, on either simulator, while somebody plays it.

    It is made after the reset, and told of each step once that was made. ``tape``: as for the engine's ``step_one``.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], tape: NDArray[np.uint64] = NO_TAPE) -> None:
        played: Any = env.unwrapped
        is_compiled = isinstance(played, Cage2CompiledEnv)
        self._source: _Compiled | _Cyborg = _Compiled(played, tape) if is_compiled else _Cyborg(played)
        self._before = self._source.truth()

    def after(self, action: int, table: NDArray[np.int8]) -> Scene:
        """Take notice of a step: blue's ``action``, 0 to 144, and the ``table``, int8 [52 or more], that followed."""
        placed, red = self._source.step(action)
        before, now = self._before, self._source.truth()
        self._before = now
        bits = table[:NUM_BITS].reshape(-1, 4).tolist()
        hosts = tuple(
            Host(name, _access(now, host), now.decoys[host], _ACTIVITIES[a, b], _SHOWN[c, d])
            for host, (name, (a, b, c, d)) in enumerate(zip(HOSTS, bits, strict=True))
        )
        kind, _, target = action_name(action).partition(" ")
        blue = Deed(kind, target, placed if target else None, _blue_outcome(kind, target, placed, before))
        return Scene(
            self._source.red_agent,
            hosts,
            _has_gate_open(now),
            now.service_down,
            blue,
            Deed(red.action, red.target, red.success, _red_outcome(red, before, now)),
            tuple(_costs(kind, now)),
        )


class _Compiled:
    """The truth of the compiled engine."""

    def __init__(self, env: Any, tape: NDArray[np.uint64]) -> None:
        self._env, self._tape = env, tape
        self._record = env.state.copy()
        self._decoys: list[tuple[str, ...]] = [()] * len(HOSTS)

    @property
    def red_agent(self) -> str:
        return RED_AGENTS[self._record["red"][0]]

    def truth(self) -> _Truth:
        env = self._record[0]
        held, privileged = int(env["held"]), int(env["privileged"])
        removable = sum(1 << host for host in range(len(HOSTS)) if env["durable"][host] == 0)
        return _Truth(
            held,
            privileged,
            held & ~privileged & removable,
            int(env["files"]),
            tuple(self._decoys),
            bool(env["ot_down"]),
        )

    def step(self, action: int) -> tuple[bool, _Red]:
        before, self._record = self._record, self._env.state.copy()
        return self._place(action, before[0]), _foretold(before, self._tape, self._record[0])

    def _place(self, action: int, before: Any) -> bool:
        """Keep account of the decoys, which the engine knows by their ports alone; whether blue's action succeeded."""
        kind, host = int(tables.ACTION_KIND[action]), int(tables.ACTION_HOST[action])
        if kind == tables.RESTORE:
            self._decoys[host] = ()
        decoy = kind - tables.FIRST_DECOY
        if not 0 <= decoy < len(_DECOYS):
            return True
        taken = int(tables.PORTS[host] | before["decoys"][host]) & int(tables.DECOY_NEEDS[decoy])
        if taken or not int(tables.DECOY_HOSTS[decoy]) >> host & 1:
            return False
        self._decoys[host] = tuple(dict.fromkeys((*self._decoys[host], _DECOYS[decoy])))
        return True


def _foretold(before: NDArray[Any], tape: NDArray[np.uint64], after: Any) -> _Red:
    """Red's action in the step from the records ``before`` to the record ``after``. Draws from ``before``."""
    action, target, service = predict_red_one(before, 0, tape)
    if action not in _RED_ACTIONS:
        return _Red("Sleep", "", None)
    red = _Red(_RED_ACTIONS[action], list(SUBNETS)[target] if action == tables.SWEEP else HOSTS[target], True)
    exploit = next((name for name, bit in _EXPLOITS.items() if bit == service), "")
    if before["red"][0] == tables.B_LINE:
        succeeded = after["stage"] != tables.STAGE_AFTER_FAILURE[before["stage"][0]]
    elif action == tables.SWEEP:
        succeeded = red.target != "Operational" or after["held"] & tables.ENTERPRISE != 0
    elif action == tables.EXPLOIT:
        succeeded = int(after["exploited"]) >> target & 1 == 1
    else:  # a scan, or what an escalation leaves on a host; an impact that fails takes it back
        succeeded = action == tables.SCAN or int(after["escalated"]) >> target & 1 == 1
    return red._replace(success=bool(succeeded), exploit=exploit)


class _Cyborg:
    """The truth of csle-cyborg, as `FastCyborg` drives it."""

    def __init__(self, env: Any) -> None:
        self._simulator: FastCyborg = env.simulator

    @property
    def red_agent(self) -> str:
        return self._simulator.red_agent

    def truth(self) -> _Truth:
        state, suspicious = self._simulator.state, self._simulator.suspicious_pids
        held = privileged = kept = infected = 0
        for session in state.sessions["Red"].values():
            bit = 1 << HOST_INDEX[session.host]
            held |= bit
            is_privileged = session.username in ("root", "SYSTEM")
            if is_privileged:
                privileged |= bit
            if is_privileged or session.pid not in suspicious.get(session.host, ()):
                kept |= bit
        decoys = []
        for host, name in enumerate(HOSTS):
            there = state.hosts[name]
            if any(file.density >= _MALWARE_DENSITY for file in there.files):
                infected |= 1 << host
            stand = (_PROCESSES[process.name] for process in there.processes if process.decoy_type)
            decoys.append(tuple(dict.fromkeys(stand)))
        service_down = all(process.name != "OTService" for process in state.hosts["Op_Server0"].processes)
        return _Truth(held, privileged, held & ~kept, infected, tuple(decoys), service_down)

    def step(self, action: int) -> tuple[bool, _Red]:
        happened = self._simulator.happened
        placed = bool(happened["Blue"][1] == True)  # noqa: E712 (csle-cyborg's TrinaryEnum)
        if "Red" not in happened:
            return placed, _Red("Sleep", "", None)
        action, reported = happened["Red"]
        success = True if reported == True else False if reported == False else None  # noqa: E712
        chosen = getattr(action, "sub_action", None)  # of an ExploitRemoteService
        exploit = "" if chosen is None else type(chosen).__name__
        return placed, _Red(type(action).__name__, self._target(action), success, exploit)

    def _target(self, action: Any) -> str:
        """The host or subnet that an action of red's is directed at."""
        state = self._simulator.state
        if hasattr(action, "hostname"):
            return str(action.hostname)
        if hasattr(action, "ip_address"):
            return str(state.ip_addresses.get(action.ip_address, ""))
        subnets = {cidr: name for name, cidr in state.subnet_name_to_cidr.items()}
        return str(subnets.get(getattr(action, "subnet", None), ""))


def _access(truth: _Truth, host: int) -> Access:
    if not truth.held >> host & 1:
        return "none"
    return "privileged" if truth.privileged >> host & 1 else "user"


def _has_gate_open(truth: _Truth) -> bool:
    return truth.held & tables.ENTERPRISE != 0


def _blue_outcome(kind: str, target: str, succeeded: bool, before: _Truth) -> str:
    """What came of blue's action, which comes first in a step."""
    if not target:
        return ""
    host = HOST_INDEX[target]
    if kind.startswith("Decoy"):
        return "" if succeeded else "stands already" if kind in before.decoys[host] else "cannot stand"
    if kind == "Analyse":
        return "finds malware" if before.infected >> host & 1 else "finds nothing"
    if not before.held >> host & 1:
        return "red was not there"
    freed = target != "User0" if kind == "Restore" else bool(before.removable >> host & 1)
    return "red loses it" if freed else "red stays"


def _red_outcome(red: _Red, before: _Truth, now: _Truth) -> str:
    """What came of red's action."""
    closed = red.target in SUBNETS["Operational"] and not _has_gate_open(now)
    match red.action:
        case "DiscoverRemoteSystems":
            return "" if red.success else _CLOSED
        case "DiscoverNetworkServices":
            return f"finds nothing: {_CLOSED}" if closed else ""
        case "ExploitRemoteService":
            return _CLOSED if closed and red.exploit else _exploit_outcome(red, now)
        case "PrivilegeEscalate":
            if not red.success:
                return "red has no session there"
            already = before.privileged & now.privileged
            return "red was privileged already" if already >> HOST_INDEX[red.target] & 1 else ""
        case "Impact":
            if not red.success:
                held = now.held >> HOST_INDEX[red.target] & 1
                return "red knows no OTService" if held else "red has no session there"
            return "OTService is down" if now.service_down else "OTService runs on"
    return ""


def _exploit_outcome(red: _Red, now: _Truth) -> str:
    if not red.exploit:
        return "red knows no port there"
    if red.success:
        return f"by {red.exploit}"
    host, bit = HOST_INDEX[red.target], _EXPLOITS.get(red.exploit, 0)
    traps = [each for each in now.decoys[host] if int(tables.DECOY_OPENS[_DECOYS.index(each)]) & bit]
    if traps and not int(tables.SERVICES[host]) & bit:
        return f"{red.exploit} meets {' and '.join(traps)}"
    return f"{red.exploit} in vain"


def _costs(kind: str, now: _Truth) -> list[tuple[str, float]]:
    tenths = {name: COST_TENTHS[CONFIDENTIALITY[name]] for host, name in enumerate(HOSTS) if now.privileged >> host & 1}
    if now.service_down:
        tenths["OTService"] = tables.OT_SERVICE_COST
    if kind == "Restore":
        tenths["Restore"] = tables.RESTORE_COST
    return [(name, cost / 10) for name, cost in tenths.items() if cost]
