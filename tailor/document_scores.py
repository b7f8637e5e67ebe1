"""How well an adapter knows each document: a file of JSON lines that evaluation writes and the registry reads.

Standard library only.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from tailor.errors import FailedPrecondition, Reason

BATCH = 1000
MEDIA_TYPE = "application/x-ndjson"


@dataclass(frozen=True)
class DocumentScore:
    """Answers to the closed-book questions about one document: `asked` is the number of questions, and the sum of the other three."""

    document_id: str
    asked: int
    learned: int
    missed: int
    contradicted: int

    def __post_init__(self) -> None:
        """Raise ValueError for counts that do not add up."""
        counts = (self.learned, self.missed, self.contradicted)
        if not self.document_id or min(counts) < 0 or sum(counts) != self.asked:
            raise ValueError("a document's score does not add up")


def write_scores(scores: Iterable[DocumentScore]) -> bytes:
    """The scores as JSON lines, sorted by document: equal scores give equal bytes."""
    ordered = sorted(scores, key=lambda score: score.document_id)
    return "".join(f"{json.dumps(asdict(score))}\n" for score in ordered).encode()


def read_scores(data: bytes, batch: int = BATCH) -> Iterator[list[DocumentScore]]:
    """Yield batches of scores. Raises FailedPrecondition (INVALID_DOCUMENT_SCORES) at a line that is not a score."""
    scores: list[DocumentScore] = []
    for number, line in enumerate(data.splitlines(), 1):
        scores.append(_read_score(number, line))
        if len(scores) == batch:
            yield scores
            scores = []
    if scores:
        yield scores


def _read_score(number: int, line: bytes) -> DocumentScore:
    try:
        value = json.loads(line)
        counts = (int(value[name]) for name in ("asked", "learned", "missed", "contradicted"))
        return DocumentScore(str(value["document_id"]), *counts)
    except (ValueError, KeyError, TypeError):
        raise FailedPrecondition(
            Reason.INVALID_DOCUMENT_SCORES, f"Line {number} of the document scores is not a score. Evaluate again."
        ) from None
