"""The way of a page from a published file to a training row, over the events between services."""

import io
from dataclasses import replace

from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate

from services.anonymization.consumers import ProducedFacts, to_ingested
from services.anonymization.domain import Text
from services.anonymization.handlers import Barrier, pass_document
from services.ingestion.consumers import to_event
from services.ingestion.domain import File, Kind, Labels, Submission, encode_text
from services.ingestion.handlers import take_in
from services.synthetic import handlers, wire
from services.synthetic.domain import RowLimits
from tailor.api.events.v1 import documents_pb2
from tailor.events.memory import MemoryProducer
from tests.unit.anonymization.fakes import (
    MemoryCorpus,
    MemoryLedger,
    MemoryQuarantine,
    MemorySubjects,
    ShoutingAnonymizer,
)
from tests.unit.ingestion.fakes import make_intake, make_receipt
from tests.unit.synthetic.fakes import make_app

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


def ingested(data: bytes) -> tuple[documents_pb2.DocumentIngested, Text]:
    """The event that ingestion publishes for a file, and the text in quarantine."""
    intake, _, quarantine = make_intake()
    submission = Submission("report-9", Kind.DOCUMENT, Labels("wiki", "risk"), File(data, "report.pdf"))
    message = to_event(take_in(intake, make_receipt("k", submission)))[2]
    assert isinstance(message, documents_pb2.DocumentIngested)
    return message, Text.decode(encode_text(quarantine.written[0][2]))


def anonymized(message: documents_pb2.DocumentIngested, text: Text) -> tuple[documents_pb2.DocumentAnonymized, Text]:
    """The event that anonymization publishes for the document, and the text in the corpus."""
    corpus, producer = MemoryCorpus(), MemoryProducer("anonymization")
    barrier = Barrier(
        MemoryQuarantine(text),
        corpus,
        MemoryLedger(),
        ProducedFacts(producer),
        ShoutingAnonymizer(),
        "policy",
        lambda _: "en",
        MemorySubjects(),
    )
    pass_document(barrier, to_ingested(message))
    (passed,) = producer.messages("document.anonymized.v1")
    assert isinstance(passed, documents_pb2.DocumentAnonymized)
    return passed, corpus.texts[0]


def test_a_row_names_page_and_section_of_its_document_although_surrogates_are_shorter() -> None:
    passed, text = anonymized(*ingested(make_pdf()))
    assert "Okafor" not in text.text and text.text.count("Ward") == 3
    app = make_app(limits=RowLimits(rows_per_document=9, min_answer_tokens=10))
    ref = app.store.put("corpus", "documents/x", text.encode())
    handlers.on_document(app, replace(wire.to_document(passed), text=ref))
    rows = handlers.preview_rows(app, "reports", passed.document_id, 20)
    spans_of = {}
    for row in rows:
        if row.origin == "section":
            parts = [text.text[span.start : span.end] for span in row.spans]
            assert all(part.startswith("#") and part.endswith(row.completion) for part in parts)
            spans_of[row.completion] = [(span.kind, span.number) for span in row.spans]
    expected = [words.replace("Okafor", "Ward") for _, words in PAGES]
    # The first section is the title's and contains both.
    assert spans_of == {expected[0]: [("page", 1), ("section", 2)], expected[1]: [("page", 2), ("section", 3)]}
