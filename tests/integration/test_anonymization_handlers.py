"""Documents at the barrier and their outcomes, over PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from services.anonymization import handlers, ledger
from services.anonymization.adapters.kafka import KafkaOutcomes
from services.anonymization.consumers import on_ingested
from services.anonymization.domain import (
    NO_LABELS,
    Anonymized,
    DocumentOutcome,
    DocumentText,
    Ingested,
    Passed,
    RefusedDocument,
)
from services.anonymization.ledger import SqlLedger
from services.anonymization.wire import ANONYMIZED, REJECTED, to_ingested
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2
from tailor.errors import InvalidArgument, Reason, ResourceExhausted, TailorError, Unavailable
from tailor.events.envelope import Event
from tailor.events.erased import Erased, Forgotten
from tailor.events.memory import MemoryProducer
from tailor.values import Labels, Span, SpanKind
from tests.conftest import migrated
from tests.unit.anonymization.fakes import (
    INGESTED,
    REF,
    MemoryCorpus,
    MemoryQuarantine,
    MemoryRecorder,
    MemorySubjects,
    OneNameAnonymizer,
    UncoveredAnonymizer,
)

pytestmark = pytest.mark.integration

# Not from `bootstrap`, which loads the model libraries.
MIGRATIONS = Path(ledger.__file__).parent / "adapters" / "migrations"
TEXT = DocumentText("Ms Okafor decides.", "Ask Okafor.")


class World:
    def __init__(self, engine: Engine, text: DocumentText | None = TEXT, damaged: bool = False) -> None:
        self.quarantine = MemoryQuarantine(text, damaged)
        self.corpus = MemoryCorpus()
        self.subjects = MemorySubjects()
        self.ledger = SqlLedger(engine)
        self.recorder = MemoryRecorder()
        self.producer = MemoryProducer("anonymization")
        self.anonymizer = OneNameAnonymizer()

    def pass_document(self, ingested: Ingested = INGESTED) -> DocumentOutcome:
        return handlers.pass_document(
            ingested,
            quarantine=self.quarantine,
            corpus=self.corpus,
            subjects=self.subjects,
            ledger=self.ledger,
            publisher=KafkaOutcomes(self.producer),
            anonymizer=self.anonymizer,
            recorder=self.recorder,
            language_of=lambda text: "en",
            now_ms=lambda: 1,
        )

    def forget(self, erased: Erased) -> Forgotten:
        return handlers.forget(
            erased,
            quarantine=self.quarantine,
            corpus=self.corpus,
            subjects=self.subjects,
            recorder=self.recorder,
            ledger=self.ledger,
        )

    def consume(self, value: bytes | None, erased: tuple[str, ...] = ()) -> None:
        on_ingested(self.pass_document, self.quarantine, erased)(Event("document.ingested.v1", "doc_1", value))


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield engine


def test_a_document_passes_with_its_findings_and_leaves_quarantine(engine: Engine) -> None:
    world = World(engine)
    outcome = world.pass_document()
    assert isinstance(outcome, Passed)
    assert world.corpus.texts == [DocumentText("Ms Ward decides.", "Ask Ward.")]
    assert world.quarantine.deleted == [REF]
    message = world.producer.messages(ANONYMIZED)[0]
    assert isinstance(message, documents_pb2.DocumentAnonymized)
    assert dict(message.findings) == {"PERSON": 2} and message.policy_digest == "policy"
    assert message.language == "en"
    assert message.labels.department == "risk" and message.version.sequence == 1
    assert "Okafor" not in str(message)


def test_a_document_that_passes_is_recorded_for_reviews_before_its_outcome(engine: Engine) -> None:
    world = World(engine)
    world.pass_document()
    clean, result, language = world.recorder.recorded["doc_1"]
    assert clean == world.corpus.texts[0] and language == "en"
    assert [change.replacement for change in result.changes[1]] == ["Ward"]
    world.pass_document()
    assert world.forget(Erased("doc_1", "ers_1")).counts["review_passages"] == 1


def test_a_document_in_a_language_that_is_not_covered_is_rejected_with_the_hint(engine: Engine) -> None:
    world = World(engine)
    world.anonymizer = UncoveredAnonymizer()
    outcome = world.pass_document()
    assert isinstance(outcome, RefusedDocument) and world.corpus.texts == []
    message = world.producer.messages(REJECTED)[0]
    assert isinstance(message, documents_pb2.DocumentRejected)
    assert message.reason == documents_pb2.REJECTION_REASON_LANGUAGE_NOT_COVERED and "`sv`" in message.hint


class FailingAnonymizer(OneNameAnonymizer):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS, passed: tuple[str, ...] = ()) -> Anonymized:
        raise self.error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ResourceExhausted(Reason.TOO_EXPENSIVE, "It took too much."), documents_pb2.REJECTION_REASON_TOO_EXPENSIVE),
        (InvalidArgument(Reason.CHILD_FAILED, "A defect."), documents_pb2.REJECTION_REASON_UNREADABLE),
    ],
)
def test_a_document_that_cannot_be_read_is_rejected(engine: Engine, error: TailorError, reason: int) -> None:
    world = World(engine)
    world.anonymizer = FailingAnonymizer(error)
    outcome = world.pass_document()
    assert isinstance(outcome, RefusedDocument) and world.corpus.texts == []
    message = world.producer.messages(REJECTED)[0]
    assert isinstance(message, documents_pb2.DocumentRejected)
    assert message.reason == reason and message.hint == error.message


def test_a_document_that_ended_the_service_twice_is_rejected_at_the_third_start(engine: Engine) -> None:
    world = World(engine)
    # No handler sees that the process ends.
    world.anonymizer = FailingAnonymizer(SystemExit())
    for _ in range(2):
        with pytest.raises(SystemExit):
            world.pass_document()
    world.anonymizer = OneNameAnonymizer()
    outcome = world.pass_document()
    assert isinstance(outcome, RefusedDocument) and outcome.reason == "TOO_EXPENSIVE" and "twice" in outcome.hint
    assert world.ledger.start("doc_1", 1) == 1


def test_a_document_that_waits_for_others_is_tried_as_often_as_it_takes(engine: Engine) -> None:
    world = World(engine)
    world.anonymizer = FailingAnonymizer(Unavailable(Reason.DETECTOR_UNAVAILABLE, "Retry."))
    for _ in range(5):
        with pytest.raises(Unavailable):
            world.pass_document()
    world.anonymizer = OneNameAnonymizer()
    assert isinstance(world.pass_document(), Passed)


def test_a_document_says_which_languages_were_masked_by_rules_only(engine: Engine) -> None:
    world = World(engine)
    world.anonymizer = UncoveredAnonymizer(is_held=False)
    world.pass_document()
    message = world.producer.messages(ANONYMIZED)[0]
    assert isinstance(message, documents_pb2.DocumentAnonymized)
    assert message.rules_only_languages == ["sv"]


def test_a_documents_labels_choose_among_the_policys_rules(engine: Engine) -> None:
    world = World(engine)
    world.pass_document()
    assert world.anonymizer.labels == [INGESTED.labels]


def test_spans_move_with_the_surrogates(engine: Engine) -> None:
    text = "# Ms Okafor\n\nOkafor leads.\n\n# Next page\n"
    page = text.index("# Next")
    spans = (
        Span(SpanKind.PAGE, 1, 0, page - 2),
        Span(SpanKind.PAGE, 2, page, len(text) - 1),
        Span(SpanKind.SECTION, 1, page, len(text) - 1, 1),
    )
    world = World(engine, DocumentText(text))
    world.pass_document(replace(INGESTED, spans=spans))
    message = world.producer.messages(ANONYMIZED)[0]
    assert isinstance(message, documents_pb2.DocumentAnonymized)
    clean = world.corpus.texts[0].text
    assert len(clean) == len(text) - 4
    assert [(span.kind, span.number, clean[span.start : span.end]) for span in message.spans] == [
        (common_pb2.SPAN_KIND_PAGE, 1, "# Ms Ward\n\nWard leads."),
        (common_pb2.SPAN_KIND_PAGE, 2, "# Next page"),
        (common_pb2.SPAN_KIND_SECTION, 1, "# Next page"),
    ]


def test_the_spans_of_an_example_refer_to_its_answer(engine: Engine) -> None:
    answer = "# Okafor\n\nIt holds.\n"
    world = World(engine, DocumentText(answer, "Ask Okafor, and Okafor again."))
    world.pass_document(replace(INGESTED, spans=(Span(SpanKind.SECTION, 1, 0, len(answer) - 1, 1),)))
    message = world.producer.messages(ANONYMIZED)[0]
    assert isinstance(message, documents_pb2.DocumentAnonymized)
    (span,) = message.spans
    assert world.corpus.texts[0].text[span.start : span.end] == "# Ward\n\nIt holds."


def test_the_insights_of_a_golden_document_pass_the_barrier_statement_by_statement(engine: Engine) -> None:
    insights = {"owners": ("Ms Okafor signs.",), "figures": ("3 of 4", "12 %")}
    golden = DocumentText("Ms Okafor decides.", "Ask Okafor.", insights)
    assert DocumentText.decode(golden.encode()) == golden
    world = World(engine, golden)
    outcome = world.pass_document()
    assert isinstance(outcome, Passed)
    (clean,) = world.corpus.texts
    assert "Okafor" not in clean.encode().decode()
    assert clean.insights is not None
    assert {kind: len(entries) for kind, entries in clean.insights.items()} == {"owners": 1, "figures": 2}
    assert clean.insights["figures"] == ("3 of 4", "12 %")
    assert clean.prompt is not None and clean.prompt.startswith("Ask ")
    assert outcome.char_count == sum(map(len, clean.parts))


def test_a_redelivery_publishes_the_same_event_without_quarantine(engine: Engine) -> None:
    world = World(engine)
    world.pass_document()
    world.pass_document()
    (_, _, first, first_id), (_, _, second, second_id) = world.producer.sent
    assert (first_id, first) == (second_id, second)
    assert len(world.corpus.texts) == 1


def test_quarantine_stays_until_the_event_is_published(engine: Engine) -> None:
    world = World(engine)
    world.producer.down = True
    with pytest.raises(Unavailable):
        world.pass_document()
    assert world.quarantine.deleted == []
    world.producer.down = False
    world.pass_document()
    assert world.quarantine.deleted == [REF] and len(world.producer.sent) == 1


def test_an_older_version_is_published_too(engine: Engine) -> None:
    world = World(engine)
    world.pass_document(replace(INGESTED, sequence=2))
    world.quarantine.deleted.clear()
    world.pass_document()
    assert len(world.producer.messages(ANONYMIZED)) == 2


@pytest.mark.parametrize("terms", [{"damaged": True}, {"text": None}])
def test_rejects_a_text_that_does_not_verify_or_no_longer_exists(engine: Engine, terms: dict[str, Any]) -> None:
    world = World(engine, **terms)
    outcome = world.pass_document()
    assert isinstance(outcome, RefusedDocument)
    message = world.producer.messages(REJECTED)[0]
    assert isinstance(message, documents_pb2.DocumentRejected)
    assert message.reason == documents_pb2.REJECTION_REASON_UNREADABLE
    assert message.stage == documents_pb2.STAGE_ANONYMIZATION and message.hint
    assert world.corpus.texts == []


def test_the_event_is_read_completely(engine: Engine) -> None:
    message = documents_pb2.DocumentIngested(
        document_id="doc_1",
        submission_id="sub_1",
        version=common_pb2.Version(sequence=1, digest="digest"),
        kind=common_pb2.KIND_DOCUMENT,
        labels=common_pb2.Labels(source="wiki", department="risk", confidentiality="internal"),
        text=common_pb2.ObjectRef(uri=REF.uri, sha256=REF.sha256, size_bytes=REF.size_bytes),
        format="md",
    )
    assert to_ingested(message) == INGESTED
    world = World(engine)
    world.consume(message.SerializeToString())
    assert len(world.producer.sent) == 1


@pytest.mark.parametrize("value", [b"\xff\xff", b"", None])
def test_an_undecodable_or_empty_event_is_invalid(engine: Engine, value: bytes | None) -> None:
    with pytest.raises(InvalidArgument):
        World(engine).consume(value)


def test_an_erased_document_is_forgotten_on_both_sides_and_only_once(engine: Engine) -> None:
    world = World(engine)
    world.pass_document()
    counts = world.forget(Erased("doc_1", "ers_1")).counts
    assert (counts["corpus_objects"], counts["versions"]) == (1, 1)
    assert len(world.corpus.deleted) == 1
    assert not any(world.forget(Erased("doc_1", "ers_1")).counts.values())


def test_an_erased_document_that_arrives_late_leaves_quarantine_and_goes_no_further(engine: Engine) -> None:
    world = World(engine)
    message = documents_pb2.DocumentIngested(
        document_id="doc_1",
        version=common_pb2.Version(sequence=1),
        text=common_pb2.ObjectRef(uri=REF.uri, sha256=REF.sha256, size_bytes=REF.size_bytes),
    )
    world.consume(message.SerializeToString(), erased=("doc_1",))
    assert world.quarantine.deleted == [to_ingested(message).text]
    assert not world.producer.sent and not world.corpus.texts
