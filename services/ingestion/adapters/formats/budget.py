"""What one submission may take in all, its attachments included."""

from dataclasses import dataclass

from services.ingestion.domain import Rejected, RejectionReason


@dataclass
class Budget:
    """What is left; `depth` is how far attachments may still nest, `cells` are those of tables."""

    entries: int = 5_000
    expanded_bytes: int = 200 * 1024 * 1024
    pages: int = 2_000
    rows: int = 50_000
    cells: int = 250_000
    characters: int = 6_000_000
    attachments: int = 200
    depth: int = 3

    def take(self, what: str, count: int, format: str = "") -> None:
        """Count something down; Rejected with TOO_LARGE where less is left."""
        left = getattr(self, what) - count
        if left < 0:
            words = what.replace("_", " ")
            raise Rejected(
                RejectionReason.TOO_LARGE, f"The file holds more {words} than are read; publish it in parts.", format
            )
        setattr(self, what, left)
