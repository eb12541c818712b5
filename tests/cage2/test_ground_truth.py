"""The truth that is told of an episode: both simulators tell the same of the same draws, and it is csle-cyborg's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from random import Random
from typing import Any

import numpy as np
import pytest
from blue_policies import POLICIES, Policy
from recorded_draws import LeanReference
from step_comparison import Replay

from aiotrain.cage2 import make
from aiotrain.cage2.engine import RED_AGENTS
from aiotrain.cage2.playback.ground_truth import GroundTruth, Scene
from aiotrain.cage2.scenario import HOST_INDEX, HOSTS, action_index
from aiotrain.cage2.simulators.compiled_env import Cage2CompiledEnv
from aiotrain.cage2.simulators.cyborg_import import SleepAgent

red_actions = import_module("csle_cyborg.shared.actions")

EPISODES = 3  # of each of the 12 blue policies
ALWAYS_SEEN = {
    *("blue Sleep None", "blue Restore True", "blue DecoyApache True", "blue DecoyApache False"),
    *("stands already", "cannot stand", "finds nothing", "red was not there"),
}
SEEN_OF_RED = {
    *("red DiscoverRemoteSystems True", "red DiscoverNetworkServices True", "red Impact True", "red Impact False"),
    *(f"red {name} {success}" for name in ("ExploitRemoteService", "PrivilegeEscalate") for success in (True, False)),
    *("by SSHBruteForce", "HTTPSRFI meets DecoyTomcat", "EternalBlue in vain", "red has no session there"),
    *("red was privileged already", "the way is closed", "OTService is down", "OTService runs on"),
    *("red loses it", "red stays", "finds malware"),
}


class Witnessed(Replay):
    """An episode on both simulators, by the same draws, with the truth of each."""

    reference: LeanReference

    def __init__(self, red_agent: str) -> None:
        super().__init__(LeanReference(red_agent), red_agent)
        env = Cage2CompiledEnv(red_agent)
        env.state = self.state  # which the harness steps
        self.env = env
        self.seen: Counter[str] = Counter()

    def play(self, policy: Policy, seed: int, num_steps: int) -> None:
        def watched(rng: Random, bits: Sequence[int], step: int) -> int:
            if not step:
                self.on_cyborg, self.on_engine = GroundTruth(self.reference.env), GroundTruth(self.env, self.tape)
            self.action = policy(rng, bits, step)
            return self.action

        watched.__name__ = policy.__name__
        super().play(watched, seed, num_steps)

    def compare(self, where: str) -> None:
        env = self.state[0]
        mine = self.on_engine.after(self.action, env["observation"])
        theirs = self.on_cyborg.after(self.action, env["observation"])
        assert mine == theirs, where
        self._is_true(theirs, where)
        for side, deed in (("blue", theirs.blue), ("red", theirs.red)):
            self.seen[f"{side} {deed.action} {deed.success}"] += 1
            self.seen[deed.outcome] += 1

    def _is_true(self, scene: Scene, where: str) -> None:
        """Compare with what else csle-cyborg tells."""
        controller = self.reference.controller
        access: dict[str, list[str]] = {}
        for session in controller.state.sessions["Red"].values():
            access.setdefault(session.host, []).append(session.username)
        for host in scene.hosts:
            users = access.get(host.name, [])
            told = "privileged" if {"root", "SYSTEM"} & {*users} else "user" if users else "none"
            assert host.access == told, f"{where}, {host.name}: sessions of {users}"
            decoys = [process for process in controller.state.hosts[host.name].processes if process.decoy_type]
            assert bool(decoys) == bool(host.decoys), f"{where}, {host.name}"


@pytest.mark.parametrize("red_agent", RED_AGENTS)
def test_both_simulators_tell_the_same_of_the_same_draws(red_agent: str) -> None:
    replay = Witnessed(red_agent)
    for number, policy in enumerate(POLICIES.values()):
        for episode in range(EPISODES):
            replay.play(policy, 1000 * number + episode, 60)
    missing = (ALWAYS_SEEN | ({"red Sleep None"} if red_agent == "SleepAgent" else SEEN_OF_RED)) - set(replay.seen)
    assert not missing, "the policies no longer reach some outcomes"


@pytest.mark.parametrize("simulator", ["compiled", "cyborg"])
@pytest.mark.parametrize("red_agent", RED_AGENTS)
def test_costs_make_up_the_reward(red_agent: str, simulator: str) -> None:
    env: Any = make(simulator, red_agent=red_agent)
    rng = np.random.default_rng(1)
    for seed in range(3):
        _, info = env.reset(seed=seed)
        truth = GroundTruth(env)
        for _ in range(100):
            action = int(rng.integers(145))
            table, reward, _, _, info = env.step(action)
            scene = truth.after(action, table)
            assert scene.red_agent == red_agent
            assert reward == pytest.approx(-sum(cost for _, cost in scene.costs))
            held = [host.name for host in scene.hosts if host.access != "none"]
            assert held == [name for host, name in enumerate(HOSTS) if info["red_hosts"] >> host & 1]
            for host, bits in zip(scene.hosts, table.reshape(13, 4).tolist(), strict=True):
                assert host.activity == {(0, 0): "none", (1, 0): "scan", (1, 1): "exploit"}[tuple(bits[:2])]
                assert host.shown == {(0, 0): "no", (1, 0): "unknown", (0, 1): "user", (1, 1): "privileged"}[*bits[2:],]


@pytest.mark.parametrize("simulator", ["compiled", "cyborg"])
def test_decoys_are_told_by_name_until_a_restore(simulator: str) -> None:
    """The engine itself cannot tell Apache from Vsftpd: both open port 80."""
    env: Any = make(simulator, red_agent="SleepAgent")
    env.reset(seed=0)
    truth = GroundTruth(env)
    for kind, success, stand in (
        ("DecoyVsftpd", True, ["DecoyVsftpd"]),
        ("DecoyApache", False, ["DecoyVsftpd"]),  # its port is taken
        ("DecoyTomcat", True, ["DecoyVsftpd", "DecoyTomcat"]),
        ("DecoyVsftpd", True, ["DecoyVsftpd", "DecoyTomcat"]),  # a second one of it
        ("DecoyFemitter", False, ["DecoyVsftpd", "DecoyTomcat"]),  # which is made for Windows
        ("Restore", True, []),
        ("DecoyApache", True, ["DecoyApache"]),
    ):
        action = action_index(kind, "Op_Server0")
        scene = truth.after(action, env.step(action)[0])
        assert (scene.blue.success, [*scene.hosts[HOST_INDEX["Op_Server0"]].decoys]) == (success, stand), kind


class Wandering(SleepAgent):
    """Attacks by an exploit of its own choice, and asks for what cannot be."""

    def __init__(self) -> None:
        self.turn = 0

    def get_action(self, observation: Any, action_space: Any) -> Any:
        self.turn += 1
        given: dict[str, Any] = {"session": 0, "agent": "Red"}
        address = observation["User0"]["Interface"][0]["IP Address"] if self.turn == 1 else self.address
        self.address = address
        return [
            red_actions.DiscoverNetworkServices(**given, ip_address=address),
            red_actions.FTPDirectoryTraversal(**given, ip_address=address, target_session=0),
            red_actions.PrivilegeEscalate(**given, hostname="Elsewhere"),
            red_actions.Impact(**given, hostname="User0"),
            red_actions.Sleep(),
        ][self.turn - 1]


def test_any_red_agent_is_told_of() -> None:
    env: Any = make("cyborg", red_agent=Wandering)
    env.reset(seed=0)
    truth = GroundTruth(env)
    scenes = [truth.after(0, env.step(0)[0]) for _ in range(5)]
    assert {scene.red_agent for scene in scenes} == {"Wandering"}
    assert [scene.red for scene in scenes] == [
        ("DiscoverNetworkServices", "User0", True, ""),
        ("FTPDirectoryTraversal", "User0", True, ""),
        ("InvalidAction", "", False, ""),  # for csle-cyborg asks whether red may know the host
        ("Impact", "User0", False, "red knows no OTService"),
        ("Sleep", "", None, ""),
    ]
