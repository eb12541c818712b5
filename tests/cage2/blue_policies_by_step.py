"""Blue policies that between them reach the rules of the scenario, each with a generator of its own."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from aiotrain.cage2.scenario import HOST_ACTIONS, HOSTS, NUM_ACTIONS, action_index

Act = Callable[[int, np.ndarray], int]
"""Takes the number of the step in the episode, from 0, and the last observation [52]; gives an action."""

# Decoys that fit some hosts, and what they are in the way of; the second round meets used ports.
DECOYS = [
    ("DecoyFemitter", "Enterprise1"),
    ("DecoyFemitter", "Enterprise2"),
    ("DecoyHarakaSMPT", "Enterprise0"),
    ("DecoyTomcat", "Op_Server0"),
    ("DecoyApache", "Op_Server0"),
    ("DecoySmss", "User1"),
    ("DecoySvchost", "User1"),
    ("DecoyTomcat", "User2"),
    ("DecoySSHD", "User2"),
    ("DecoySSHD", "User3"),
    ("DecoyApache", "Defender"),
    ("DecoyVsftpd", "User4"),
]
DECOY_KINDS = [kind for kind in HOST_ACTIONS if kind.startswith("Decoy")]


def sleep(rng: random.Random) -> Act:
    return lambda step, bits: 0


def uniform(rng: random.Random) -> Act:
    return lambda step, bits: rng.randrange(NUM_ACTIONS)


def decoys_then_restore(rng: random.Random) -> Act:
    """Open loop: two rounds of decoys, then restores in turn."""
    script = [action_index(*decoy) for decoy in DECOYS * 2]
    return lambda step, bits: script[step] if step < len(script) else action_index("Restore", HOSTS[step % len(HOSTS)])


def restore_spam(rng: random.Random) -> Act:
    return lambda step, bits: action_index("Restore", rng.choice(HOSTS))


def remove_heavy(rng: random.Random) -> Act:
    """Removes on hosts that look compromised, else anywhere."""

    def act(step: int, bits: np.ndarray) -> int:
        return action_index("Remove", rng.choice(_compromised(bits) or list(HOSTS)))

    return act


def react(rng: random.Random) -> Act:
    """Analyses, removes or restores what looks compromised; analyses at random in quiet steps."""

    def act(step: int, bits: np.ndarray) -> int:
        suspects = _compromised(bits)
        if suspects:
            return action_index(rng.choice(("Analyse", "Remove", "Restore")), rng.choice(suspects))
        return action_index("Analyse", rng.choice(HOSTS)) if rng.random() < 0.5 else 1

    return act


def decoy_where_scanned(rng: random.Random) -> Act:
    """Places a decoy where red has just been; restores what looks privileged."""

    def act(step: int, bits: np.ndarray) -> int:
        privileged = [host for host, row in _rows(bits) if row[2] and row[3]]
        if privileged:
            return action_index("Restore", privileged[0])
        active = [host for host, row in _rows(bits) if row[0]] or list(HOSTS)
        return action_index(rng.choice(DECOY_KINDS), rng.choice(active))

    return act


def stacked_vsftpd(rng: random.Random) -> Act:
    """Vsftpd decoys pile up on one host; now and then a Restore or Remove."""

    def act(step: int, bits: np.ndarray) -> int:
        kind = rng.choices(("DecoyVsftpd", "DecoyApache", "Remove", "Restore"), (8, 2, 1, 1))[0]
        return action_index(kind, rng.choice(("Enterprise0", "Op_Server0", "User4", "Defender")))

    return act


def op_server_first(rng: random.Random) -> Act:
    """Restores Op_Server0 before any impact, which makes impacts harmless; then decoys at random."""

    def act(step: int, bits: np.ndarray) -> int:
        if step == 0:
            return action_index("Restore", "Op_Server0")
        return action_index(rng.choice(DECOY_KINDS), rng.choice(HOSTS)) if rng.random() < 0.2 else 0

    return act


def op_server_late(rng: random.Random) -> Act:
    """Lets red reach its goal, then restores Op_Server0 and User0 again and again."""

    def act(step: int, bits: np.ndarray) -> int:
        if step < 40:
            return 0
        return action_index("Restore", ("Op_Server0", "User0", "Enterprise2", "Op_Host1")[step % 4])

    return act


POLICIES = {
    policy.__name__: policy
    for policy in (
        sleep,
        uniform,
        decoys_then_restore,
        restore_spam,
        remove_heavy,
        react,
        decoy_where_scanned,
        stacked_vsftpd,
        op_server_first,
        op_server_late,
    )
}


def _rows(bits: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return list(zip(HOSTS, bits.reshape(len(HOSTS), 4), strict=True))


def _compromised(bits: np.ndarray) -> list[str]:
    return [host for host, row in _rows(bits) if row[2] or row[3]]
