"""The settings: each field is a flag and a part of config.json, its docstring the help."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from aiotrain import Config, Domain, EnvFactory, Faults, PPOConfig


@dataclass(frozen=True, kw_only=True)
class Tank(Domain):
    """A leaking water tank."""

    leak: float = 0.01
    """Water that runs out in a step, as a share of the tank."""

    env_id: ClassVar[str] = "tank/Tank-v0"
    ppo: ClassVar[PPOConfig] = PPOConfig(hidden_sizes=(16,), minibatch_size=250)

    def faults(self, config: Config) -> list[str]:
        """Say all that cannot work."""
        faults = Faults(self)
        if faults.of_right_type():
            faults.between("leak", 0, 0.04)
        return faults.found

    def factory(self, config: Config) -> EnvFactory:
        """Name what makes the environment, and its metrics."""
        steps = config.max_episode_steps or 50
        made = EnvFactory.of("tank.environment:WaterTank", leak=self.leak, max_steps=steps)
        return replace(made, name=self.env_id, metrics=("steady",))

    @property
    def details(self) -> Mapping[str, str]:
        """Lines for the log."""
        return {"leak": f"{self.leak:.1%} a step"}
