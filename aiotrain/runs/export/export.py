"""The policy of a run as files that need neither torch nor aiotrain.

    aiotrain.export("runs/NAME")

``policy.safetensors`` holds the weights by name, and in its metadata what they mean (`about.metadata`).
``policy.onnx`` is the network, from observation to logits or Gaussian (`onnx_model.onnx_model`).
``agent.py`` is an agent that needs NumPy alone, with the weights in it (`agent_file.agent_file`).
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from safetensors.numpy import save

from aiotrain.errors import ConfigError
from aiotrain.runs.export.about import MARK, about, metadata
from aiotrain.runs.export.agent_file import AgentParts, agent_file, parts_of
from aiotrain.runs.load_run import Trained, load_run
from aiotrain.runs.policy_files import tensors_of
from aiotrain.runs.tensor_files import write_whole

__all__ = ["FILES", "Format", "export", "export_policy"]

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
) -> list[Path]:
    """Write the policy of ``run``, the folder of a run or a checkpoint in it, to ``folder``; return the files' paths.

    Args:
        run: Where it comes from. Of a checkpoint, it is the policy at that time.
        folder: Default: ``export`` in the run's folder; of a checkpoint, ``export-`` and its name.
        formats: Keys of `FILES`. Default: all, but for onnx where the package of that name is not installed.
        greedy: Whether the agent takes the most probable action, or the Gaussian's mean, unless it is told otherwise.

    Raises ConfigError or CheckpointError before anything is written: no run, no weights yet, a missing package, a file
    there that is no export. ConfigError too if a file cannot be written.
    """
    return export_policy(load_run(Path(run)), folder, formats=formats, greedy=greedy)


def export_policy(
    trained: Trained, folder: str | Path | None = None, *, formats: Sequence[Format] | None, greedy: bool
) -> list[Path]:
    """Write a policy to files, as `export` does."""
    chosen = _chosen(formats)
    if greedy and "numpy" not in chosen:
        raise ConfigError(f"export: greedy is a way of acting, and of the formats {', '.join(chosen)} none acts")
    parts = parts_of(trained)
    source = trained.run
    beside = source.parents[1] / f"export-{source.stem}" if source.is_file() else source / "export"
    folder = beside if folder is None else folder
    contents = {Path(folder, FILES[each]): _content(each, trained, parts, greedy) for each in chosen}
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
    """Return the formats to write. Raises ConfigError."""
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


def _content(kind: Format, trained: Trained, parts: AgentParts, greedy: bool) -> bytes:
    """Return what a file is to hold. Raises ConfigError."""
    match kind:
        case "safetensors":
            return save(tensors_of(trained.policy), metadata(trained, parts.about))
        case "numpy":
            return agent_file(about(trained, parts.about), parts, greedy).encode()
    try:
        from aiotrain.runs.export.onnx_model import onnx_model
    except ImportError as error:
        raise ConfigError(f"export: the package onnx cannot be imported ({error}); leave onnx out") from error
    return onnx_model(trained.policy, trained.spec, metadata(trained, parts.about))


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
