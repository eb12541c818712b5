"""Scenario2's rules a second time, in plain Python, with every draw that CybORG makes.

The oracle draws from its own ``random.Random`` through the same primitives and in the same order as
csle-cyborg, down to addresses, process ids and ephemeral ports that no observation shows. Started from
CybORG's generator state it must therefore show the same bits and rewards *and* be left with the same
generator state after every step: a wrong, a missing or an extra draw is found in the step in which it
happens. It shares no code and no table with the compiled engine, only the scenario's.
"""

from random import Random

from oracle_hosts import DECOYS, EXPLOITS, KIND_OF_NAME, PRIVILEGED_USERS, SUBNET_OF, Event, HostState, Proc, RedSession

from aiotrain.cage2.scenario import (
    CONFIDENTIALITY,
    COST_TENTHS,
    GLOBAL_ACTIONS,
    GREEN_HOSTS,
    HOST_ACTIONS,
    HOSTS,
    PROCESSES,
    REVEALS,
    SUBNETS,
)


class Oracle:
    """One environment; ``random`` is its generator, to be given CybORG's state before a reset."""

    def __init__(self, red_agent: str, rules: str = "main") -> None:
        self.random = Random()
        self.red_agent = red_agent
        self.leaderboard = rules == "leaderboard"
        self.hosts: dict[str, HostState] = {}

    # -------------------------------------------------------------------------------------------- an episode

    def reset(self) -> list[int]:
        self.random.sample(range(4096), 3)
        for hosts in (SUBNETS["Enterprise"], SUBNETS["Operational"], SUBNETS["User"]):
            self.random.choice([0])
            self.random.sample(range(14), len(hosts))
        self.hosts = {
            name: HostState(
                name,
                [Proc(p.pid, p.user, p.kind or KIND_OF_NAME.get(p.name), p.ports) for p in PROCESSES[name]],
            )
            for name in HOSTS
        }
        clients = (
            *SUBNETS["User"],
            "Enterprise0",
            "Enterprise1",
            "Enterprise2",
            "Defender",
            *SUBNETS["Operational"],
        )
        for name in ("Defender", *clients):
            self._start(self.hosts[name], "SYSTEM" if name in ("Enterprise1", "Enterprise2") else "ubuntu")
        for name in GREEN_HOSTS:
            self._start(self.hosts[name], "GreenAgent")
        first = self._start(self.hosts["User0"], "SYSTEM")
        self.hosts["User0"].sessions.append(RedSession(first.pid, "SYSTEM"))
        for host in self.hosts.values():
            host.backup = [Proc(**vars(proc)) for proc in host.procs]
        self.ot_process: Proc | None = next(p for p in self.hosts["Op_Server0"].procs if p.pid == 1043)
        self.ot_stoppable = True
        self.ot_known = False
        self.ports: dict[str, list[int]] = {}
        self.known_hosts = {"User0"}
        self.known_addresses = {"User0"}
        self.known_subnets = {"User"}
        # B_line
        self.stage = 0
        self.cached: dict[int, str] = {}
        self.last_success: bool | None = None
        self.last_scan_empty = False
        # Meander
        self.swept: list[str] = []
        self.scanned: list[str] = []
        self.exploited: list[str] = []
        self.escalated: list[str] = []
        self.mapped: set[str] = set()
        self.last_exploited: str | None = None
        self.last_owned: str | None = None
        return [0] * 52

    def step(self, action: int) -> tuple[list[int], float, int]:
        cost = 0
        decoyed = analysed = None
        removed = restored = None
        if action >= len(GLOBAL_ACTIONS):
            kind_index, host_index = divmod(action - len(GLOBAL_ACTIONS), len(HOSTS))
            kind, host = HOST_ACTIONS[kind_index], self.hosts[HOSTS[host_index]]
            self.random.choice(range(host.blue_sessions))
            if kind == "Analyse":
                analysed = host if host.files else None
            elif kind == "Remove":
                self._remove(host)
                removed = host
            elif kind == "Restore":
                self._restore(host)
                restored = host
                cost = 10
            elif self._place(host, kind):
                decoyed = host
        if self.red_agent == "B_lineAgent":
            self._b_line()
        elif self.red_agent == "RedMeanderAgent":
            self._meander()

        held = 0
        for i, host in enumerate(self.hosts.values()):
            held |= bool(host.sessions) << i
            if any(s.user == ("SYSTEM" if host.windows else "root") for s in host.sessions):
                cost += COST_TENTHS[CONFIDENTIALITY[host.name]]
        if self.ot_process is None:
            cost += 100

        if restored:
            restored.compromised = "No"
        elif removed and removed.compromised != "No":
            removed.compromised = "Unknown"
        bits: list[int] = []
        for host in self.hosts.values():
            activity = self._activity(host, host is decoyed)
            if activity == "Exploit":
                host.compromised = "User"
            if host is analysed:
                host.compromised = "Privileged"
            bits += {"None": (0, 0), "Scan": (1, 0), "Exploit": (1, 1)}[activity]
            bits += {"No": (0, 0), "Unknown": (1, 0), "User": (0, 1), "Privileged": (1, 1)}[host.compromised]
        return bits, -cost / 10 if cost else 0.0, held

    @staticmethod
    def _activity(host: HostState, decoyed: bool) -> str:
        """What blue's table makes of this step's connections, which are collected and forgotten."""
        events, host.events = host.events, []
        host.suspicious += [event.pid for event in events if event.pid is not None]
        count = len(events) + decoyed
        ports = {event.port for event in events}
        if not events:
            return "None"
        if count >= 3 and len(ports) >= 3:
            return "Scan"
        if any(event.remote_port == 4444 for event in events):
            return "Exploit"
        if count >= 3 and len(ports) == 1:
            return "Exploit"
        return "None" if decoyed else "Scan"

    # ------------------------------------------------------------------------------------------ small matters

    def _start(self, host: HostState, user: str, **rest: object) -> Proc:
        used = {proc.pid for proc in host.procs}
        pid = 0
        while pid == 0 or pid in used:
            pid = self.random.randrange(32768)
        proc = Proc(pid, user, **rest)  # type: ignore[arg-type]
        host.procs.append(proc)
        return proc

    def _ephemeral(self, host: HostState) -> int:
        port = self.random.randrange(49152, 60000)
        if port in host.ephemeral:
            port = self.random.randrange(49152, 60000)
        host.ephemeral.append(port)
        return port

    def _routable(self, host: HostState) -> bool:
        if SUBNET_OF[host.name] != "Operational":
            return True
        return any(other.sessions for name, other in self.hosts.items() if "Enterprise" in name)

    # --------------------------------------------------------------------------------------------------- blue

    def _remove(self, host: HostState) -> None:
        for pid in list(host.suspicious):
            proc = next((p for p in host.procs if p.pid == pid), None)
            if proc is None or proc.user in PRIVILEGED_USERS:
                continue
            host.procs.remove(proc)
            if pid in host.services.values():  # a decoy that drew an old pid comes back with a new one
                self._start(host, proc.user, kind=proc.kind, ports=proc.ports, decoy=proc.decoy, service=proc.service)
            host.sessions = [s for s in host.sessions if s.pid != pid]

    def _restore(self, host: HostState) -> None:
        host.procs = [Proc(**vars(proc)) for proc in host.backup]
        if self.leaderboard:
            for proc in host.procs:
                proc.version_known = False
        host.sessions = host.sessions[:1] if host.name == "User0" else []
        host.files = 0
        host.events = []
        host.ephemeral = []
        host.services = {}
        if host.name == "Op_Server0":
            self.ot_process = next(p for p in host.procs if p.pid == 1043)
            self.ot_stoppable = False

    def _place(self, host: HostState, kind: str) -> bool:
        tested, opened, process_kind, system = DECOYS[kind]
        if host.listening(tested) or (system and (system == "windows") != host.windows):
            return False
        self.random.choice([0])
        user = "SYSTEM" if host.name in ("Enterprise1", "Enterprise2") else "ubuntu"
        proc = self._start(host, user, kind=process_kind, ports=(opened,), decoy=True, service=kind)
        host.services.setdefault(kind, proc.pid)
        return True

    # ---------------------------------------------------------------------------------------- red's five
    # actions

    def _sweep(self, subnet: str) -> bool:
        if not self._routable(self.hosts[SUBNETS[subnet][0]]):
            return False
        self.known_subnets.add(subnet)
        self.known_addresses |= set(SUBNETS[subnet])
        return True

    def _scan(self, name: str) -> bool:
        host = self.hosts[name]
        self.last_scan_empty = not self._routable(host)
        if self.last_scan_empty:
            return True
        seen = []
        for proc in host.procs:
            for port in proc.ports:
                seen.append(port)
                host.events.append(Event(port, self._ephemeral(host)))
        self.ports[name] = seen + (self.ports.get(name, []) if self.leaderboard else [])
        return True

    def _exploit(self, name: str) -> bool:
        host = self.hosts[name]
        if name not in self.ports:
            return False
        ports = self.ports[name]
        options = [e for e, (_, port, _) in EXPLOITS.items() if port in ports]
        if 80 not in ports and 443 not in ports and "SQLInjection" in options:
            options.remove("SQLInjection")
        if not options:
            return False
        chosen = best = max(options, key=lambda e: EXPLOITS[e][0])
        if len(options) > 1:
            other = self.random.choices([e for e in options if e != best])[0]
            chosen = best if self.random.random() < 0.75 else other
        if not self._routable(host):
            return False
        _, port, kind = EXPLOITS[chosen]
        victim = next((p for p in host.procs if p.kind == kind and port in p.ports), None)
        if victim is None:
            return False
        if chosen == "SSHBruteForce":
            home = self.hosts["User0"]
            host.events += [Event(22, self._ephemeral(home)) for _ in range(10)]
            if name == "Defender" or victim.decoy:
                return False
            user = "vagrant" if host.windows else "pi"
            host.sessions.append(RedSession(self._start(host, user).pid, user))
            host.events.append(Event(22, self._ephemeral(host)))
        else:
            host.events.append(Event(port, self._ephemeral(host)))
            if chosen == "HarakaRCE" and not victim.version_known:
                return False
            if victim.decoy:
                host.events.append(Event(port, None))
                return False
            shell = self._ephemeral(host)
            host.files += 1
            proc = self._start(host, victim.user)
            host.sessions.append(RedSession(proc.pid, victim.user))
            if self.random.random() < 0.95:
                host.events.append(Event(shell, 4444, proc.pid))
        self.known_hosts.add(name)
        return True

    def _escalate(self, name: str) -> bool:
        host = self.hosts[name]
        if not host.sessions:
            return False
        if not any(s.user in PRIVILEGED_USERS for s in host.sessions):
            chosen = self.random.choice(host.sessions)
            chosen.user = "SYSTEM" if host.windows else "root"
            next(p for p in host.procs if p.pid == chosen.pid).user = chosen.user
            host.files += 1
        self.known_addresses |= {name, REVEALS.get(name, name)}
        self.known_subnets.add(SUBNET_OF[name])
        self.ot_known |= name == "Op_Server0"
        return True

    def _impact(self) -> bool:
        host = self.hosts["Op_Server0"]
        if not host.sessions:
            return False
        if not any(s.user in PRIVILEGED_USERS for s in host.sessions):
            self.random.choice(host.sessions)
        if not self.ot_known:
            return False
        if self.ot_stoppable and self.ot_process is not None:
            host.procs.remove(self.ot_process)
            self.ot_process = None
        return True

    # --------------------------------------------------------------------------------------------- red's
    # agents

    def _b_line(self) -> None:
        while True:
            if self.last_success:
                self.stage = min(self.stage + 1, 14)
            else:
                self.stage = [0, 1, 2, 2, 2, 2, 5, 5, 5, 5, 9, 9, 9, 12, 13][self.stage]
            if self.stage == 12 and 12 not in self.cached and self.last_scan_empty:
                self.stage = 0
                continue
            break
        if self.stage not in self.cached:
            if self.stage == 1:
                target = self.random.choice(SUBNETS["User"][1:])
            elif self.stage in (2, 3):
                target = self.cached[1]
            elif self.stage == 4:
                target = REVEALS[self.cached[1]]
            elif self.stage in (5, 6):
                target = self.cached[4]
            elif self.stage in (8, 9, 10):
                target = "Enterprise2"
            else:
                target = "Op_Server0"
            self.cached[self.stage] = target
        target = self.cached[self.stage]
        if self.stage == 0:
            self.last_success = self._sweep("User")
        elif self.stage == 7:
            self.last_success = self._sweep("Enterprise")
        elif self.stage in (1, 4, 8, 11):
            self.last_success = self._scan(target)
        elif self.stage in (2, 5, 9, 12):
            self.last_success = self._exploit(target)
        elif self.stage in (3, 6, 10, 13):
            self.last_success = self._escalate(target)
        else:
            self.last_success = self._impact()

    def _meander(self) -> None:
        self._digest()
        if "Op_Server0" in self.escalated:
            self.last_owned = "Op_Server0"
            self.last_success = self._impact()
            return
        for subnet in ("Enterprise", "Operational", "User"):
            if subnet in self.known_subnets and subnet not in self.swept:
                self.swept.append(subnet)
                self.last_success = self._sweep(subnet)
                return
        addresses = list(HOSTS)
        self.random.shuffle(addresses)
        for name in addresses:
            if name in self.known_addresses and name not in self.scanned:
                self.scanned.append(name)
                self.last_success = self._scan(name)
                return
        names = list(HOSTS)
        self.random.shuffle(names)
        for name in names:
            if name not in self.known_hosts or name in self.escalated:
                continue
            if name in self.mapped and name not in self.exploited:
                continue
            self.escalated.append(name)
            self.last_owned = name
            self.last_success = self._escalate(name)
            return
        for name in addresses:
            if name in self.known_addresses and name not in self.exploited:
                self.exploited.append(name)
                self.last_exploited = name
                self.last_success = self._exploit(name)
                return
        raise AssertionError("Meander has run out of options, which never happens in CybORG")

    def _digest(self) -> None:
        """Meander looks back at how its last action went."""
        if self.last_exploited is not None:
            if self.last_success:
                self.mapped.add(self.last_exploited)
            else:
                self.exploited.remove(self.last_exploited)
                lost = [h for h in self.escalated if "Op" in h] or [h for h in self.escalated if "Ent" in h]
                for name in lost:
                    self.escalated.remove(name)
                    self.exploited.remove(name)
            self.last_exploited = None
        if self.last_owned is not None:
            if not self.last_success:
                if self.last_owned in self.escalated:
                    self.escalated.remove(self.last_owned)
                if self.last_owned in self.mapped and self.last_owned in self.exploited:
                    self.exploited.remove(self.last_owned)
            self.last_owned = None
