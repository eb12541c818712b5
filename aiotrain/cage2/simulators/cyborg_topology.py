"""The hosts, subnets and sessions with which an episode starts, made quickly.

At every reset, csle-cyborg builds all hosts from the scenario, with a backup of each, and lists the 4,096 networks of
which it draws three. Only addresses and the pids of the agents' first sessions differ between resets. Here, the hosts
are therefore copies of pickled ones, and the draws are made in csle-cyborg's order.
"""

from __future__ import annotations

import io
import pickle
from enum import Enum
from ipaddress import IPv4Address, IPv4Network
from math import log2
from random import Random
from typing import Any

from aiotrain.cage2.simulators.cyborg_import import Subnet

_ALL_ADDRESSES = IPv4Network("10.0.0.0/16")
_PIDS = 32768


class InitialTopology:
    """Copies csle-cyborg's ``State`` right after its construction, and restores the copy at every reset.

    Every host must lie in exactly one subnet.
    """

    def __init__(self, state: Any) -> None:
        scenario = state.scenario
        subnets = {name: tuple(scenario.get_subnet_hosts(name)) for name in scenario.subnets}
        self._subnets = [
            (name, hosts, _prefix(scenario.get_subnet_size(name)), scenario.get_subnet_nacls(name))
            for name, hosts in subnets.items()
        ]
        self._prefix = min(prefix for _, _, prefix, _ in self._subnets)
        self._networks = range(1 << (self._prefix - _ALL_ADDRESSES.prefixlen))
        self._sessions_count = dict(state.sessions_count)

        # Pids are drawn in this order: agent by agent, session by session, as their dicts were filled.
        first = [session for sessions in state.sessions.values() for session in sessions.values()]
        self._first_hosts = [session.host for session in first]
        taken = {(session.host, session.pid) for session in first}
        self._pids = {
            name: frozenset(p.pid for p in host.processes if (name, p.pid) not in taken)
            for name, host in state.hosts.items()
        }
        pid_owners = [
            (session, state.hosts[session.host].get_process(session.pid), _backup(state, session)) for session in first
        ]
        interfaces = {name: host.interfaces[1] for name, host in state.hosts.items()}

        # All copies share enum members, accounts and the scenario's own dicts, which never change.
        self._shared: list[Any] = []
        shared_ids: dict[int, int] = {}
        by_identity = {
            id(shared) for host in state.hosts.values() for shared in (host.info, host.users, host.default_process_info)
        }

        def shared_index(pickled: Any) -> int | None:
            if not isinstance(pickled, Enum | IPv4Address) and id(pickled) not in by_identity:
                return None
            if id(pickled) not in shared_ids:
                shared_ids[id(pickled)] = len(self._shared)
                self._shared.append(pickled)
            return shared_ids[id(pickled)]

        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL)
        pickler.persistent_id = shared_index  # type: ignore[method-assign]
        pickler.dump((state.hosts, state.sessions, pid_owners, interfaces))
        self._pickled = buffer.getvalue()

    def restore(self, state: Any, generator: Random) -> None:
        """Bring ``state`` to the start of a new episode, with the same draws as ``State.reset``, in the same order."""
        unpickler = pickle.Unpickler(io.BytesIO(self._pickled))
        unpickler.persistent_load = self._shared.__getitem__  # type: ignore[method-assign]
        hosts, sessions, pid_owners, interfaces = unpickler.load()

        state.subnet_name_to_cidr = {}
        state.ip_addresses = {}
        state.subnets = {}
        base, size = int(_ALL_ADDRESSES.network_address), 1 << (32 - self._prefix)
        drawn = generator.sample(self._networks, len(self._subnets))
        for number, (name, members, prefix, nacls) in zip(drawn, self._subnets, strict=True):
            block = generator.choice(range(1 << (prefix - self._prefix)))
            first_address = base + number * size + (block << (32 - prefix))
            cidr = IPv4Network((first_address, prefix))
            usable = range(first_address + 1, first_address + (1 << (32 - prefix)) - 1)
            addresses = [IPv4Address(address) for address in generator.sample(usable, len(members))]
            state.subnet_name_to_cidr[name] = cidr
            for host, address in zip(members, addresses, strict=True):
                state.ip_addresses[address] = host
                interfaces[host].ip_address = address
                interfaces[host].subnet = cidr
            state.subnets[cidr] = Subnet(cidr=cidr, ip_addresses=addresses, nacls=nacls, name=name)

        pids = {name: set(genuine) for name, genuine in self._pids.items()}
        for host, (session, process, backup) in zip(self._first_hosts, pid_owners, strict=True):
            pid = 0
            while pid == 0 or pid in pids[host]:
                pid = generator.randrange(_PIDS)
            pids[host].add(pid)
            session.pid = process.pid = backup.pid = pid

        state.hosts = hosts
        state.sessions = sessions
        state.sessions_count = dict(self._sessions_count)
        state.step = 0
        state.time = state.original_time


def _prefix(subnet_size: int) -> int:
    """Return the prefix length that csle-cyborg gives a subnet of this declared size, with room for 5 more hosts."""
    return 32 - max(int(log2(subnet_size + 5)), 4)


def _backup(state: Any, session: Any) -> Any:
    return next(p for p in state.hosts[session.host].original_processes if p.pid == session.pid)
