"""Small environments: healthy ones of every kind of space, and ones that do what no environment should."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from aiotrain.testing import cause, faulty

Observation = Literal["box", "bits", "one_hot"]
Action = Literal["discrete", "shifted", "gaussian"]


class Toy(gymnasium.Env[Any, Any]):
    """Episodes of ``shortest`` to ``longest`` steps with random observations and rewards, all drawn from the seed."""

    def __init__(
        self,
        observation: Observation = "box",
        action: Action = "discrete",
        shortest: int = 3,
        longest: int = 12,
        terminates: bool = True,
    ) -> None:
        self.observation_space = {
            "box": spaces.Box(-2.0, 2.0, (3,), np.float32),
            "bits": spaces.MultiBinary(5),
            "one_hot": spaces.Discrete(4, start=1),
        }[observation]
        self.action_space = {
            "discrete": spaces.Discrete(3),
            "shifted": spaces.Discrete(2, start=5),
            "gaussian": spaces.Box(-0.5, 0.5, (2,), np.float32),
        }[action]
        self.lengths = (shortest, longest)
        self.terminates = terminates
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode_seed = seed
        self.steps = 0
        self.length = int(self.np_random.integers(self.lengths[0], self.lengths[1] + 1))
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action if np.ndim(action) else np.int64(action)), f"action {action!r}"
        self.steps += 1
        reward = float(np.sum(action)) + float(self.np_random.normal())
        over = self.steps >= self.length
        return self.observe(), reward, over and self.terminates, over and not self.terminates, {}

    def observe(self) -> Any:
        match self.observation_space:
            case spaces.Box():
                return self.np_random.uniform(-2, 2, 3).astype(np.float32)
            case spaces.MultiBinary():
                return self.np_random.integers(0, 2, 5).astype(np.int8)
        return int(self.np_random.integers(1, 5))


class Endless(Toy):
    """An episode never ends."""

    def __init__(self) -> None:
        super().__init__(shortest=10**9, longest=10**9)


class Counted(Toy):
    """Leaves a file in ``folder`` for each episode that it ended, or broke off, as it does where that is due."""

    def __init__(self, folder: str, breaks_every: int) -> None:
        super().__init__()
        self.folder, self.breaks_every = Path(folder), breaks_every

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        answer = super().step(action)
        if self.steps == 2 and self.episode_seed is not None and self.episode_seed % self.breaks_every == 0:
            self._mark("broken")
            raise RuntimeError("the simulator lost its way")
        if self.steps == self.length:
            self._mark("ended")
        return answer

    def _mark(self, what: str) -> None:
        (self.folder / f"{what}-{os.getpid()}-{time.monotonic_ns()}").touch()


class Judged(Toy):
    """Tells a bonus in every step and a compliance from the second one on; remembers what resets were given."""

    def __init__(self, **toy: Any) -> None:
        super().__init__(**toy)
        self.options: list[dict[str, Any] | None] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.options.append(options)
        observation, _ = super().reset(seed=seed)
        self.shares = np.random.default_rng(seed).random(self.length + 1)
        return observation, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        *seen, info = super().step(action)
        before = 0.0 if self.steps <= 2 else float(self.shares[self.steps - 1])
        if self.steps == 1:
            return *seen, info | {"bonus": 0.0}
        now = float(self.shares[self.steps])
        return *seen, info | {"bonus": now - before, "compliance": now}


class Telling(Toy):
    """Tells a bonus in every step, and one of ``told`` at an episode's end: which one, its seed says."""

    def __init__(self, *told: dict[str, Any], bonus: Any = 0.25, **toy: Any) -> None:
        super().__init__(**toy)
        self.told, self.bonus = told, bonus

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        *seen, info = super().step(action)
        over = self.steps == self.length
        return *seen, info | {"bonus": self.bonus} | (told_by(self.told, self.episode_seed) if over else {})  # type: ignore[return-value]


def told_by(told: Sequence[dict[str, Any]], seed: Any) -> dict[str, Any]:
    """Return what `Telling` tells at the end of the episode that was reset with ``seed``."""
    return told[seed % len(told)] if told else {}


class Masked(Toy):
    """Bars some of 5 actions in every step, and refuses them; after the last step none is possible any more.

    In step ``wrong_at`` it tells ``wrong`` instead; None: nothing.
    """

    def __init__(self, wrong_at: int | None = None, wrong: Any = None, **toy: Any) -> None:
        super().__init__(**toy)
        self.action_space = spaces.Discrete(5)
        self.wrong_at, self.wrong = wrong_at, wrong

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, _ = super().reset(seed=seed, options=options)
        return observation, self.tell(over=False)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        assert self.mask[action], f"action {action} is barred"
        *seen, terminated, truncated, _ = super().step(action)
        return *seen, terminated, truncated, self.tell(over=terminated or truncated)  # type: ignore[return-value]

    def tell(self, over: bool) -> dict[str, Any]:
        if self.steps == self.wrong_at:
            return {} if self.wrong is None else {"action_mask": self.wrong}
        self.mask = (self.np_random.random(5) < 0.4).astype(np.int8)
        self.mask[self.np_random.integers(5)] = 1
        if over:
            self.mask[:] = 0
        return {"action_mask": self.mask}


class Obedient(gymnasium.Env[Any, Any]):
    """Rewards the last of 3 allowed actions out of 6, and shows nothing: only the mask tells which one that is."""

    def __init__(self) -> None:
        self.observation_space = spaces.MultiBinary(6)
        self.action_space = spaces.Discrete(6)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.draw()

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        reward = float(action == np.flatnonzero(self.mask)[-1])
        self.steps += 1
        observation, info = self.draw()
        return observation, reward, False, self.steps == 10, info

    def draw(self) -> tuple[Any, dict[str, Any]]:
        self.mask = self.np_random.permutation(np.array([0, 0, 0, 1, 1, 1], np.int8))
        return np.zeros(6, np.int8), {"action_mask": self.mask.copy()}


def failing_later(episode: int, run_seed: int, marks: Path) -> Callable[[], gymnasium.Env[Any, Any]]:
    """Makes environments that raise in ``episode``, once; and then their making does, once."""
    make = faulty(Toy, "raise", episodes=[episode], run_seed=run_seed, marks=marks)

    def make_again() -> gymnasium.Env[Any, Any]:
        if any(marks.iterdir()) and not (marks / "refused").exists():
            (marks / "refused").touch()
            raise RuntimeError("no licence for another simulator")
        return make()

    return make_again


class Paid(Toy):
    """Rewards what the options of its reset say."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.worth = 0.0 if options is None else options["worth"]
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, _, *rest = super().step(action)
        return observation, self.worth, *rest


class Interrupted(Toy):
    """Its process is killed while it sends the answer to a task in which it played the episode reset with ``seed``."""

    def __init__(self, seed: int, mark: str) -> None:
        super().__init__()
        self.seed, self.mark = seed, Path(mark)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self.episode_seed == self.seed and not self.mark.exists():
            self.mark.touch()

            def send_half(connection: Connection, answer: bytes, write: Any = os.write) -> None:
                write(connection.fileno(), answer[: len(answer) // 2])
                cause("kill")

            Connection._send = send_half  # type: ignore[attr-defined]
        return super().step(action)


class Waiting(Toy):
    """Waits in its first step until the file ``gate`` exists, and tells by ``gate``.<pid> that it does."""

    def __init__(self, gate: str) -> None:
        super().__init__()
        self.gate = Path(gate)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if not self.gate.exists():
            self.gate.with_suffix(f".{os.getpid()}").touch()
            while not self.gate.exists():
                time.sleep(0.002)
        return super().step(action)


def toy() -> Toy:
    """For naming as envs:toy."""
    return Toy()


def not_an_environment() -> str:
    return "environment"


def closure(longest: int) -> Callable[[], Toy]:
    """A factory that has no name to be imported by."""
    return lambda: Toy(longest=longest)
