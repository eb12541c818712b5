"""The laws of the engine's own draws, on more than two million of them, against laws worked out by the
oracle.

Seeds are fixed, so a bound that holds today holds tomorrow: nothing here fails by chance.
"""

from collections import Counter
from random import Random

import numpy as np
import pytest
from oracle import Oracle
from oracle_hosts import EXPLOITS, Event, Proc, RedSession

from aiotrain.cage2.engine import NO_TAPE, allocate, reset_batch, step_batch
from aiotrain.cage2.scenario import HOST_INDEX, HOSTS

PORT_BIT = {139: 1, 3389: 2, 80: 4, 443: 8, 22: 16, 3390: 32, 25: 64, 21: 128}
EVERYWHERE = (1 << 13) - 1
DRAWS = 40_000
# Decoys that red has seen on a host; whether each still stands when the exploit comes.
SEEN_DECOYS = {
    "Enterprise0": [(80, "webserver"), (25, "smtp"), (443, "webserver")],
    "Enterprise1": [(21, "femitter")],
    "Op_Server0": [(443, "webserver")],
    "User1": [(80, "webserver"), (139, "smb"), (3389, "rdp")],
    "User2": [(22, "ssh"), (21, "femitter")],
    "User3": [(22, "ssh")],
    "Defender": [(25, "smtp"), (80, "webserver")],
}
CASES = [(host, "no decoy") for host in HOSTS] + [
    (host, state) for host in SEEN_DECOYS for state in ("standing decoys", "remembered decoys")
]


class Scripted(Random):
    """Makes the two draws of an exploit's choice and the one of its detection as told."""

    other = 0
    uniforms: tuple[float, ...] = ()

    def getrandbits(self, k: int) -> int:  # so that integers are not drawn by way of random()
        return super().getrandbits(k)

    def choices(self, options: list[str]) -> list[str]:  # type: ignore[override]
        return [options[self.other]]

    def random(self) -> float:
        u, *self.uniforms = self.uniforms
        return u


def prepared_oracle(host: str, decoys: str) -> Oracle:
    """An oracle whose red remembers the ports of a host, and has a foothold that opens the gate."""
    oracle = Oracle("SleepAgent")
    oracle.random = Scripted(0)
    oracle.reset()
    seen = SEEN_DECOYS[host] if decoys != "no decoy" else []
    state = oracle.hosts[host]
    oracle.ports[host] = [p for proc in state.procs for p in proc.ports] + [port for port, _ in seen]
    if decoys == "standing decoys":
        state.procs += [Proc(-1, "ubuntu", kind, (port,), decoy=True) for port, kind in seen]
    foothold = "Enterprise0" if host != "Enterprise0" else "Enterprise1"
    oracle.hosts[foothold].sessions.append(RedSession(-1, "pi"))
    return oracle


def expected_law(host: str, decoys: str) -> dict[tuple[int, ...], float]:
    """Probability of each outcome: (scan shown, exploit shown, privileged, removable, durable, files)."""
    law: Counter[tuple[int, ...]] = Counter()
    ports = prepared_oracle(host, decoys).ports[host]
    options = [e for e, (_, port, _) in EXPLOITS.items() if port in ports]
    if 80 not in ports and 443 not in ports and "SQLInjection" in options:
        options.remove("SQLInjection")
    k = len(options)
    choices = [(0, 1.0, [])] if k == 1 else [(i, 0.25 / (k - 1), [0.9]) for i in range(k - 1)] + [(0, 0.75, [0.1])]
    for other, chance, uniforms in choices:
        for detected, share in ((0.0, 0.95), (0.99, 0.05)):
            oracle = prepared_oracle(host, decoys)
            oracle.random.other, oracle.random.uniforms = other, (*uniforms, detected)
            state = oracle.hosts[host]
            sessions, files = len(state.sessions), state.files
            oracle._exploit(host)
            events: list[Event] = list(state.events)
            activity = oracle._activity(state, False)
            new = state.sessions[sessions:]
            privileged = any(s.user in ("root", "SYSTEM") for s in new)
            removable = bool(new) and not privileged and any(event.pid is not None for event in events)
            outcome = (
                activity != "None",
                activity == "Exploit",
                privileged,
                removable,
                bool(new) and not privileged and not removable,
                state.files > files,
            )
            law[tuple(int(x) for x in outcome)] += chance * share
    return {outcome: p for outcome, p in law.items() if p > 0}


def assert_law(counts: Counter, law: dict, what: str) -> None:
    """Chi-square by its normal approximation (Wilson and Hilferty), at five standard deviations."""
    total = sum(counts.values())
    assert set(counts) <= set(law), f"{what}: impossible outcomes {set(counts) - set(law)}"
    freedom = len(law) - 1
    if freedom == 0:
        return
    chi_square = sum((counts[k] - total * p) ** 2 / (total * p) for k, p in law.items())
    z = ((chi_square / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / (2 / (9 * freedom)) ** 0.5
    assert z < 5, f"{what}: chi-square {chi_square:.1f} with {freedom} degrees of freedom; counts {dict(counts)}"


def meander_about_to(num_envs: int, seed: int, **fields: int) -> np.ndarray:
    """A Meander that knows, has swept and has scanned what the fields say, and nothing else."""
    state = allocate(num_envs, red_agent="RedMeanderAgent")
    reset_batch(state, np.arange(num_envs, dtype=np.uint64) + np.uint64(seed * num_envs))
    state["swept"] = 7
    state["scanned"] = EVERYWHERE
    state["known_names"] = 0
    for name, value in fields.items():
        state[name] = value
    return state


def idle_step(state: np.ndarray) -> None:
    step_batch(state, np.zeros(len(state), np.int64), np.zeros(len(state), np.int32), NO_TAPE)


@pytest.mark.parametrize(("host", "decoys"), CASES)
def test_outcome_of_an_exploit(host: str, decoys: str) -> None:
    index = HOST_INDEX[host]
    oracle = prepared_oracle(host, decoys)
    foothold = "Enterprise0" if host != "Enterprise0" else "Enterprise1"
    state = meander_about_to(
        DRAWS,
        CASES.index((host, decoys)),
        known_addresses=1 << index,
        held=1 << HOST_INDEX[foothold] | 1 << HOST_INDEX["User0"],
        privileged=0,
    )
    state["remembered"][:, index] = sum(PORT_BIT[p] for p in set(oracle.ports[host]) if p in PORT_BIT)
    if decoys == "standing decoys":
        state["decoys"][:, index] = sum(PORT_BIT[port] for port, _ in SEEN_DECOYS[host])
    idle_step(state)
    row = state["observation"][:, 4 * index : 4 * index + 2]
    outcomes = np.column_stack(
        [
            row,
            state["privileged"] >> index & 1,
            state["removable"][:, index],
            state["durable"][:, index],
            state["files"] >> index & 1,
        ]
    )
    counts = Counter(map(tuple, outcomes.tolist()))
    assert_law(counts, expected_law(host, decoys), f"exploit of {host}, {decoys}")
    assert sum(counts.values()) == DRAWS


@pytest.mark.parametrize("size", range(1, 14))
@pytest.mark.parametrize("choice", ["scan", "escalate", "exploit"])
def test_meander_chooses_uniformly_among_its_candidates(choice: str, size: int) -> None:
    num_envs = 30_000
    hosts = sorted(np.random.default_rng(size).permutation(13)[:size].tolist())
    candidates = sum(1 << host for host in hosts)
    if choice == "scan":
        state = meander_about_to(num_envs, size, known_addresses=EVERYWHERE, scanned=EVERYWHERE & ~candidates)
    elif choice == "escalate":
        state = meander_about_to(num_envs, size, known_names=candidates, held=EVERYWHERE)
        state["durable"] = 1
    else:
        state = meander_about_to(num_envs, size, known_addresses=candidates, held=EVERYWHERE)
        # One remembered port each, behind which there is something to exploit on all hosts but the defender.
        state["remembered"] = PORT_BIT[22]
        state["remembered"][:, HOST_INDEX["User2"]] = PORT_BIT[3389]
        state["remembered"][:, HOST_INDEX["User3"]] = PORT_BIT[80]
    before = state.copy()
    idle_step(state)
    if choice == "scan":
        chosen = state["scanned"] & ~before["scanned"]
    elif choice == "escalate":
        chosen = state["escalated"]
    else:
        chosen = np.where(state["exploited"] == 0, 1 << HOST_INDEX["Defender"], state["exploited"])
    counts = Counter(chosen.tolist())
    assert_law(counts, {1 << host: 1 / size for host in hosts}, f"{choice} among {size}")


def test_b_line_draws_its_target_uniformly() -> None:
    state = allocate(100_000, red_agent="B_lineAgent")
    reset_batch(state, np.arange(100_000, dtype=np.uint64))
    idle_step(state)
    idle_step(state)
    assert_law(Counter(state["target"].tolist()), dict.fromkeys(range(9, 13), 0.25), "B_line's target")


@pytest.mark.parametrize(("removable", "durable"), [(1, 1), (1, 3), (5, 2), (7, 6), (3, 0), (0, 4)])
def test_escalation_takes_any_session_alike(removable: int, durable: int) -> None:
    host = HOST_INDEX["Enterprise1"]
    state = meander_about_to(50_000, 7, known_names=1 << host, held=1 << host | 1 << HOST_INDEX["User0"])
    state["removable"][:, host] = removable
    state["durable"][:, host] = durable
    idle_step(state)
    assert (state["privileged"] >> host & 1).all()
    share = removable / (removable + durable)
    law = {name: p for name, p in (("removable", share), ("durable", 1 - share)) if p}
    counts = Counter("removable" if left < removable else "durable" for left in state["removable"][:, host])
    assert_law(counts, law, f"escalation with {removable} removable and {durable} durable sessions")


def test_draws_of_one_episode_and_of_neighbouring_seeds_are_independent() -> None:
    """Given B_line's target, the choice of its first exploit and its detection; and targets seed by seed."""
    num_envs = 200_000
    state = allocate(num_envs, red_agent="B_lineAgent")
    reset_batch(state, np.arange(num_envs, dtype=np.uint64))
    for _ in range(3):
        idle_step(state)
    target = state["target"]
    best = state["privileged"] >> target & 1
    shown = state["observation"][np.arange(num_envs), 4 * target.astype(np.int64) + 1]
    # User2's two services tell the choice (SYSTEM or not) apart and are both detected at 95%.
    on_user2 = target == HOST_INDEX["User2"]
    law = {(b, s): (0.75 if b else 0.25) * (0.95 if s else 0.05) for b in (0, 1) for s in (0, 1)}
    counts = Counter(zip(best[on_user2].tolist(), shown[on_user2].tolist(), strict=True))
    assert_law(counts, law, "exploit and detection on User2")
    pairs = Counter(zip(target[:-1:2].tolist(), target[1::2].tolist(), strict=True))
    uniform = {(a, b): 1 / 16 for a in range(9, 13) for b in range(9, 13)}
    assert_law(pairs, uniform, "targets of neighbouring seeds")
