"""The rules of Scenario2 as small constant tables for the compiled engine.

Hosts are numbered in the order of the observation and of the action list: 0 Defender, 1-3 Enterprise0-2, 4-6
Op_Host0-2, 7 Op_Server0, 8-12 User0-4. A set of hosts is the integer with bit ``host`` set for each member.

Each exploit attacks one port, and each of these ports is attacked by one exploit. One byte therefore describes a set of
ports, services, decoys or exploits. Bit ``k`` belongs to exploit ``k`` in the order in which CybORG's
``ExploitRemoteService`` lists exploits: EternalBlue, BlueKeep, HTTP RFI, HTTPS RFI, SSH brute force, SQL injection,
Haraka RCE, FTP directory traversal.

All constants follow the behaviour of csle-cyborg 0.0.3 in Scenario2, with which the tests compare this engine.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from aiotrain.cage2 import scenario
from aiotrain.cage2.scenario import (
    B_LINE_AGENT,
    CONFIDENTIALITY,
    COST_TENTHS,
    HOST_ACTIONS,
    HOST_INDEX,
    HOST_TYPES,
    HOSTS,
    MEANDER_AGENT,
    NUM_ACTIONS,
    RED_AGENTS,
    REVEALS,
    RULES,
    SUBNETS,
    WINDOWS_HOSTS,
)

NUM_HOSTS: Final = len(HOSTS)

DEFENDER: Final = HOST_INDEX["Defender"]
ENTERPRISE2: Final = HOST_INDEX["Enterprise2"]
OP_SERVER0: Final = HOST_INDEX["Op_Server0"]
USER0: Final = HOST_INDEX["User0"]

B_LINE: Final = RED_AGENTS.index(B_LINE_AGENT)
MEANDER: Final = RED_AGENTS.index(MEANDER_AGENT)
LEADERBOARD: Final = RULES.index("leaderboard")
"""Numbers of red agents and of rules, as the state of an environment holds them."""


def host_set(*hosts: int | str) -> int:
    """Return the set of ``hosts``, given by number or name, as an integer with their bits set."""
    return sum(1 << (HOST_INDEX[host] if isinstance(host, str) else host) for host in hosts)


ALL_BUT_USER0: Final = host_set(*range(NUM_HOSTS)) & ~host_set(USER0)
ENTERPRISE: Final = host_set("Enterprise0", "Enterprise1", "Enterprise2")
OPERATIONAL: Final = host_set(*SUBNETS["Operational"])

# Blue's actions: Sleep, Monitor, then a block of 13 hosts for each of HOST_ACTIONS.
ANALYSE: Final = HOST_ACTIONS.index("Analyse")
REMOVE: Final = HOST_ACTIONS.index("Remove")
FIRST_DECOY: Final = HOST_ACTIONS.index("DecoyApache")
RESTORE: Final = HOST_ACTIONS.index("Restore")
NOTHING: Final = len(HOST_ACTIONS)
ACTION_KIND: Final = np.array([NOTHING] * 2 + [i // 13 for i in range(NUM_ACTIONS - 2)], np.uint8)
"""uint8 [145]: ANALYSE, REMOVE, FIRST_DECOY + decoy, RESTORE or NOTHING."""
ACTION_HOST: Final = np.array([0] * 2 + [i % 13 for i in range(NUM_ACTIONS - 2)], np.uint8)
"""uint8 [145]: the host acted on."""

# The bit of each exploit, and the port that it attacks.
ETERNAL_BLUE: Final = 0b00000001  # 139
BLUE_KEEP: Final = 0b00000010  # 3389
HTTP: Final = 0b00000100  # 80
HTTPS: Final = 0b00001000  # 443
SSH: Final = 0b00010000  # 22
SQL: Final = 0b00100000  # 3390
HARAKA: Final = 0b01000000  # 25
FTP: Final = 0b10000000  # 21

_LINUX_SERVER: Final = SSH
_WINDOWS_SERVER: Final = SSH | BLUE_KEEP | HTTP | HTTPS | ETERNAL_BLUE
_USER3: Final = HTTP | HTTPS | HARAKA | BLUE_KEEP
_USER4: Final = SSH | HTTP | HTTPS | HARAKA | SQL

PORTS: Final = np.array(
    [_LINUX_SERVER, _LINUX_SERVER, _WINDOWS_SERVER, _WINDOWS_SERVER, *[_LINUX_SERVER] * 4,
     SSH | FTP, SSH | FTP, ETERNAL_BLUE | BLUE_KEEP, _USER3, _USER4], np.uint8,
)  # fmt: skip
"""uint8 [13]: attackable ports that listen on a host at the start."""
MORE_PORTS: Final = np.array([2, 0, 2, 2, 0, 0, 0, 0, 0, 0, 2, 0, 0], np.uint8)
"""uint8 [13]: number of listening ports that a scan sees and no exploit attacks (53, 68; 135, 445)."""
SERVICES: Final = np.array(
    # Port 139 of the Windows servers has no SMB type, and port 3389 of User3 belongs to MySQL: both attract an exploit,
    # which then finds no process of its type.
    [_LINUX_SERVER, _LINUX_SERVER, _WINDOWS_SERVER & ~ETERNAL_BLUE, _WINDOWS_SERVER & ~ETERNAL_BLUE,
     *[_LINUX_SERVER] * 4, SSH | FTP, SSH | FTP, ETERNAL_BLUE | BLUE_KEEP, _USER3 & ~BLUE_KEEP, _USER4],
    np.uint8,
)  # fmt: skip
"""uint8 [13]: genuine services that an exploit succeeds on."""
ROOT_SERVICES: Final = np.array(
    [0, 0, BLUE_KEEP, BLUE_KEEP, 0, 0, 0, 0, FTP, FTP, ETERNAL_BLUE, HARAKA, HARAKA | SQL], np.uint8
)
"""uint8 [13]: genuine services that run as root or SYSTEM, so that an exploit's session is privileged at once."""

WINDOWS: Final = host_set(*WINDOWS_HOSTS)
LINUX: Final = host_set(*range(NUM_HOSTS)) & ~WINDOWS
_ANY: Final = WINDOWS | LINUX
DECOY_HOSTS: Final = np.array([_ANY, WINDOWS, LINUX, WINDOWS, _ANY, WINDOWS, _ANY, LINUX], np.uint16)
"""uint16 [8]: hosts whose operating system supports the decoy: Apache, Femitter, HarakaSMPT, Smss, SSHD, Svchost,
Tomcat, Vsftpd."""
DECOY_NEEDS: Final = np.array([HTTP, FTP, HARAKA, ETERNAL_BLUE, SSH, BLUE_KEEP, HTTPS, FTP], np.uint8)
"""uint8 [8]: the port that the decoy needs free."""
DECOY_OPENS: Final = np.array([HTTP, FTP, HARAKA, ETERNAL_BLUE, SSH, BLUE_KEEP, HTTPS, HTTP], np.uint8)
"""uint8 [8]: the port that the decoy opens. Vsftpd needs 21 and opens 80, so that it can be placed repeatedly."""

COST: Final = np.array([COST_TENTHS[CONFIDENTIALITY[host]] for host in HOSTS], np.uint8)
"""uint8 [13]: cost of a host in tenths a step, while red is root or SYSTEM on it."""
OT_SERVICE_COST: Final = 100
"""Cost in tenths a step, while the process of OTService is missing."""
RESTORE_COST: Final = 10
"""Cost of each Restore in tenths."""

HOST_TYPE: Final = np.array([HOST_TYPES.index(scenario.HOST_TYPE[host]) for host in HOSTS], np.uint8)
"""uint8 [13]: number of the host's type in HOST_TYPES."""
TYPE_HOSTS: Final = np.array(
    [host_set(*(h for h in range(NUM_HOSTS) if HOST_TYPE[h] == t)) for t in range(5)], np.uint16
)
"""uint16 [5]: the hosts of a type."""

# Subnets in the scenario's order: Enterprise (with the defender), Operational, User.
SUBNET: Final = np.array([next(i for i, s in enumerate(SUBNETS.values()) if h in s) for h in HOSTS], np.uint8)
"""uint8 [13]: the host's subnet."""
SUBNET_HOSTS: Final = np.array([host_set(*hosts) for hosts in SUBNETS.values()], np.uint16)
"""uint16 [3]: the subnet's hosts."""
USER_SUBNET: Final = list(SUBNETS).index("User")
ENTERPRISE_SUBNET: Final = list(SUBNETS).index("Enterprise")
LEARNED: Final = np.array([host_set(*{host, REVEALS.get(host, host)}) for host in HOSTS], np.uint16)
"""uint16 [13]: hosts whose address red knows after it escalated on the host."""

SWEEP: Final = 0
SCAN: Final = 1
EXPLOIT: Final = 2
ESCALATE: Final = 3
IMPACT: Final = 4

STAGE_ACTION: Final = np.array([0, 1, 2, 3, 1, 2, 3, 0, 1, 2, 3, 1, 2, 3, 4], np.uint8)
"""uint8 [15]: what B_line does in each of its stages (SWEEP ... IMPACT)."""
STAGE_ROLE: Final = np.array([0, 0, 0, 0, 1, 1, 1, 0, 2, 2, 2, 3, 3, 3, 3], np.uint8)
"""uint8 [15]: the target: 0 the user host drawn at the start, 1 the server it leads to, 2 Enterprise2, 3 Op_Server0."""
STAGE_AFTER_FAILURE: Final = np.array([0, 1, 2, 2, 2, 2, 5, 5, 5, 5, 9, 9, 9, 12, 13], np.uint8)
"""uint8 [15]: the stage to which B_line returns after a failure."""
LAST_STAGE: Final = 14
FIRST_USER_TARGET: Final = HOST_INDEX["User1"]
ENTRY_SERVER: Final = np.array([HOST_INDEX[REVEALS[h]] if h in SUBNETS["User"][1:] else 0 for h in HOSTS], np.uint8)
"""uint8 [13]: the enterprise server that B_line reaches from a user host."""


def _candidates() -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Return NUM_OPTIONS, BEST_OPTION and OTHER_OPTIONS."""
    preference = (4, 1, 0, 2, 3, 5, 6, 7)  # CybORG's weights, lowest first
    count = np.zeros(256, np.uint8)
    best = np.zeros(256, np.uint8)
    others = np.zeros((256, 8), np.uint8)
    for ports in range(256):
        options = [k for k in range(8) if ports >> k & 1]
        if not ports & (HTTP | HTTPS):
            options = [k for k in options if 1 << k != SQL]
        count[ports] = len(options)
        if options:
            top = max(options, key=preference.index)
            best[ports] = 1 << top
            rest = [1 << k for k in options if k != top]
            others[ports, : len(rest)] = rest
    return count, best, others


NUM_OPTIONS, BEST_OPTION, OTHER_OPTIONS = _candidates()
"""Exploits that each set of remembered ports allows: their number, uint8 [256]; the bit of the preferred one,
uint8 [256]; the bits of the others in the order of CybORG's draw, uint8 [256, 8]."""

BIT_COUNT: Final = np.array([i.bit_count() for i in range(256)], np.uint8)
"""uint8 [256]: number of set bits."""

ODDS_OF_BEST: Final = int(0.75 * 2**53)
"""CybORG takes the preferred exploit if ``u < 0.75``. This bound is for the 53 random bits of u."""
ODDS_OF_DETECTION: Final = int(0.95 * 2**53)
"""An exploit's session is detected if ``u < 0.95``; in the same unit."""
