"""What every exported file tells of the policy in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from aiotrain.play.policy import INPUT_CLIP
from aiotrain.runs.checkpoints import library_versions
from aiotrain.runs.load_run import Trained
from aiotrain.runs.policy_files import described

__all__ = ["MARK", "about", "metadata"]

MARK: Final = "written by aiotrain export"
"""Near the beginning of every exported file, which the next export may therefore write over."""


def about(trained: Trained, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the policy was trained on, as plain values; ``more`` is what its domain tells."""
    version = library_versions()["aiotrain"]
    return {"environment": trained.spec.name, "run": trained.name, "aiotrain": version, **more}


def metadata(trained: Trained, more: Mapping[str, Any]) -> dict[str, str]:
    """Return, for files of weights, what they are, and what is needed to act with them, as JSON texts.

    ``policy`` and ``environment`` are as `aiotrain.runs.policy_files.save_weights` writes them: the layers, and how
    observations and actions are coded. ``activation`` is between the layers. ``normalization`` is null where inputs are
    taken as they are; else the first layer takes ``(input - input_mean) * input_scale``, clipped to ± its ``clip``.
    """
    told = {
        "about": about(trained, more),
        "activation": "tanh",
        "normalization": {"clip": INPUT_CLIP} if trained.policy.normalizes else None,
    }
    texts = {name: json.dumps(value) for name, value in told.items()}
    return {"format": MARK, **described(trained.policy.shape, trained.spec), **texts}
