"""What the parts of an agent's file know of the run: `agent_file` writes the run's values in place of these."""

from __future__ import annotations

from typing import Final

LAYERS: Final[tuple[int, ...]] = ()
GAUSSIAN: Final[bool] = False
NORMALIZED: Final[bool] = False
MASKED: Final[bool] = False
GREEDY: Final[bool] = False
WEIGHTS: Final[str] = ""

# Of an agent for any environment.
ONE_HOT: Final[bool] = False
OBSERVATION_SHAPE: Final[tuple[int, ...]] = ()
OBSERVATION_START: Final[int] = 0
ACTION_START: Final[int] = 0
ACTION_LOW: Final[tuple[float, ...]] = ()
ACTION_HIGH: Final[tuple[float, ...]] = ()
ACTION_DTYPE: Final[str] = "float32"
