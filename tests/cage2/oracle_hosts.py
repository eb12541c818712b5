"""Hosts, processes, sessions and events, as the oracle keeps them, and what decoys and exploits there are."""

from dataclasses import dataclass, field

from aiotrain.cage2.scenario import (
    SUBNETS,
    WINDOWS_HOSTS,
)

PRIVILEGED_USERS = ("root", "SYSTEM")
SUBNET_OF = {host: subnet for subnet, hosts in SUBNETS.items() for host in hosts}
KIND_OF_NAME = {"sshd": "ssh", "sshd.exe": "ssh", "mysql": "mysql"}
# name: (port that must be free, port opened, kind of process, operating system or None)
DECOYS = {
    "DecoyApache": (80, 80, "webserver", None),
    "DecoyFemitter": (21, 21, "femitter", "windows"),
    "DecoyHarakaSMPT": (25, 25, "smtp", "linux"),
    "DecoySmss": (139, 139, "smb", "windows"),
    "DecoySSHD": (22, 22, "ssh", None),
    "DecoySvchost": (3389, 3389, "rdp", "windows"),
    "DecoyTomcat": (443, 443, "webserver", None),
    "DecoyVsftpd": (21, 80, "webserver", "linux"),
}
# name: (weight, port, kind of process), in the order of CybORG's dictionary
EXPLOITS = {
    "EternalBlue": (2.0, 139, "smb"),
    "BlueKeep": (1.0, 3389, "rdp"),
    "HTTPRFI": (3.0, 80, "webserver"),
    "HTTPSRFI": (4.0, 443, "webserver"),
    "SSHBruteForce": (0.1, 22, "ssh"),
    "SQLInjection": (5.0, 3390, "mysql"),
    "HarakaRCE": (6.0, 25, "smtp"),
    "FTPDirectoryTraversal": (7.0, 21, "femitter"),
}


@dataclass
class Proc:
    pid: int
    user: str
    kind: str | None = None
    ports: tuple[int, ...] = ()
    decoy: bool = False
    service: str | None = None
    version_known: bool = True


@dataclass
class RedSession:
    pid: int
    user: str


@dataclass
class Event:
    port: int
    remote_port: int | None
    pid: int | None = None


@dataclass
class HostState:
    name: str
    procs: list[Proc]
    backup: list[Proc] = field(default_factory=list)
    sessions: list[RedSession] = field(default_factory=list)
    files: int = 0
    ephemeral: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    services: dict[str, int] = field(default_factory=dict)
    suspicious: list[int] = field(default_factory=list)
    compromised: str = "No"

    @property
    def windows(self) -> bool:
        return self.name in WINDOWS_HOSTS

    @property
    def blue_sessions(self) -> int:
        return 2 if self.name == "Defender" else 1

    def listening(self, port: int) -> bool:
        return any(port in proc.ports for proc in self.procs)
