"""A collector on the nodes of a Ray cluster, each with workers of its own that share memory.

An actor on each node does there what this program would do alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from aiotrain.collect.protocol import (
    CollectorSettings,
    CollectorStatus,
    Launch,
    Outcome,
    WorkerState,
    WorkerStatus,
)
from aiotrain.collect.ray_actors import Actor, RayCollector, look_also_in
from aiotrain.collect.ray_node import Node, NodeOutcome, NodeReport
from aiotrain.collect.ray_session import in_short, new_actor
from aiotrain.collect.task_collector import TaskWorker
from aiotrain.errors import WorkerError
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.policy import PolicyShape

__all__ = ["ClusterCollector"]

_POLL_S = 1.0  # between two looks at the cluster, and at its nodes


class _NodeActor(Node):
    """A node that also finds modules in the folders of ``path``, where it has them."""

    def __init__(self, path: Sequence[str], factory: EnvFactory, settings: CollectorSettings) -> None:
        look_also_in(path)
        super().__init__(factory, settings)


class _NodeName(NamedTuple):
    """A node as Ray and as people call it."""

    id: str
    address: str


class ClusterCollector(RayCollector):
    """Plays launches on the nodes of a cluster that offer CPUs, each with ``workers`` processes that share memory.

    Nodes may come and go. What a node had been given when it went is lost.
    """

    in_order = False
    starts = math.inf
    pause_s = 1.0
    end_s = 8.0  # a little more than the workers of a node may need

    def __init__(
        self, factory: EnvFactory, settings: CollectorSettings, warn: Callable[[str], None], *, address: str
    ) -> None:
        super().__init__(factory, settings, warn, address=address)
        self._workers.clear()
        self._nodes: list[_NodeName] = []  # by worker
        self._alive: set[str] = set()
        self._statuses: dict[int, CollectorStatus] = {}  # by worker

    async def open(self, policy: PolicyShape, slot_steps: int) -> None:
        await super().open(policy, slot_steps)
        self._opening = policy, slot_steps
        self._spawn(self._watch())

    async def _watch(self) -> None:
        """Find nodes that join. Raises WorkerError if there is none for too long."""
        loop = asyncio.get_running_loop()
        seen_s = loop.time()
        while True:
            nodes = {node["NodeID"]: node for node in await self._in_thread(ray.nodes) if _can_play(node)}
            self._alive = set(nodes)
            for node in self._alive.difference(each.id for each in self._nodes):
                address = "{NodeManagerAddress}:{NodeManagerPort}".format_map(nodes[node])
                self._nodes.append(_NodeName(node, address))
                self._workers.append(TaskWorker(ready=False))
                self._spawn(self._attend(len(self._workers) - 1))
            if self._actors:
                seen_s = loop.time()
            elif loop.time() - seen_s > self._settings.start_timeout_s:
                raise WorkerError(
                    f"no node of the Ray cluster ({self._address}) has been ready for "
                    f"{self._settings.start_timeout_s:g} s; {len(nodes)} of them are alive and offer CPUs. "
                    "The warnings tell what became of those that there were"
                )
            await asyncio.sleep(_POLL_S)

    def _name(self, worker: int) -> str:
        return f"node {self._nodes[worker].address}"

    def _is_expected(self, worker: int) -> bool:
        return self._nodes[worker].id in self._alive

    def _create(self, worker: int) -> Any:
        # Its children end by themselves. If Ray killed them all, none would be left to remove their shared memory.
        variables = {"RAY_kill_child_processes_on_worker_exit": "0"}
        return new_actor(_NodeActor, self._nodes[worker].id, self._factory, self._settings, variables=variables)

    async def _look_after(self, actor: Actor) -> None:
        """Ask the actor for reports until it is lost."""
        self._note(actor.worker, actor.opened)
        while not actor.lost.is_set():
            try:
                async with asyncio.timeout(self._settings.start_timeout_s):
                    self._note(actor.worker, await actor.handle.report.remote())
            except (RayError, TimeoutError) as error:
                self._give_up(actor, "does not answer" if isinstance(error, TimeoutError) else in_short(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(actor.lost.wait(), _POLL_S)

    def _note(self, worker: int, report: NodeReport) -> None:
        self._statuses[worker] = report.status
        for warning in report.warnings:
            self._warn(f"{self._name(worker)}: {warning}")

    def room(self, wanted: int) -> int:
        """See Collector. Each node gets its share of what is wanted, in two launches."""
        places = self._places
        return math.ceil(wanted / places) if places and not self._closing else 0

    async def _play(self, worker: int, launch: Launch) -> Outcome:
        answer: NodeOutcome | Outcome = await super()._play(worker, launch)
        if isinstance(answer, Outcome):
            return answer
        self._note(worker, answer.report)
        lost = tuple(each._replace(reason=f"{self._name(worker)}: {each.reason}") for each in answer.lost)
        return Outcome(launch, answer.trajectories, (), lost)

    def describe(self) -> CollectorStatus:
        """See Collector. The workers of all nodes, as they were a second ago or later."""
        each = self._settings.workers
        workers: list[WorkerStatus] = []
        for index, worker in enumerate(self._workers):
            if worker.ready and not self._closed:
                workers += self._statuses[index].workers
            elif self._closed and index in self._actors:
                workers += [dataclasses.replace(one, state=WorkerState.ENDED) for one in self._statuses[index].workers]
            elif self._is_expected(index):
                workers += [WorkerStatus(self._state(worker), worker.restarts, 0)] * each
        statuses = [self._statuses[index] for index in self._actors]
        return CollectorStatus(
            workers=tuple(workers) or (WorkerStatus(WorkerState.STARTING, 0, 0),) * each,
            slots=sum(status.slots for status in statuses),
            slots_in_use=sum(status.slots_in_use for status in statuses),
            ring_bytes=sum(status.ring_bytes for status in statuses),
            busy_s=sum(status.busy_s for status in self._statuses.values()),
        )


def _can_play(node: dict[str, Any]) -> bool:
    """Return whether something may be started there: heads are often told not to offer CPUs."""
    return bool(node["Alive"] and node["Resources"].get("CPU"))
