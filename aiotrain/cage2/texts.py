"""Error texts that more than one module of this folder needs."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


def unknown_name(what: str, name: object, known: Sequence[str]) -> str:
    """Sentence for a name that does not exist: the nearest ones first, then all of them."""
    lowered = {candidate.lower(): candidate for candidate in known}
    near = get_close_matches(str(name).lower(), lowered, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(lowered[word] for word in near)}?" if near else "."
    return f"unknown {what} {name!r}{hint} There are: {', '.join(known)}"
