"""Environments that tests name as module:factory. The program finds the copy in the folder that it is started in."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import gymnasium

from aiotrain.training.curriculum import Curriculum


class Tiny(gymnasium.Env[Any, Any]):
    """Rewards action 1, for five steps."""

    observation_space: Any = gymnasium.spaces.Discrete(3)
    action_space: Any = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return 0, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.steps % 3, float(action), self.steps >= 5, False, {}


class Leveled(Tiny):
    """Tells in each step whether it succeeds, and the level that its reset was given."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.level = (options or {}).get("level", 0)
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        *told, _ = super().step(action)
        return *told, {"success": True, "level": self.level}  # type: ignore[return-value]


class Harder(Curriculum):
    """Raises the level with each batch."""

    def plan(self, batch: int) -> Sequence[Mapping[str, Any]]:
        return [{"level": batch + 1}]

    def label(self, batch: int) -> str:
        return f"level {batch + 1}"

    def status(self) -> str:
        return "a level"


class Unsupported(Tiny):
    observation_space = gymnasium.spaces.Text(5)


class Raising(Tiny):
    def __init__(self) -> None:
        raise RuntimeError("no licence for the simulator")


class RaisingLater(Tiny):
    def step(self, action: Any) -> NoReturn:
        raise RuntimeError("the simulator crashed")


class Debugged(Tiny):
    """Stops at a breakpoint in the first step of the first episode."""

    stopped = False

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not Debugged.stopped:
            Debugged.stopped = True
            breakpoint()
        return super().step(action)


class Hanging(Tiny):
    """Makes the file `hangs` in its first step, and hangs."""

    def step(self, action: Any) -> NoReturn:
        open("hangs", "w").close()
        while True:
            self.wait()

    def wait(self) -> None:
        time.sleep(60)


class Spinning(Hanging):
    def wait(self) -> None:
        pass


class Printing(Tiny):
    def reset(self, **given: Any) -> tuple[Any, dict[str, Any]]:
        os.write(1, b"a word from the environment\n")
        return super().reset(**given)


class Crashing(Tiny):
    def __init__(self) -> None:
        ctypes.string_at(0)


class Hostile(Tiny):
    """Raises an error whose text would act on a terminal."""

    def step(self, action: Any = 0) -> NoReturn:
        raise RuntimeError("[bold]no[/] licence :warning: \x1b[2J\x9b31m\rfor you")


class HostileAtOnce(Tiny):
    def __init__(self) -> None:
        Hostile.step(self)  # type: ignore[arg-type]


globals()["[bold]\x1b]0;title\x07"] = Hostile
not_callable = 3
