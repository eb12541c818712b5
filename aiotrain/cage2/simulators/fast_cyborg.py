"""csle-cyborg without the work that blue's observation and reward do not need.

csle-cyborg itself executes every action. Replaced is the work around the actions: the full description of the true
state, which csle-cyborg makes at every step to learn which hosts are lost; the observation behind blue's table; the
list of actions; the printed table; and the construction of the network at a reset. The random draws, their order and
everything that red sees stay the same.

`slow_reasons` tells why a scenario cannot be played in this way.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any, Final

from aiotrain.cage2.scenario import COST_TENTHS, GLOBAL_ACTIONS, GREEN_ACTIONS, HOST_ACTIONS, RED_ACTIONS, SLEEP_AGENT
from aiotrain.cage2.simulators.cyborg_import import (
    B_lineAgent,
    InvalidAction,
    RedMeanderAgent,
    Results,
    SimulationController,
    SleepAgent,
)
from aiotrain.cage2.simulators.cyborg_topology import InitialTopology

# Agents that learn nothing from a step and read names and addresses only. A reset need not describe the full true state
# for them.
_SIMPLE_AGENTS: Final = (B_lineAgent, RedMeanderAgent, SleepAgent)
_PRIVILEGED: Final = {"LINUX": "root", "WINDOWS": "SYSTEM"}
_REVERSE_SHELL_PORT: Final = 4444
_MALWARE_DENSITY: Final = 0.9
_EVENTS: Final = "NetworkConnections"

# The four bits of a host: activity (first two) and compromise (last two).
_SCAN, _EXPLOIT = (1, 0), (1, 1)
_UNKNOWN, _USER, _ADMIN = (1, 0), (0, 1), (1, 1)


def slow_reasons(scenario: Mapping[str, Any]) -> list[str]:
    """Return why `FastCyborg` cannot play a scenario dict, one reason for each broken assumption; empty if it can.

    Hosts, subnets, routes, processes, values, agents and starting positions may change. How rewards and blue's
    knowledge come about may not.
    """
    return list(_slow_reasons(scenario))


def _slow_reasons(scenario: Mapping[str, Any]) -> Iterator[str]:
    agents, hosts = scenario["Agents"], scenario["Hosts"]
    if list(agents)[:1] != ["Blue"] or "Red" not in agents or not set(agents) <= {"Blue", "Green", "Red"}:
        yield f"agents are {', '.join(agents)} instead of Blue first, then Green and Red"
        return
    kinds = {
        "Blue": ("HybridAvailabilityConfidentiality", {*GLOBAL_ACTIONS, *HOST_ACTIONS}),
        "Green": ("None", set(GREEN_ACTIONS)),
        "Red": ("HybridImpactPwn", set(RED_ACTIONS)),
    }
    for name, info in agents.items():
        reward, actions = kinds[name]
        if str(info.get("reward_calculator_type")) != reward:
            yield f"{name} is rewarded by {info.get('reward_calculator_type')} instead of {reward}"
        if unknown := [action for action in info.get("actions", []) if action not in actions]:
            yield f"{name} has the actions {', '.join(unknown)}"
    blue = agents["Blue"]
    if blue.get("adversary") != "Red" or blue.get("agent_type") != SLEEP_AGENT:
        yield f"Blue's adversary is not Red, or its own agent is not {SLEEP_AGENT}"
    known = blue.get("INT", {}).get("Hosts", {})
    if known.keys() != hosts.keys() or any(
        info.get("Interfaces") != "All" or "System info" not in info or info.keys() & {"Processes", "Files"}
        for info in known.values()
    ):
        yield "Blue does not know exactly the addresses and systems of all hosts at the start"
    servers = [s for s in blue["starting_sessions"] if s["type"] == "VelociraptorServer"]
    if len(servers) != 1 or servers[0].get("parent") or _EVENTS not in servers[0].get("artifacts", []):
        yield "Blue does not have exactly one Velociraptor server that collects network connections"
    elif sum(1 for s in blue["starting_sessions"] if not s.get("parent")) != 1:
        yield "Blue has more than one session without a parent"
    members = [host for subnet in scenario["Subnets"].values() for host in subnet["Hosts"]]
    if sorted(members) != sorted(hosts):
        yield "some host is in no subnet, or in several"


class FastCyborg:
    """Simulates a network with csle-cyborg, and computes blue's table and reward.

    ``scenario`` is a dict as csle-cyborg takes it, without `slow_reasons`; it is changed, so pass a copy. ``agents``
    maps names to agent classes, which replace those of the scenario.
    Call `reset` before everything else. csle-cyborg's modules make all draws but those of `reset`, whose generator must
    therefore belong to the same stream.
    """

    def __init__(self, scenario: dict[str, Any], agents: dict[str, type]) -> None:
        self.hosts = tuple(scenario["Hosts"])
        controller = SimulationController(scenario, agents=agents)
        self._controller = controller
        self.state = controller.state
        """csle-cyborg's ``State``."""
        self._topology = InitialTopology(controller.state)
        self._active = {
            name: interface
            for name, interface in controller.agent_interfaces.items()
            if name != "Blue" and type(interface.agent) is not SleepAgent
        }
        self._learning = [
            name for name, interface in self._active.items() if type(interface.agent) not in _SIMPLE_AGENTS
        ]

        self._row = {host: index for index, host in enumerate(self.hosts)}
        self._privileged_user = [_PRIVILEGED.get(host.os_type.name) for host in self.state.hosts.values()]
        infos = scenario["Hosts"].values()
        self._root_cost = [COST_TENTHS[info.get("ConfidentialityValue", "Low")] for info in infos]
        self._outage_cost = [COST_TENTHS[info.get("AvailabilityValue", "Low")] for info in infos]

        self._actions = list(self._enumerate_actions())
        self.action_names = [str(action) for action in self._actions]
        self._displays = [
            (type(action).__name__, 4 * self._row[action.hostname] + 2 if hasattr(action, "hostname") else 0)
            for action in self._actions
        ]
        self._action_costs = [round(10 * action.cost) for action in self._actions]
        self._observations: dict[str, Any] = {}
        self.happened: dict[str, tuple[Any, Any]] = {}
        """For each agent that does not sleep: csle-cyborg's action of the last step, and the success that it told."""

    @property
    def red_agent(self) -> str:
        """Name of the red agent's class."""
        return type(self._controller.agent_interfaces["Red"].agent).__name__

    @property
    def suspicious_pids(self) -> Mapping[str, Any]:
        """For each host, the pids that blue saw in suspicious events. A Remove ends their sessions."""
        pids: Mapping[str, Any] = self._server.sus_pids
        return pids

    def reset(self, generator: Random) -> tuple[bytearray, int]:
        """Start an episode. Return ``bits`` and ``red_hosts`` of `step`."""
        controller, state = self._controller, self.state
        self._topology.restore(state, generator)
        controller.hostname_ip_map = {host: address for address, host in state.ip_addresses.items()}
        controller.subnet_cidr_map = state.subnet_name_to_cidr
        controller.reward, controller.steps, controller.done = {}, 0, False
        self._kept_addresses = [str(address) for address in state.ip_addresses]
        self._kept_networks = {
            name: [str(state.subnet_name_to_cidr[subnet]) for subnet in interface.action_space.allowed_subnets]
            for name, interface in self._active.items()
        }
        if self._learning:
            true_state = controller._filter_obs(controller.get_true_state(controller.INFO_DICT["True"])).data
        else:
            true_state = self._names_and_addresses()
        controller.init_state = true_state
        for name, interface in self._active.items():
            interface.reset()
            first = self._filtered(controller.get_true_state(controller.INFO_DICT[name]), name)
            self._observations[name] = first
            interface.set_init_obs(first.data, true_state)

        self._server = next(iter(state.sessions["Blue"].values()))
        self._monitored = [
            (state.hosts[child.host], 4 * self._row[child.host]) for child in self._server.children.values()
        ]
        self._ot_hosts: list[int] | None = None
        self._table = bytearray(4 * len(self.hosts))
        return bytearray(self._table), self._red_hosts_and_cost()[0]

    def step(self, index: int) -> tuple[bytearray, float, int]:
        """Play blue's action, then those of the other agents.

        Return ``(bits, reward, red_hosts)``: 4 bytes of 0 or 1 for each host in the order of ``hosts``, blue's reward,
        and an integer whose bit h is set if red has a session on host h.
        """
        state, controller = self.state, self._controller
        done_by_blue = self._actions[index].sim_execute(state).data
        happened = {"Blue": (self._actions[index], done_by_blue["success"])}

        following = {}
        for name, interface in self._active.items():
            action = interface.get_action(self._observations[name])
            if not controller.test_valid_action(action, interface):
                action = InvalidAction(action)
            following[name] = self._filtered(action.sim_execute(state), name)
            happened[name] = (action, following[name].data["success"])
        self.happened = happened

        red_hosts, root_cost = self._red_hosts_and_cost()
        cost = root_cost + self._outages_cost()
        for name, interface in self._active.items():
            if name in self._learning:
                interface.train(
                    Results(
                        observation=self._observations[name].data,
                        reward=cost / 10 if name == "Red" else 0.0,
                        next_observation=following[name].data,
                        done=False,
                    )
                )
            self._observations[name] = following[name]
            interface.update(following[name])
        return self._observe(index, done_by_blue), (self._action_costs[index] - cost) / 10, red_hosts

    def _enumerate_actions(self) -> Iterator[Any]:
        """Yield blue's actions: kinds in the scenario's order, and for each kind hosts in the order of `hosts`."""
        space = self._controller.agent_interfaces["Blue"].action_space
        given = {"session": next(iter(space.server_session)), "agent": "Blue"}
        for kind in space.actions:
            parameters = {name: given[name] for name in inspect.signature(kind).parameters if name in given}
            if "hostname" in inspect.signature(kind).parameters:
                yield from (kind(**parameters, hostname=host) for host in self.hosts)
            else:
                yield kind(**parameters)

    def _filtered(self, observation: Any, agent: str) -> Any:
        """Filter an observation as csle-cyborg's controller does. Addresses are text, which saves conversions."""
        observation.filter_addresses(
            ips=self._kept_addresses, cidrs=self._kept_networks[agent], include_localhost=False
        )
        return observation

    def _names_and_addresses(self) -> dict[str, Any]:
        """Return what decides the order of names and addresses in red's action space, in the true state's form."""
        return {
            name: {
                "System info": {"Hostname": name},
                "Interface": [
                    {"IP Address": interface.ip_address, "Subnet": interface.subnet}
                    for interface in host.interfaces[1:]
                ],
            }
            for name, host in self.state.hosts.items()
        }

    def _red_hosts_and_cost(self) -> tuple[int, int]:
        """Return the bit mask of hosts with a session of red, and the cost, in tenths, of the hosts it controls."""
        held = controlled = cost = 0
        for session in self.state.sessions["Red"].values():
            row = self._row[session.host]
            bit = 1 << row
            held |= bit
            if not controlled & bit and session.username == self._privileged_user[row]:
                controlled |= bit
                cost += self._root_cost[row]
        return held, cost

    def _outages_cost(self) -> int:
        """Return the cost, in tenths, of hosts that ran the OT service after the first step and no longer do."""
        hosts = self.state.hosts
        if self._ot_hosts is None:
            self._ot_hosts = [row for host, row in self._row.items() if _runs_ot_service(hosts[host])]
        return sum(self._outage_cost[row] for row in self._ot_hosts if not _runs_ot_service(hosts[self.hosts[row]]))

    def _observe(self, index: int, done_by_blue: dict[str, Any]) -> bytearray:
        """Return blue's bits after a step. Collect and clear the hosts' events, as Monitor does."""
        table = self._table
        kind, at = self._displays[index]
        if kind == "Restore":
            table[at : at + 2] = b"\0\0"
        elif kind == "Remove" and (table[at] or table[at + 1]):
            table[at : at + 2] = bytes(_UNKNOWN)

        decoyed = malware_at = -1
        if len(done_by_blue) > 1:
            for name, found in done_by_blue.items():
                if name == "success":
                    continue
                if "Processes" in found:
                    decoyed = 4 * self._row[name]
                if any(file["Density"] >= _MALWARE_DENSITY for file in found.get("Files", ())):
                    malware_at = 4 * self._row[name] + 2

        activities = []
        for host, row in self._monitored:
            events = host.events[_EVENTS]
            if not events:
                continue
            host.events[_EVENTS] = []
            for event in events:
                if "pid" in event:
                    self._server.add_sus_pids(hostname=host.hostname, pid=event["pid"])
            activity = _activity(events, decoyed == row)
            if activity is None:
                continue
            activities.append((row, activity))
            if activity is _EXPLOIT:
                table[row + 2 : row + 4] = bytes(_USER)
        if malware_at >= 0:
            table[malware_at : malware_at + 2] = bytes(_ADMIN)

        bits = bytearray(table)
        for row, activity in activities:
            bits[row], bits[row + 1] = activity
        return bits


def _runs_ot_service(host: Any) -> bool:
    return any(process.name == "OTService" for process in host.processes)


def _activity(events: list[dict[str, Any]], decoy: bool) -> tuple[int, int] | None:
    """Return the activity that csle-cyborg's table shows for the events of a host in one step; None for nothing.

    ``decoy`` tells whether blue placed a decoy on the host in this step. csle-cyborg counts it as one more connection,
    without a port, and as the first. If the events then show neither a scan nor an exploit, the table shows nothing.
    """
    connections = len(events) + decoy
    ports = {event["local_port"] for event in events}
    if connections >= 3 and len(ports) >= 3:
        return _SCAN
    if any(event.get("remote_port") == _REVERSE_SHELL_PORT for event in events):
        return _EXPLOIT
    if connections >= 3 and len(ports) == 1:
        return _EXPLOIT
    return None if decoy else _SCAN
