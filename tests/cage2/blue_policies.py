"""Blue policies that lead through the corners of the rules; half of them react to what they observe.

A policy takes (rng, bits, step): its own random generator, the 52 observation bits, and the steps played so
far; it returns an action in 0..144.
"""

from collections.abc import Callable, Sequence
from random import Random

from aiotrain.cage2.scenario import HOST_ACTIONS, action_index

Policy = Callable[[Random, Sequence[int], int], int]

DECOYS = [kind for kind in HOST_ACTIONS if kind.startswith("Decoy")]
DECOY_ACTIONS = range(action_index(DECOYS[0], "Defender"), action_index("Restore", "Defender"))
ENTERPRISE = ("Enterprise0", "Enterprise1", "Enterprise2")


def _on(kind: str, host: int) -> int:
    return action_index(kind, "Defender") + host


def _active(bits: Sequence[int]) -> list[int]:
    return [h for h in range(13) if bits[4 * h]]


def _exploited(bits: Sequence[int]) -> list[int]:
    return [h for h in range(13) if bits[4 * h + 1]]


def _compromised(bits: Sequence[int]) -> list[int]:
    return [h for h in range(13) if bits[4 * h + 2] or bits[4 * h + 3]]


def idle(rng: Random, bits: Sequence[int], step: int) -> int:
    return step % 2


def uniform(rng: Random, bits: Sequence[int], step: int) -> int:
    return rng.randrange(145)


def placing_decoys(rng: Random, bits: Sequence[int], step: int) -> int:
    return rng.choice(DECOY_ACTIONS)


def stacking_vsftpd(rng: Random, bits: Sequence[int], step: int) -> int:
    kind = rng.choice(
        ["DecoyVsftpd", "DecoyVsftpd", "DecoyApache", "DecoyTomcat", "DecoyHarakaSMPT", "Restore"]
    )
    return _on(kind, rng.randrange(13))


def restoring_at_random(rng: Random, bits: Sequence[int], step: int) -> int:
    if rng.random() < 0.4:
        return rng.randrange(145)
    return action_index(
        "Restore", rng.choice(["User0", "Defender", "Op_Server0", "User1", "User3", "Enterprise1"])
    )


def restoring_late(rng: Random, bits: Sequence[int], step: int) -> int:
    """Leave red alone for a while, then restore Op_Server0 and what is seen."""
    if step < 18 or rng.random() < 0.5:
        return rng.choice([0, 1, _on("Analyse", rng.randrange(13)), rng.choice(DECOY_ACTIONS)])
    return action_index("Restore", rng.choice(["Op_Server0", "Op_Host0", "Enterprise2", "Enterprise0"]))


def removing(rng: Random, bits: Sequence[int], step: int) -> int:
    seen = _compromised(bits)
    return _on("Remove", rng.choice(seen)) if seen and rng.random() < 0.8 else rng.choice(DECOY_ACTIONS)


def removing_at_once(rng: Random, bits: Sequence[int], step: int) -> int:
    """Remove right after an exploit is seen, before red escalates."""
    seen = _exploited(bits)
    return _on("Remove", seen[0]) if seen else rng.choice([0, _on("Analyse", rng.randrange(13))])


def restoring(rng: Random, bits: Sequence[int], step: int) -> int:
    seen = _compromised(bits)
    return _on("Restore", rng.choice(seen)) if seen and rng.random() < 0.8 else rng.randrange(145)


def analysing(rng: Random, bits: Sequence[int], step: int) -> int:
    """Analyse what was active; restore what then shows as privileged."""
    privileged = [h for h in range(13) if bits[4 * h + 2] and bits[4 * h + 3]]
    if privileged and rng.random() < 0.5:
        return _on("Restore", rng.choice(privileged))
    seen = _active(bits) or _compromised(bits)
    return _on("Analyse", rng.choice(seen)) if seen else rng.choice(DECOY_ACTIONS)


def decoying_the_scanned(rng: Random, bits: Sequence[int], step: int) -> int:
    """Place decoys where red has just been, so that some land in the step of its next visit."""
    seen = _active(bits)
    if seen and rng.random() < 0.8:
        return _on(rng.choice(DECOYS), rng.choice(seen))
    if rng.random() < 0.3:
        return rng.randrange(145)
    return action_index(rng.choice(DECOYS), rng.choice(ENTERPRISE))


def closing_the_gate(rng: Random, bits: Sequence[int], step: int) -> int:
    """Restore enterprise hosts as soon as they look compromised, and at times before that."""
    seen = [h for h in _compromised(bits) if h in (1, 2, 3)]
    if seen and rng.random() < 0.6:
        return _on("Restore", rng.choice(seen))
    return action_index("Restore", rng.choice(ENTERPRISE)) if rng.random() < 0.4 else rng.randrange(145)


POLICIES: dict[str, Policy] = {
    policy.__name__: policy
    for policy in (
        idle,
        uniform,
        placing_decoys,
        stacking_vsftpd,
        restoring_at_random,
        restoring_late,
        removing,
        removing_at_once,
        restoring,
        analysing,
        decoying_the_scanned,
        closing_the_gate,
    )
}
