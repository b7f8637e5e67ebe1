"""Limits of one submission, attachments included, and what its parsers left out."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from services.ingestion.domain import Rejected, RejectionReason


class RemovedKind(StrEnum):
    """Kinds of characters that a parser leaves out of a file because they are not content."""

    NAVIGATION = "navigation"
    CONTENTS = "contents"
    RUNNING_LINES = "running_lines"
    MARKUP = "markup"


@dataclass
class Budget:
    """What is left of each limit. `cells` are those of tables; `depth` is how deep attachments may still nest.

    `removed` counts the characters that parsers left out because they are not content, by kind.
    """

    entries: int = 5_000
    expanded_bytes: int = 200 * 1024 * 1024
    pages: int = 2_000
    rows: int = 50_000
    cells: int = 250_000
    characters: int = 6_000_000
    attachments: int = 200
    depth: int = 3
    removed: Counter[str] = field(default_factory=Counter)

    def take(self, what: str, count: int, format: str = "") -> None:
        """Use up part of a limit. Raises Rejected (TOO_LARGE) if less is left."""
        left = getattr(self, what) - count
        if left < 0:
            name = what.replace("_", " ")
            raise Rejected(
                RejectionReason.TOO_LARGE, f"The file has more {name} than are allowed. Publish it in parts.", format
            )
        setattr(self, what, left)
