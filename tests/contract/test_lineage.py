"""The way of a page from a published file to a training row, over the events between services."""

import io
from dataclasses import replace

import pytest
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate
from sqlalchemy import Engine

from services.anonymization.domain import DocumentText
from services.anonymization.wire import to_ingested
from services.ingestion.domain import (
    DocumentKind,
    File,
    ParsedSubmission,
    Receipt,
    Submission,
    add_sections,
    encode_text,
)
from services.ingestion.formats.read import read
from services.ingestion.wire import from_outcome
from services.synthetic import handlers, wire
from services.synthetic.bootstrap import MIGRATIONS
from tailor.api.events.v1 import documents_pb2
from tailor.storage.ref import Ref
from tailor.values import Labels, RowPolicy
from tests.barrier import MIGRATIONS as ANONYMIZATION
from tests.barrier import BarrierHouse
from tests.conftest import migrated
from tests.synthetic import World

PAGES = (
    ("Position", "Ms Okafor counted the ladders twice in 2024, and Okafor found 17 of them behind the depot."),
    ("Remedy", "The hoists are counted by Okafor in 2025, and 9 of them go to a depot that somebody has named."),
)


def make_pdf() -> bytes:
    styles, buffer = getSampleStyleSheet(), io.BytesIO()
    story: list[object] = [Paragraph("Report: ladders", styles["Title"])]
    for heading, words in PAGES:
        story += [Paragraph(heading, styles["Heading2"]), Paragraph(words, styles["BodyText"]), PageBreak()]
    SimpleDocTemplate(buffer).build(story)
    return buffer.getvalue()


def ingested(data: bytes) -> tuple[documents_pb2.DocumentIngested, DocumentText]:
    """The event that ingestion publishes for a file, and the text in quarantine."""
    submission = Submission("report-9", DocumentKind.DOCUMENT, Labels("wiki", "risk"), File(data, "report.pdf"))
    parsed = add_sections(read(File(data, "report.pdf")))
    version = ParsedSubmission(Receipt("k", "sub_k", "doc_k"), submission, parsed, "0" * 64, 1)
    outcome = version.accept("doc_k", 1, Ref("s3://quarantine/documents/doc_k/1", "0" * 64, len(parsed.text)))
    message = from_outcome(outcome)[2]
    assert isinstance(message, documents_pb2.DocumentIngested)
    return message, DocumentText.decode(encode_text(parsed))


def anonymized(
    engine: Engine, message: documents_pb2.DocumentIngested, text: DocumentText
) -> tuple[documents_pb2.DocumentAnonymized, DocumentText]:
    """The event that anonymization publishes for the document, and the text in the corpus."""
    house = BarrierHouse(engine)
    house.pass_text(text, to_ingested(message))
    (passed,) = house.producer.messages("document.anonymized.v1")
    assert isinstance(passed, documents_pb2.DocumentAnonymized)
    return passed, house.texts()[0]


@pytest.mark.integration
def test_a_row_names_page_and_section_of_its_document_although_surrogates_are_shorter(database_url: str) -> None:
    with migrated(database_url, ANONYMIZATION) as engine:
        passed, text = anonymized(engine, *ingested(make_pdf()))
    assert "Okafor" not in text.text and text.text.count("Ward") == 3
    with migrated(database_url, MIGRATIONS) as engine:
        world = World(engine)
        world.define(rows=RowPolicy(tasks=("section",)))
        ref = world.store.put("corpus", "documents/x", text.encode())
        handlers.on_document(world.app, replace(wire.to_document(passed), text=ref))
        rows = handlers.preview_rows(world.app, "reports", passed.document_id, 20)
    spans_of = {}
    for row, _ in rows:
        ranges = [text.text[span.start : span.end] for span in row.spans]
        assert all(part.startswith("#") and row.completion in part for part in ranges)
        spans_of[row.completion.split("\n\n")[-1]] = [(span.kind, span.number) for span in row.spans]
    expected = [words.replace("Okafor", "Ward") for _, words in PAGES]
    # The first row begins with the title, whose section contains both.
    assert spans_of == {expected[0]: [("section", 1), ("page", 1)], expected[1]: [("page", 2), ("section", 3)]}
