"""CAGE Challenge 2 as a Gymnasium environment, played from blue's side."""

from __future__ import annotations

import copy
import importlib
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from aiotrain.cage2.blue_view import BEGUN, Actions, Observation
from aiotrain.cage2.compliance import ComplianceMeter
from aiotrain.cage2.red_agents import MIXED, SHARES, drawn_red_agent, shares_of
from aiotrain.cage2.scenario import B_LINE_AGENT, EPISODE_STEPS, RED_AGENTS, scenario2
from aiotrain.cage2.simulators import cyborg_import
from aiotrain.cage2.simulators.blue_observer import BlueObserver
from aiotrain.cage2.simulators.cyborg_randomness import RandomStream, is_redirected
from aiotrain.cage2.simulators.fast_cyborg import FastCyborg, slow_reasons
from aiotrain.cage2.simulators.unmodified_cyborg import UnmodifiedCyborg
from aiotrain.cage2.workflows import ONE_HOT, ORDER_INDEX, Order, parse_order, requested_order
from aiotrain.errors import unknown_name


class Cage2Env(gymnasium.Env[NDArray[np.int8], np.int64]):
    """The defence of Scenario2 of CAGE Challenge 2 against a red agent, registered as ``aiotrain/Cage2-v0``.

    Observations
        ``MultiBinary(52)``, an int8 array of shape [52]. For each host, in the order of
        ``aiotrain.cage2.scenario.HOSTS``: activity in the last step (00 none, 10 scan, 11 exploit), then compromise
        (00 no, 10 unknown, 01 user, 11 privileged), as in csle-cyborg's ChallengeWrapper.
        With ``observation="memory"``, ``MultiBinary(307)``: the bits of ``aiotrain.cage2.blue_view.FIELDS``.
        With a ``workflow``, 25 further bits. If they follow K others, bit ``K + 5 * place + type`` is set if that type,
        by its number in ``aiotrain.cage2.scenario.HOST_TYPES``, has that place in the order.
    Actions
        ``Discrete(145)``: Sleep, Monitor, then 11 kinds times 13 hosts; `action_names` lists them.
        With ``actions="compact"``, ``Discrete(42)``: ``aiotrain.cage2.blue_view.COMPACT_ACTIONS``.
    Reward
        A float of at most 0, in steps of 0.1: -0.1 or -1 for each host that red controls, -10 while the operational
        service is down, -1 for the action Restore.
    End
        Never terminated; truncated at ``max_steps``.
    Info
        ``info["red_hosts"]``, after reset and step: an int whose bit h (``red_hosts >> h & 1``) is set if red has a
        session of any privilege on host h. The bit of User0, where red starts, is always set.
        With a ``workflow``, ``info["compliance"]``, a float, 0 to 1: the share of this episode's fixes that complied,
        see `aiotrain.cage2.compliance.ComplianceMeter`. There is no entry before the first fix that counts, because
        Gymnasium's checker refuses NaN. ``info["alignment"]``, a float: the change of compliance in this step, which
        starts at 0. ``info["bonus"]``, a float: ``alignment_lambda`` times that change.
        With ``actions="compact"``, ``info["action_mask"]``, int8 [42]: 1 where an action makes sense now. These are
        Sleep; Analyse and Restore on a host that had an event in this episode; Remove where the table shows User or
        Privileged; each decoy that can stand and does not. The other actions are allowed too.

    ``reset(seed=s)`` plays the episode that ChallengeWrapper plays after ``random.seed(s)`` and ``reset()``. Without a
    seed, the environment's random numbers go on. Neither affects Python's global generator or other environments.

    Args:
        red_agent: One of `RED_AGENTS`; ``"mixed"``, with which each episode draws one of them; a class with the methods
            of csle-cyborg's BaseAgent; or ``"package.module:Class"``. A class from outside csle-cyborg gets the same
            observations, action space and ``train`` calls as under csle-cyborg, and its draws from Python's ``random``
            (not NumPy's) follow the seed too. It costs some 35 µs a step, and some ms a reset.
        max_steps: Length of an episode in steps, at least 1. It is also an attribute.
        scenario: A dict as csle-cyborg takes it, by default ``aiotrain.cage2.scenario.scenario2()``. Bits,
            actions and ``red_hosts`` have the order of its hosts. Hosts, subnets, processes, values, starting positions
            and green's agent may change freely. If rewards or blue's view come about otherwise, csle-cyborg's own
            wrapper plays, some 15 times slower; `slow_reasons` then tells why, and a warning says so.
        workflow: The workflow by which fixes are judged, as `aiotrain.cage2.workflows.parse_order` reads it. Its order
            is also an attribute; ``reset(options={"workflow": order})`` changes it from that episode on. None: no order
            is shown, and nothing is judged.
        observation: ``"table"`` or ``"memory"``.
        actions: ``"full"`` or ``"compact"``.
        red_shares: The shares of episodes that `RED_AGENTS` play if they are mixed: numbers of at least 0, which need
            not add up to 1. An episode's seed decides which one it gets, on both simulators in the same way.
        alignment_lambda: Bonus for raising compliance from 0 to 1.

    Raises:
        ValueError: An argument is unknown or out of its range; the scenario is incomplete; or it is not ``scenario2()``
            and a ``workflow``, ``"memory"`` or ``"compact"`` does not suit its hosts.

    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium declares it so)

    def __init__(
        self,
        red_agent: str | type = B_LINE_AGENT,
        max_steps: int = EPISODE_STEPS,
        scenario: Mapping[str, Any] | None = None,
        workflow: str | Sequence[str] | None = None,
        observation: Observation = "table",
        actions: Actions = "full",
        red_shares: Sequence[float] = SHARES,
        alignment_lambda: float = 0.0,
    ) -> None:
        if max_steps < 1:
            raise ValueError(f"max_steps is {max_steps}, but an episode has at least 1 step")
        description = scenario2() if scenario is None else copy.deepcopy(dict(scenario))
        self._observer = BlueObserver(observation, actions)
        if not self._observer.is_plain and description != scenario2():
            raise ValueError(
                f"observation {observation!r} with actions {actions!r} is made for the hosts and services of Scenario2;"
                " for a scenario of your own, choose 'table' and 'full'"
            )
        self._shares = shares_of(red_agent, red_shares)
        reds = [red_agent_class(each) for each in ([red_agent] if self._shares is None else RED_AGENTS)]
        self.workflow: Order | None = None if workflow is None else parse_order(workflow)
        self.max_steps = max_steps
        self._alignment_lambda = alignment_lambda
        self._has_begun = False
        self._elapsed = self._red_hosts = 0
        try:
            self.slow_reasons = slow_reasons(description)
            if self.slow_reasons:
                warnings.warn(
                    "csle-cyborg's own wrapper plays this scenario, some 15 times slower, because "
                    + "; ".join(self.slow_reasons),
                    stacklevel=2,
                )
            # Only red agents can come from outside csle-cyborg: the others are named, and found in csle_cyborg.agents.
            self._stream = RandomStream(everywhere=not all(map(is_redirected, reds)))
            with self._stream:
                kind = UnmodifiedCyborg if self.slow_reasons else FastCyborg
                self._simulators: list[FastCyborg | UnmodifiedCyborg] = [
                    kind(copy.deepcopy(description), {"Red": red}) for red in reds
                ]
            self.simulator = self._simulators[0]
            """Simulator of the current episode; there is one for each red agent."""
        except KeyError as error:
            raise ValueError(
                f"the scenario lacks {error}, or names it without describing it; start from "
                "aiotrain.cage2.scenario.scenario2() and change that"
            ) from error
        self.action_names = self.simulator.action_names
        self.hosts = self.simulator.hosts
        self._meter = None if self.workflow is None else ComplianceMeter(self.hosts, self.action_names)
        inputs = 4 * len(self.hosts)
        if not self._observer.is_plain:
            inputs = self._observer.num_inputs
            self.action_names = [self.action_names[full] for full in self._observer.menu]
        order_bits = 0 if self.workflow is None else ONE_HOT.shape[1]
        self.observation_space = gymnasium.spaces.MultiBinary(inputs + order_bits)
        self.action_space = gymnasium.spaces.Discrete(len(self.action_names))

    @property
    def generator(self) -> random.Random:
        """The ``random.Random`` that has the state of the simulator's draws between two calls."""
        return self._stream.generator

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int8], dict[str, Any]]:
        """Begin an episode. ``options={"workflow": order}`` changes the order from this episode on.

        Raises ValueError if ``order`` is none, or if the environment was made without a workflow.
        """
        workflow = (options or {}).get("workflow")
        if workflow is not None:
            self.workflow = requested_order(workflow, shown=self.workflow is not None)
        super().reset(seed=seed)
        if self._shares is not None:
            drawn_by = int(self.np_random.integers(2**63)) if seed is None else seed
            self.simulator = self._simulators[drawn_red_agent(drawn_by, self._shares)]
        if seed is not None:
            self._stream.generator.seed(seed)
        with self._stream as generator:
            bits, red_hosts = self.simulator.reset(generator)
        self._has_begun, self._elapsed, self._red_hosts = True, 0, red_hosts
        if self.workflow is not None and self._meter is not None:
            self._meter.reset(self.workflow, red_hosts)
        return self._seen(bits, BEGUN, 0.0)

    def step(self, action: np.int64 | int) -> tuple[NDArray[np.int8], float, bool, bool, dict[str, Any]]:
        """Play one step: blue's action, then green's, then red's.

        Raises ValueError for an unknown action, and ``gymnasium.error.ResetNeeded`` before the first reset.
        """
        if not self._has_begun:
            raise gymnasium.error.ResetNeeded("call reset() before the first step()")
        index = int(action)
        if not 0 <= index < len(self.action_names):
            raise ValueError(f"action {index} does not exist: there are {len(self.action_names)}, from 0")
        if not self._observer.is_plain:
            index = int(self._observer.menu[index])
        alignment = 0.0 if self._meter is None else self._meter.judge(index, self._red_hosts)
        with self._stream:
            bits, reward, self._red_hosts = self.simulator.step(index)
        self._elapsed += 1
        observation, info = self._seen(bits, index, alignment)
        return observation, reward, False, self._elapsed >= self.max_steps, info

    def _seen(self, bits: bytearray, action: int, alignment: float) -> tuple[NDArray[np.int8], dict[str, Any]]:
        """Return observation and info after blue's ``action``, which is BEGUN after a reset."""
        observation = np.frombuffer(bits, dtype=np.int8)
        info: dict[str, Any] = {"red_hosts": self._red_hosts}
        if not self._observer.is_plain:
            (observation,), masks = self._observer.observe(observation[None], [action])
            info |= {name: mask for name, (mask,) in masks.items()}
        if self.workflow is not None and self._meter is not None:
            observation = np.concatenate([observation, ONE_HOT[ORDER_INDEX[self.workflow]]])
            info["alignment"] = alignment
            info["bonus"] = self._alignment_lambda * alignment
            if self._meter.fixes:
                info["compliance"] = self._meter.compliance
        return observation, info


def red_agent_class(red_agent: str | type) -> type:
    """Return the class of a red agent: one of `RED_AGENTS`, ``"module:Class"``, or a class.

    Raises ValueError, with the nearest names, if there is none, and for a class without an agent's methods.
    """
    if isinstance(red_agent, str):
        module_name, colon, class_name = red_agent.partition(":")
        if colon:
            found = _imported(red_agent, module_name, class_name)
        else:
            if red_agent not in RED_AGENTS:
                raise ValueError(
                    unknown_name("red agent", red_agent, (*RED_AGENTS, MIXED))
                    + ' Give an agent of your own as a class, or as "package.module:Class".'
                )
            found = getattr(cyborg_import, red_agent)
    else:
        found = red_agent
    needed = [name for name in vars(cyborg_import.BaseAgent) if not name.startswith("_")]
    missing = [name for name in needed if not callable(getattr(found, name, None))]
    if not isinstance(found, type) or missing:
        raise ValueError(
            f"{found!r} is no red agent: it must be a class with the methods {', '.join(needed)}"
            " of csle_cyborg.agents.simple_agents.base_agent.BaseAgent"
        )
    return found


def _imported(red_agent: str, module_name: str, class_name: str) -> Any:
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"cannot import the module {module_name!r} of red agent {red_agent!r}: {error}."
            " Is it installed, or is its folder in PYTHONPATH?"
        ) from error
    if not hasattr(module, class_name):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        raise ValueError(unknown_name(f"class in {module_name}", class_name, classes))
    return getattr(module, class_name)
