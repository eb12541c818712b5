"""Proof by recorded draws: play CybORG, hand the compiled engine the draws, and compare every step."""

from collections import Counter
from random import Random
from typing import Any, Protocol

import numpy as np
from blue_policies import Policy
from recorded_draws import Recorder

from aiotrain.cage2.engine import allocate, reset_batch, step_batch
from aiotrain.cage2.scenario import HOST_INDEX, action_index, action_name

TAPE_LENGTH = 4_096  # words; an episode of 100 steps draws at most 400
OP_SERVER0 = HOST_INDEX["Op_Server0"]
VSFTPD = action_index("DecoyVsftpd", "Defender")
LINUX = (0, 1, 4, 5, 6, 7, 11, 12)
HTTP = 4
OP_HOSTS = (4, 5, 6)
FIRST_DECOY = action_index("DecoyApache", "Defender")
RESTORE = action_index("Restore", "Defender")


class Reference(Protocol):
    """What the engine is compared with."""

    controller: Any

    def reset(self, seed: int) -> bytes: ...

    def step(self, action: int) -> tuple[bytes, float, int]: ...


class Replay:
    """One reference environment and one compiled one, played side by side; ``rare`` counts rare paths."""

    def __init__(self, reference: Reference, red_agent: str, rules: str = "main") -> None:
        self.reference = reference
        self.red_agent = red_agent
        self.recorder = Recorder(reference.controller)
        self.state = allocate(1, red_agent=red_agent, rules=rules, max_steps=0)
        self.tape = np.zeros((1, TAPE_LENGTH), np.uint64)
        self.rare: Counter[str] = Counter()
        self.steps = 0

    def play(self, policy: Policy, seed: int, num_steps: int) -> None:
        """Play one episode.

        Raises:
            AssertionError: the two differ; the message tells when and in what.

        """
        rng = Random(seed)
        tenths = np.zeros(1, np.int32)
        reset_batch(self.state, np.zeros(1, np.uint64))
        bits = self.reference.reset(seed)
        with self.recorder.recording() as words:
            for step in range(num_steps):
                action = policy(rng, bits, step)
                drawn = len(words)
                bits, reward, held = self.reference.step(action)
                self.tape[0, drawn : len(words)] = words[drawn:]
                before = self.state[0].copy()
                step_batch(self.state, np.array([action]), tenths, self.tape)
                env = self.state[0]
                where = f"{self.red_agent}, {policy.__name__}, seed {seed}, step {step}, {action_name(action)}"
                assert env["words"] == len(words), (
                    f"{where}: CybORG has made {len(words)} draws that matter, the engine {env['words']}"
                )
                own = env["observation"].tobytes()
                differing = [i for i in range(52) if own[i] != bits[i]] if own != bits else []
                assert not differing, f"{where}: observation bits {differing} differ from CybORG's"
                assert tenths[0] / 10.0 == reward, f"{where}: reward {reward}, engine {tenths[0] / 10.0}"
                assert env["held"] == held, f"{where}: red holds {held:013b}, engine {env['held']:013b}"
                self.compare(where)
                self._count(action, before, env)
        self.steps += num_steps

    def compare(self, where: str) -> None:
        """What else a test compares after a step."""

    def _count(self, action: int, before: Any, after: Any) -> None:
        rare = self.rare
        if self.red_agent == "B_lineAgent" and before["stage"] == 11 and after["stage"] == 1:
            rare["B_line finds the gate closed"] += 1
        newly_scanned = int(after["scanned"]) & ~int(before["scanned"])
        if newly_scanned >> OP_SERVER0 & 1 and not after["remembered"][OP_SERVER0]:
            rare["Meander blind to Op_Server0"] += 1
        bits = after["observation"]
        if any(bits[4 * host + 1] for host in OP_HOSTS):
            rare["Op_Host attacked"] += 1
        host = (action - 2) % 13
        if VSFTPD <= action < VSFTPD + 13 and host in LINUX and before["decoys"][host] & HTTP:
            rare["Vsftpd stacked"] += 1
        if FIRST_DECOY <= action < RESTORE and after["decoys"][host] != before["decoys"][host]:
            if bits[4 * host]:
                rare["red seen where a decoy was placed in this step"] += 1
            elif after["remembered"][host] != before["remembered"][host]:
                rare["scan swallowed by a decoy of this step"] += 1
        if action == RESTORE + OP_SERVER0:
            if before["ot_down"]:
                rare["Restore of Op_Server0 after Impact"] += 1
            elif not before["ot_immune"]:
                rare["Restore of Op_Server0 before Impact"] += 1
        if action in (RESTORE, RESTORE + HOST_INDEX["User0"]):
            rare["Restore of " + ("Defender" if action == RESTORE else "User0")] += 1
