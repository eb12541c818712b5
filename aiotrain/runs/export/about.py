"""What every exported file tells of the policy in it."""

from __future__ import annotations

import json
from typing import Any, Final

from aiotrain.cage2.domain import Cage2
from aiotrain.play.policy import INPUT_CLIP
from aiotrain.runs.checkpoints import described, library_versions
from aiotrain.runs.load import Trained

__all__ = ["MARK", "about", "metadata"]

MARK: Final = "written by aiotrain export"
"""Near the beginning of every exported file, which the next export may therefore write over."""
_CAGE2_SETTINGS: Final = ("red_agent", "red_shares", "rules", "observation", "actions", "workflow")


def about(trained: Trained) -> dict[str, Any]:
    """What it was trained on, as plain values."""
    known = {"environment": trained.spec.name, "run": trained.name, "aiotrain": library_versions()["aiotrain"]}
    if not isinstance(trained.config.env, Cage2):
        return known
    settings = trained.config.resolved()["env"]
    return known | {name: settings[name] for name in _CAGE2_SETTINGS}


def metadata(trained: Trained) -> dict[str, str]:
    """For files of weights: what they are, and what is needed to act with them, as JSON texts.

    ``policy`` and ``environment`` are as `aiotrain.runs.checkpoints.save_weights` writes them: the layers, and how
    observations and actions are coded. ``activation`` is between the layers. ``normalization`` is null where inputs are
    taken as they are; else the first layer takes ``(input - input_mean) * input_scale``, clipped to ± its ``clip``.
    """
    more = {
        "about": about(trained),
        "activation": "tanh",
        "normalization": {"clip": INPUT_CLIP} if trained.policy.normalizes else None,
    }
    texts = {name: json.dumps(value) for name, value in more.items()}
    return {"format": MARK, **described(trained.policy.shape, trained.spec), **texts}
