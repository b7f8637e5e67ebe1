"""Applying decided changes to a text with Presidio's anonymizer engine."""

from collections.abc import Iterator, Sequence

from presidio_anonymizer import AnonymizerEngine
from presidio_anonymizer.entities import OperatorConfig, RecognizerResult

from services.anonymization.domain import Change

# The engine copies its text for every change; pieces keep the cost of a long text linear.
MAX_PIECE_CHARS = 4_000
ENGINE = AnonymizerEngine()


def apply(text: str, changes: Sequence[Change]) -> str:
    """The text with each change's replacement. The changes must be in order and must not overlap."""
    return "".join(_apply(text[start:end], start, piece) for start, end, piece in _pieces(text, changes))


def _pieces(text: str, changes: Sequence[Change]) -> Iterator[tuple[int, int, Sequence[Change]]]:
    """Stretches of the text that no change crosses, with their changes."""
    start, first = 0, 0
    for place, change in enumerate(changes):
        if change.end - start > MAX_PIECE_CHARS and place > first:
            yield start, change.start, changes[first:place]
            start, first = change.start, place
    yield start, len(text), changes[first:]


def _apply(text: str, offset: int, changes: Sequence[Change]) -> str:
    if not changes:
        return text
    # Each change has its own type, because the engine has one replacement for each type.
    results = [
        RecognizerResult(str(place), change.start - offset, change.end - offset, 1.0)
        for place, change in enumerate(changes)
    ]
    operators = {
        str(place): OperatorConfig("replace", {"new_value": change.replacement}) for place, change in enumerate(changes)
    }
    return str(ENGINE.anonymize(text, results, operators).text)
