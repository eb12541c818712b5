"""CAGE Challenge 2 as a domain: its settings, and the parts that it provides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aiotrain.cage2.blue_view import Actions, Observation
from aiotrain.cage2.red_agents import MIXED, SHARES, compiled_red_agent, shares_of
from aiotrain.cage2.registration import CAGE2_ID
from aiotrain.cage2.scenario import B_LINE_AGENT, HOST_TYPES, LONGEST_EPISODE, Rules, Simulator
from aiotrain.cage2.search.settings import SearchConfig
from aiotrain.cage2.workflows import parse_order
from aiotrain.config import Config
from aiotrain.domains import Domain
from aiotrain.errors import ConfigError, Faults, documented
from aiotrain.learn.settings import PPOConfig
from aiotrain.play.env_factory import EnvFactory

if TYPE_CHECKING:
    from aiotrain.training.curriculum import Curriculum, RunServices

__all__ = ["Cage2"]


@documented
@dataclass(frozen=True, kw_only=True)
class Cage2(Domain):
    """CAGE Challenge 2: defend a network of 13 hosts against a red agent.

    Config(env=Cage2(red_agent="mixed", workflow="none"))
    """

    red_agent: str = B_LINE_AGENT
    """Attacker in CAGE 2: B_lineAgent, RedMeanderAgent, SleepAgent, mixed (each episode draws one of these), or
    module:Class."""
    red_shares: tuple[float, ...] = SHARES
    """With red-agent mixed: the shares of episodes that the three agents play, which need not add up to 1."""
    simulator: Simulator = "compiled"
    """Simulator of CAGE 2: the compiled engine, exact and much faster, or csle-cyborg, which accepts your own red
    agent."""
    rules: Rules = "main"
    """Rules of CAGE 2: today's, or the leaderboard's older ones, which only the compiled engine has."""
    workflow: str = "search"
    """Priority of host types in CAGE 2: search for it, train one (its name, or five types with commas), or none."""
    observation: Observation = "table"
    """What blue sees in CAGE 2: the table of the last step, or also what an attentive player remembers."""
    actions: Actions = "full"
    """Blue's actions in CAGE 2: all 145, or the 42 that can pay, masked to those that make sense now."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """The search over workflows."""

    env_id: ClassVar[str] = CAGE2_ID
    ppo: ClassVar[PPOConfig] = PPOConfig(
        learning_rate=3e-3,
        final_learning_rate=3e-4,
        gamma=0.98,
        gae_lambda=0.9,
        clip_range=0.3,
        entropy_coef=0.003,
        epochs=3,
        minibatch_size=1024,
        hidden_sizes=(64, 64),
    )
    panel: ClassVar[str] = "aiotrain.cage2.screen.search_panel:SearchPanel"
    plots: ClassVar[str] = "aiotrain.cage2.search.plots:plots"
    agent: ClassVar[str] = "aiotrain.cage2.official.agent_parts:agent_parts"
    libraries: ClassVar[tuple[str, ...]] = ("csle-cyborg", "scikit-learn")
    verbs: ClassVar[Mapping[str, str]] = {
        "evaluate": "aiotrain.cage2.commands.evaluate:evaluate",
        "replay": "aiotrain.cage2.commands.replay:replay",
        "export": "aiotrain.cage2.commands.export:export",
    }

    @property
    def _is_compiled(self) -> bool:
        return self.simulator == "compiled"

    @property
    def searches(self) -> bool:
        """Whether the run searches for a workflow."""
        return self.workflow == "search"

    def faults(self, config: Config) -> list[str]:
        """See Domain."""
        faults = Faults(self)
        if not faults.of_right_type():
            return faults.found
        faults.check(
            not self._is_compiled or (config.max_episode_steps or 1) <= LONGEST_EPISODE,
            f"max-episode-steps ({config.max_episode_steps}) is more than the {LONGEST_EPISODE:,} that simulator "
            "compiled plays",
        )
        faults.check(
            not self._is_compiled or not config.ppo.normalize_observations,
            "normalize-observations does not work with simulator compiled, whose policy takes bits as they are; choose "
            "simulator cyborg, or leave it out",
        )
        faults.check(
            self._is_compiled or self.rules == "main",
            f"csle-cyborg plays by the rules main only; for the rules {self.rules}, choose the simulator compiled",
        )
        faults.check(
            not self.searches or config.steps_per_update is None,
            "steps-per-update does not work with workflow search, which divides batches by episodes; choose "
            "episodes-per-update, or another workflow",
        )
        faults.check(
            not self.searches or config.curriculum is None,
            "curriculum does not work with workflow search, which is a curriculum itself; choose workflow none or one "
            "order, or leave curriculum out",
        )
        faults.check(
            self.red_agent == MIXED or self.red_shares == SHARES,
            f"red-shares has no meaning with red-agent {self.red_agent}, only with {MIXED}; leave one of the two out",
        )
        if self.workflow not in ("search", "none"):
            try:
                parse_order(self.workflow)
            except ValueError as error:
                faults.found.append(f"{error}; or search, or none")
        try:
            shares_of(self.red_agent, self.red_shares)
        except ValueError as error:
            faults.found.append(f"red-shares: {error}")
        return faults.found + self.search.faults()

    def factory(self, config: Config) -> EnvFactory:
        """See Domain."""
        try:
            self._refuse_unknown_red_agent()
        except ValueError as error:
            raise ConfigError(f"red-agent: {error}") from error
        kwargs: dict[str, Any] = {
            name: getattr(self, name) for name in ("simulator", "red_agent", "rules", "observation", "actions")
        }
        if self.red_agent == MIXED:
            kwargs["red_shares"] = self.red_shares
        if config.max_episode_steps is not None:
            kwargs["max_steps"] = config.max_episode_steps
        if self.workflow != "none":  # a search gives each episode its order at reset
            kwargs["workflow"] = HOST_TYPES if self.searches else parse_order(self.workflow)
            kwargs["alignment_lambda"] = self.search.alignment_lambda
        preload, player = "aiotrain.cage2.simulators.cyborg_env", None
        if self._is_compiled:
            preload = "aiotrain.cage2.play.compile_before_fork"
            player = "aiotrain.cage2.play.compiled_player:CompiledPlayer"
        return EnvFactory(
            CAGE2_ID,
            CAGE2_ID,
            tuple(kwargs.items()),
            metrics=() if self.workflow == "none" else ("compliance",),
            asks_for_metrics=False,
            preload=(preload,),
            compiled_player=player,
        )

    def _refuse_unknown_red_agent(self) -> None:
        """Raise ValueError if no red agent has this name. For cyborg, this imports the simulator."""
        if self._is_compiled:
            compiled_red_agent(self.red_agent)
        elif self.red_agent != MIXED:
            from aiotrain.cage2.simulators.cyborg_env import red_agent_class

            red_agent_class(self.red_agent)

    def curriculum(self, config: Config, run: RunServices) -> Curriculum | None:
        """See Domain."""
        if not self.searches:
            return None
        from aiotrain.cage2.search.workflow_curriculum import WorkflowCurriculum

        return WorkflowCurriculum(run, self.search, config.seed, config.episodes_per_update)

    def to_play(self, run: Path) -> tuple[Cage2, str]:
        """See Domain. A policy is shown the run's order; that of a search, the best one."""
        from aiotrain.cage2.search.best_order import with_order

        return with_order(self, run)

    @property
    def title(self) -> str:
        """See Domain."""
        return f"{CAGE2_ID} ({self.red_agent})"

    @property
    def details(self) -> Mapping[str, str]:
        """See Domain."""
        return {"simulator": "the compiled engine" if self._is_compiled else "csle-cyborg itself"}
