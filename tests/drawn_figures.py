"""Pictures that are drawn and not written: the figures, and the fixtures that keep them."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure


@pytest.fixture(scope="module", autouse=True)
def _fonts() -> None:
    """Matplotlib keeps the files of its fonts open once it has drawn a text."""
    figure = Figure()
    figure.text(0.5, 0.5, "text")
    figure.savefig(io.BytesIO())


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures that are saved, by the names of their files."""
    saved: dict[str, Figure] = {}

    def save(figure: Figure, path: Path, **options: Any) -> None:
        saved[path.name] = figure

    monkeypatch.setattr(Figure, "savefig", save)
    return saved


def size_of(png: Path) -> tuple[int, int]:
    """Width and height in pixels."""
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n", f"{png} is no PNG"
    width, height = struct.unpack(">2I", data[16:24])
    return width, height
