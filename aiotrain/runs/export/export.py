"""The policy of a run as files that need neither torch nor aiotrain.

    aiotrain.export("runs/NAME")

``policy.safetensors`` holds the weights by name, and in its metadata what they mean (`about.metadata`).
``policy.onnx`` is the network, from observation to logits or Gaussian (`onnx_model.onnx_model`).
``agent.py`` is an agent that needs NumPy alone, with the weights in it (`agent_file.agent_file`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from safetensors.numpy import save

from aiotrain.errors import ConfigError
from aiotrain.runs.checkpoints import tensors_of, write_whole
from aiotrain.runs.export.about import MARK, metadata
from aiotrain.runs.export.agent_file import agent_file
from aiotrain.runs.load import Trained, load_run

__all__ = ["FILES", "Format", "export"]

Format = Literal["safetensors", "onnx", "numpy"]
FILES: Final[dict[Format, str]] = {"safetensors": "policy.safetensors", "onnx": "policy.onnx", "numpy": "agent.py"}
"""The file of each format."""
_HEAD_BYTES: Final = 1 << 16
"""Within which an exported file has its mark."""


def export(
    run: str | Path,
    folder: str | Path | None = None,
    *,
    formats: Sequence[Format] | None = None,
    greedy: bool = False,
    workflow: str | None = None,
) -> list[Path]:
    """Write the policy of ``run``, the folder of a run or a checkpoint in it, to ``folder``; the files' paths.

    Args:
        run: Where it comes from. Of a checkpoint, it is the policy at that time.
        folder: Default: ``export`` in the run's folder; of a checkpoint, ``export-`` and its name.
        formats: Keys of `FILES`. Default: all, but for onnx where the package of that name is not installed.
        greedy: Whether the agent takes the most probable action, or the Gaussian's mean, unless it is told otherwise.
        workflow: For CAGE 2, the order that the agent acts by (default: as for `aiotrain.evaluate`).

    Raises ConfigError or CheckpointError before anything is written: no run, no weights yet, a missing package, a file
    there that is no export. ConfigError too if a file cannot be written.
    """
    chosen = _chosen(formats)
    if greedy and "numpy" not in chosen:
        raise ConfigError(f"export: greedy is a way of acting, and of the formats {', '.join(chosen)} none acts")
    trained = dataclasses.replace(load_run(Path(run), workflow), actions="greedy" if greedy else "sampled")
    source = trained.run
    beside = source.parents[1] / f"export-{source.stem}" if source.is_file() else source / "export"
    folder = beside if folder is None else folder
    contents = {Path(folder, FILES[each]): _content(each, trained) for each in chosen}
    for path in contents:
        _refuse_to_lose(path)
    for path, content in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
        except OSError as error:
            raise ConfigError(f"export: {path} cannot be written: {error.strerror}") from error
    return list(contents)


def _chosen(formats: Sequence[Format] | None) -> list[Format]:
    """The formats to write. Raises ConfigError."""
    has_onnx = importlib.util.find_spec("onnx") is not None
    if formats is None:
        return [each for each in FILES if each != "onnx" or has_onnx]
    if unknown := [str(each) for each in formats if each not in FILES]:
        raise ConfigError(f"export: there is no format {', '.join(unknown)}; choose from {', '.join(FILES)}")
    if not formats:
        raise ConfigError(f"export: formats is empty; leave it out, or choose from {', '.join(FILES)}")
    if "onnx" in formats and not has_onnx:
        raise ConfigError("export: the package onnx is not installed; pip install 'aiotrain[onnx]', or leave onnx out")
    return list(formats)


def _content(kind: Format, trained: Trained) -> bytes:
    """What a file is to hold. Raises ConfigError."""
    match kind:
        case "safetensors":
            return save(tensors_of(trained.policy), metadata(trained))
        case "numpy":
            return agent_file(trained).encode()
    try:
        from aiotrain.runs.export.onnx_model import onnx_model
    except ImportError as error:
        raise ConfigError(f"export: the package onnx cannot be imported ({error}); leave onnx out") from error
    return onnx_model(trained.policy, trained.spec, metadata(trained))


def _refuse_to_lose(path: Path) -> None:
    """Raise ConfigError if there is something else at ``path`` than what an export wrote."""
    if not path.exists():
        return
    is_ours = False
    if path.is_file():
        with contextlib.suppress(OSError), path.open("rb") as file:
            is_ours = MARK.encode() in file.read(_HEAD_BYTES)
    if not is_ours:
        raise ConfigError(f"export: {path} is there, and no export wrote it; move it away, or choose another folder")
