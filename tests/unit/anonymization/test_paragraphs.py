"""Splitting texts into paragraphs and batches."""

import pytest

from services.anonymization.recognise.overlaps import Stretches
from services.anonymization.recognise.paragraphs import MAX_BATCH_CHARS, MAX_PARAGRAPH_CHARS, batches, paragraphs
from services.anonymization.recognise.technical import technicality

LETTER = "Dear Ms Okafor,\n\nthank you for your letter of 3 May about the delivery. We will replace the two pallets.\n\nKind regards\n"
MANUAL = "NAME\n       tar - an archiving utility\n\nSYNOPSIS\n       tar -x [-f ARCHIVE]\n\nOPTIONS\n       -f, --file=ARCHIVE\n"
PIPELINE = "The wrapper calls `run_job(config_path)` with --dry-run; see src/jobs/runner.py and JOB_TIMEOUT in settings.toml.\n"


@pytest.mark.parametrize("text", ["Aa " * 9_000, "word" * 5_000, "A line.\n" * 3_000, LETTER])
def test_paragraphs_are_the_whole_text_in_bounded_pieces(text: str) -> None:
    pieces = list(paragraphs(text))
    assert "".join(piece for _, piece in pieces) == text
    assert all(text.startswith(piece, start) and len(piece) <= MAX_PARAGRAPH_CHARS for start, piece in pieces)


def test_a_long_paragraph_is_cut_between_words() -> None:
    assert all(piece.endswith("Aa ") for _, piece in paragraphs("Aa " * 9_000))


def test_batches_are_bounded_in_characters() -> None:
    groups = list(batches(paragraphs("A line.\n\n" * 9_000)))
    assert all(sum(len(piece) for _, piece in group) <= MAX_BATCH_CHARS for group in groups)
    assert sum(map(len, groups)) == 9_000


@pytest.mark.parametrize(
    ("place", "overlaps"), [((0, 2), False), ((2, 3), True), ((4, 6), True), ((7, 9), False), ((9, 20), True)]
)
def test_stretches_are_found_by_overlap(place: tuple[int, int], overlaps: bool) -> None:
    assert Stretches([(10, 12), (2, 5), (4, 7)]).overlap(*place) is overlaps


def test_manuals_and_code_are_technical_and_letters_are_not() -> None:
    assert technicality(LETTER) == 0
    assert technicality(MANUAL) == 1
    assert technicality(PIPELINE) > 0.5
