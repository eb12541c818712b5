"""Scenario2 of CAGE Challenge 2 as tables, and as the dict that csle-cyborg takes.

The facts come from ``Scenario2.yaml`` and the host images beside it in the challenge's repository
(https://github.com/cage-challenge/cage-challenge-2, MIT licence). Paths, parent processes, user groups and user ids are
left out: neither the simulator nor an agent's observation of this scenario depends on them.

Every vector of the environment is indexed in one of these orders:

* hosts: ``HOSTS``, 13 of them;
* observation bits: ``4 * host + (0, 1)`` activity, ``4 * host + (2, 3)`` compromise;
* actions: Sleep, Monitor, then ``HOST_ACTIONS`` times ``HOSTS``, see `action_index`.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, get_args

from aiotrain.errors import unknown_name

HOSTS: Final = (
    "Defender",
    "Enterprise0",
    "Enterprise1",
    "Enterprise2",
    "Op_Host0",
    "Op_Host1",
    "Op_Host2",
    "Op_Server0",
    "User0",
    "User1",
    "User2",
    "User3",
    "User4",
)
HOST_INDEX: Final = {host: index for index, host in enumerate(HOSTS)}

# Hosts in the order in which the simulator assigns addresses: B_line takes "the third host" of a sweep.
SUBNETS: Final = {
    "Enterprise": ("Enterprise0", "Enterprise1", "Enterprise2", "Defender"),
    "Operational": ("Op_Server0", "Op_Host0", "Op_Host1", "Op_Host2"),
    "User": ("User0", "User1", "User2", "User3", "User4"),
}
# The simulator draws networks that hold this many hosts; Enterprise has one more than it declares.
_DECLARED_SIZE: Final = {"Enterprise": 3, "Operational": 4, "User": 5}

HOST_TYPES: Final = ("defender", "enterprise", "op_server", "op_host", "user")


def host_type(host: str) -> str:
    """Return the type of HOST_TYPES that the name of ``host`` begins with. Raises ValueError if there is none."""
    for kind in HOST_TYPES:
        if host.lower().startswith(kind):
            return kind
    raise ValueError(
        f"a workflow orders the host types {', '.join(HOST_TYPES)}, but the scenario's host {host!r} is of none of "
        "them; a host is of the type that its name begins with"
    )


HOST_TYPE: Final = {host: host_type(host) for host in HOSTS}

CONFIDENTIALITY: Final = {
    host: "None" if host == "User0" else "Medium" if HOST_TYPE[host] in ("enterprise", "op_server") else "Low"
    for host in HOSTS
}
AVAILABILITY: Final = {
    "Enterprise0": "Medium",
    "Enterprise1": "Medium",
    "Enterprise2": "Medium",
    "Op_Server0": "High",
    **dict.fromkeys(SUBNETS["User"], "None"),
}
# What a lost host of each value costs the defender in a step, in tenths of a reward (csle-cyborg's calculators).
COST_TENTHS: Final = {"None": 0, "Low": 1, "Medium": 10, "High": 100}

GLOBAL_ACTIONS: Final = ("Sleep", "Monitor")
HOST_ACTIONS: Final = (
    "Analyse",
    "Remove",
    "DecoyApache",
    "DecoyFemitter",
    "DecoyHarakaSMPT",
    "DecoySmss",
    "DecoySSHD",
    "DecoySvchost",
    "DecoyTomcat",
    "DecoyVsftpd",
    "Restore",
)
NUM_ACTIONS: Final = len(GLOBAL_ACTIONS) + len(HOST_ACTIONS) * len(HOSTS)
NUM_BITS: Final = 4 * len(HOSTS)

RED_ACTIONS: Final = (
    "Sleep",
    "DiscoverRemoteSystems",
    "DiscoverNetworkServices",
    "ExploitRemoteService",
    "BlueKeep",
    "EternalBlue",
    "FTPDirectoryTraversal",
    "HarakaRCE",
    "HTTPRFI",
    "HTTPSRFI",
    "SQLInjection",
    "PrivilegeEscalate",
    "Impact",
    "SSHBruteForce",
)
B_LINE_AGENT: Final = "B_lineAgent"
MEANDER_AGENT: Final = "RedMeanderAgent"
SLEEP_AGENT: Final = "SleepAgent"
RED_AGENTS: Final = (B_LINE_AGENT, MEANDER_AGENT, SLEEP_AGENT)
"""CybORG's class names of the red agents. In the compiled engine, an agent's number is its place here."""

Simulator = Literal["compiled", "cyborg"]
"""What plays the scenario: the compiled engine, or csle-cyborg."""
SIMULATORS: Final[tuple[Simulator, ...]] = get_args(Simulator)

Rules = Literal["main", "leaderboard"]
"""A set of rules: that of csle-cyborg and CybORG's main branch, or that of the leaderboard's commit, 606813b."""
RULES: Final[tuple[Rules, ...]] = get_args(Rules)

EPISODE_STEPS: Final = 100
"""Steps of an episode by default."""
LONGEST_EPISODE: Final = 2**16 - 1
"""Steps. The compiled engine counts the sessions of a host in 16 bits, and a step adds at most one."""

GREEN_ACTIONS: Final = ("Sleep", "GreenPingSweep", "GreenPortScan", "GreenConnection")

# Where red's escalation on a host reveals the address of another one.
REVEALS: Final = {
    "Enterprise2": "Op_Server0",
    "User1": "Enterprise1",
    "User2": "Enterprise1",
    "User3": "Enterprise0",
    "User4": "Enterprise0",
}
GREEN_HOSTS: Final = (*SUBNETS["User"], "Op_Host0", "Op_Host1", "Op_Host2")


def action_index(kind: str, host: str | None = None) -> int:
    """Return the index of an action, ``0..144``.

    ``kind`` is one of ``GLOBAL_ACTIONS``, without ``host``, or one of ``HOST_ACTIONS``.
    Raises ValueError for an unknown name; the message names the nearest ones.
    """
    if host is None and kind in GLOBAL_ACTIONS:
        return GLOBAL_ACTIONS.index(kind)
    if kind not in HOST_ACTIONS:
        raise ValueError(unknown_name("action", kind, (*GLOBAL_ACTIONS, *HOST_ACTIONS)))
    if host not in HOST_INDEX:
        raise ValueError(unknown_name("host", host, HOSTS))
    return len(GLOBAL_ACTIONS) + HOST_ACTIONS.index(kind) * len(HOSTS) + HOST_INDEX[host]


def action_name(index: int) -> str:
    """Return the name of an action, such as ``"Restore Op_Server0"``. Raises ValueError outside ``0..144``."""
    if not 0 <= index < NUM_ACTIONS:
        raise ValueError(f"action {index} does not exist: Scenario2 has {NUM_ACTIONS}, numbered from 0")
    if index < len(GLOBAL_ACTIONS):
        return GLOBAL_ACTIONS[index]
    kind, host = divmod(index - len(GLOBAL_ACTIONS), len(HOSTS))
    return f"{HOST_ACTIONS[kind]} {HOSTS[host]}"


class Process(NamedTuple):
    """A process of a host image: its listening ``ports`` and the properties that exploits check."""

    name: str
    pid: int
    user: str
    ports: tuple[int, ...] = ()
    kind: str | None = None
    """The type that exploits match. None: the simulator derives it from the name (``sshd`` and ``mysql`` have one)."""
    version: str | None = None
    rfi: bool = False
    """Whether it includes remote files, which is the weakness of the web servers."""
    address: str = "0.0.0.0"


_SSHD = Process("sshd", 1091, "root", (22,))
_SSHD_EXE = Process("sshd.exe", 3368, "sshd_server", (22,))
_SVCHOST_EXE = Process("svchost.exe", 832, "SYSTEM", (135,))
_SMSS_EXE = Process("smss.exe", 4, "SYSTEM", (445, 139))
_RDP = Process("svchost.exe", 4400, "SYSTEM", (3389,), kind="rdp")
_HTTP = Process("apache2", 1100, "www-data", (80,), kind="webserver", rfi=True)
_HTTPS = _HTTP._replace(ports=(443,))
_SMTP = Process("smtp", 1102, "root", (25,), kind="smtp", version="haraka 2.7.0")
_MYSQL = Process("mysql", 1101, "root", (3390,))

_GATEWAY = (_SSHD,)
_OP_SERVER = (_SSHD, Process("OTService", 1043, "root"))
_INTERNAL = (
    _SSHD_EXE,
    _SVCHOST_EXE,
    _RDP,
    _SMSS_EXE,  # has no type here, so that EternalBlue finds nothing to exploit
    Process("tomcat8.exe", 3404, "NetworkService", (80, 443), kind="webserver", rfi=True),
)
_USER_FTP = (_SSHD_EXE, Process("femitter.exe", 3344, "SYSTEM", (21,), kind="femitter"))
_USER_SMB = (_SMSS_EXE._replace(kind="smb"), _SVCHOST_EXE, _RDP._replace(user="NetworkService"))
_USER_WEB = (_HTTP, _MYSQL._replace(ports=(3389,)), _HTTPS, _SMTP)
_USER_WEB_SSH = (_SSHD, _HTTP, _MYSQL, _HTTPS, _SMTP)

# Processes without a port. They matter only because a new process never draws a pid that is in use.
_DEFENDER_DAEMONS: Final = (
    "init 1, systemd-journald 389, systemd-udevd 407, lvmetad 409, systemd-timesyncd 560 systemd+, "
    "accounts-daemon 790, atd 802 daemon, bash 803 velocir+, rsyslogd 807 syslog, acpid 824, snapd 825, "
    "dbus-daemon 827 message+, velociraptor.bin 832 velocir+, cron 844, systemd-logind 847, python3 852, "
    "lxcfs 853, polkitd 863, python3 867, agetty 875, agetty 884, python3 1370, systemd-hostnamed 1432, "
    "sshd 2288"
)
_DEFENDER = (
    *(
        Process(name, int(pid), user[0] if user else "root")
        for name, pid, *user in (daemon.split() for daemon in _DEFENDER_DAEMONS.split(", "))
    ),
    Process("sshd", 879, "root", (22,)),
    Process("systemd-resolved", 656, "systemd+", (53, 53), address="127.0.0.53"),
    Process("systemd-networkd", 634, "systemd+", (68,), address="10.0.11.88"),
)

PROCESSES: Final[dict[str, tuple[Process, ...]]] = {
    "Defender": _DEFENDER,
    "Enterprise0": _GATEWAY,
    "Enterprise1": _INTERNAL,
    "Enterprise2": _INTERNAL,
    "Op_Host0": _GATEWAY,
    "Op_Host1": _GATEWAY,
    "Op_Host2": _GATEWAY,
    "Op_Server0": _OP_SERVER,
    "User0": _USER_FTP,
    "User1": _USER_FTP,
    "User2": _USER_SMB,
    "User3": _USER_WEB,
    "User4": _USER_WEB_SSH,
}
WINDOWS_HOSTS: Final = frozenset({"Enterprise1", "Enterprise2", "User0", "User1", "User2"})

_LINUX = {"OSType": "LINUX", "OSDistribution": "UBUNTU", "OSVersion": "U18_04_3", "Architecture": "x64"}
_WINDOWS = {
    "OSType": "WINDOWS",
    "OSDistribution": "WINDOWS_SVR_2008",
    "OSVersion": "W6_1_7601",
    "Architecture": "x64",
}


def _users(host: str) -> list[dict[str, Any]]:
    """Return the accounts of a host. SSH brute force succeeds on the one with a guessable password."""
    if host == "Defender":
        return [{"Username": "root"}, {"Username": "ubuntu"}]
    names = ("Administrator", "GreenAgent", "vagrant", "SYSTEM")
    if host not in WINDOWS_HOSTS:
        names = ("root", "www-data", "pi", "ubuntu")
    passwords = {"vagrant": "vagrant", "pi": "raspberry"}
    users: list[dict[str, Any]] = [
        {"Username": name, "Password": passwords[name], "Bruteforceable": True}
        if name in passwords
        else {"Username": name}
        for name in names
    ]
    return users if host in WINDOWS_HOSTS else [*users, {"Username": "GreenAgent"}]


def _process(process: Process) -> dict[str, Any]:
    fields: dict[str, Any] = {"Process Name": process.name, "PID": process.pid, "Username": process.user}
    if process.ports:
        fields["Connections"] = [{"local_port": port, "local_address": process.address} for port in process.ports]
    if process.kind:
        fields["Process Type"] = process.kind
    if process.version:
        fields["Process Version"] = process.version
    if process.rfi:
        fields["Properties"] = ["rfi"]
    return fields


def _host(host: str) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "System info": dict(_WINDOWS if host in WINDOWS_HOSTS else _LINUX),
        "User Info": _users(host),
        "Processes": [_process(process) for process in PROCESSES[host]],
        "ConfidentialityValue": CONFIDENTIALITY[host],
        "AvailabilityValue": AVAILABILITY.get(host, "Low"),
    }
    if host != "Defender":  # an escalation on it would reveal nothing
        fields["info"] = {host: {"Interfaces": "All"}}
    if host in REVEALS:
        fields["info"][REVEALS[host]] = {"Interfaces": "IP Address"}
    if host == "Op_Server0":
        fields["Services"] = {"OTService": {"active": True, "PID": 1043}}
        fields["info"][host]["Services"] = ["OTService"]
    return fields


def _session(host: str, name: str, kind: str, user: str, **extra: Any) -> dict[str, Any]:
    return {"hostname": host, "name": name, "type": kind, "username": user, **extra}


def _agent(actions: tuple[str, ...], reward: str, sessions: list[dict[str, Any]], **extra: Any) -> dict[str, Any]:
    return {
        "agent_type": SLEEP_AGENT,
        "AllowedSubnets": ["User", "Enterprise", "Operational"],
        "actions": list(actions),
        "reward_calculator_type": reward,
        "starting_sessions": sessions,
        "wrappers": [],
        **extra,
    }


def _knows_all() -> dict[str, Any]:
    return {"Hosts": {h: {"Interfaces": "All", "System info": "All", "User info": "All"} for h in HOSTS}}


def _blue_sessions() -> list[dict[str, Any]]:
    # At every reset, the clients draw their pids in this order.
    clients = [
        _session(
            host,
            f"Velo{host}",
            "VelociraptorClient",
            "SYSTEM" if host in ("Enterprise1", "Enterprise2") else "ubuntu",
            parent="VeloServer",
        )
        for host in (*SUBNETS["User"], *SUBNETS["Enterprise"], *SUBNETS["Operational"])
    ]
    server = _session(
        "Defender",
        "VeloServer",
        "VelociraptorServer",
        "ubuntu",
        num_children_sessions=2,
        artifacts=["NetworkConnections", "ProcessCreation"],
    )
    return [*clients, server]


def scenario2() -> dict[str, Any]:
    """Return a new dict of Scenario2 as csle-cyborg takes it. Change it freely, and pass it as ``scenario``.

    All three agents sleep in it: the environment plays blue and inserts the chosen red agent, and green has nothing to
    do in this scenario.
    """
    green = [_session(host, "GreenSession", "green_session", "GreenAgent") for host in GREEN_HOSTS]
    red = [_session("User0", "RedPhish", "RedAbstractSession", "SYSTEM")]
    open_to_all = {"all": {"in": "all", "out": "all"}}
    # To the simulator, "None" means: only while red holds a host with "Enterprise" in its name.
    gate = {"User": {"in": "None", "out": "all"}}
    return {
        "Agents": {
            "Blue": _agent(
                (*GLOBAL_ACTIONS, *HOST_ACTIONS),
                "HybridAvailabilityConfidentiality",
                _blue_sessions(),
                INT=_knows_all(),
                adversary="Red",
            ),
            "Green": _agent(GREEN_ACTIONS, "None", green, INT=_knows_all()),
            "Red": _agent(
                RED_ACTIONS,
                "HybridImpactPwn",
                red,
                INT={"Hosts": {"User0": {"Interfaces": "All", "System info": "All"}}},
            ),
        },
        "Hosts": {host: _host(host) for host in HOSTS},
        "Subnets": {
            name: {
                "Hosts": list(hosts),
                "NACLs": {**(gate if name == "Operational" else {}), **open_to_all},
                "Size": _DECLARED_SIZE[name],
            }
            for name, hosts in SUBNETS.items()
        },
    }
